"""Real Snakemake: the whole grid in several rounds, each round of a cell a job with a record of its own."""

from __future__ import annotations

import csv
import json
import re
import shutil

import pytest
from running import DERIVED, NOTHING, SUMMARY, Workspace, fake_grid, fault, measure_jobs, scramble


@pytest.fixture(scope="session")
def uneven_once(shared_folder) -> Workspace:
    """Two precisions, three batch sizes of which the last does not fit, two to four rounds, all done; only to be looked
    at. Processes scatter a little, and one cell had a slow call in round 1."""
    settings = {"rounds": {"least": 2, "most": 4}, "target_half_width_percent": 20}
    slow = fault(fault="slow", on_batch=2, after=2, once=str(shared_folder / "was-slow"), scatter=[0.004, 0.001])
    return Workspace.run_once(
        shared_folder / "uneven", fake_grid(), lambda config: config["measurement"].update(settings), FAKE_ENGINE=slow
    )


@pytest.fixture
def uneven(uneven_once, tmp_path) -> Workspace:
    """The same, to be changed."""
    return uneven_once.copy(tmp_path)


@pytest.fixture
def twice(uneven) -> Workspace:
    """The same, of which only two rounds are wanted."""
    uneven.config["measurement"]["rounds"] = 2
    uneven.save()
    return uneven


def rounds(workspace: Workspace, precision: str, batch_size: int) -> list[str]:
    folder = workspace.record_path(precision, batch_size).parent
    return sorted(path.name for path in folder.glob(f"batch-{batch_size}.*"))


def summary(workspace: Workspace) -> dict[tuple[str, str], dict[str, str]]:
    with (workspace.folder / "results/box/summary.csv").open() as stream:
        return {(row["precision"], row["batch_size"]): row for row in csv.DictReader(stream)}


def test_the_grid_is_measured_round_by_round_and_a_table_is_of_all_rounds(uneven_once):
    said = (uneven_once.folder / "run.log").read_text()
    lines = re.findall(r"^\[\d+/12\] tiny prompt4-new8 fake (.*?): (\w+)", said, re.MULTILINE)
    cells = [f"{precision} batch {n}" for precision in ("fp32", "bf16") for n in (1, 2, 512)]
    assert [cell for cell, _ in lines] == [*cells, *(f"{cell} round 2" for cell in cells)]
    assert "fp32 batch 512 round 2: oom, as its first round showed" in said
    rows = summary(uneven_once)
    assert len(rows) == 6
    assert rows["bf16", "512"]["outcome"] == "oom"
    own = [uneven_once.record("bf16", "2.round-2" if n == 2 else 2) for n in (1, 2)]
    means = [sum(record["runs"][0]["samples_s"]) / 3 for record in own]
    assert means[0] != means[1], "processes scatter"
    assert float(rows["bf16", "2"]["latency_s"]) == pytest.approx((means[0] * means[1]) ** 0.5), "the geometric mean"


def test_more_rounds_measure_only_the_new_ones_and_fewer_measure_nothing(twice):
    kept = {path: (twice.folder / path).read_bytes() for path in twice.all_records()}
    twice.config["measurement"]["rounds"] = 3
    twice.save()
    assert measure_jobs(twice.plan()) == 5
    twice.run(SUMMARY)
    assert {path: (twice.folder / path).read_bytes() for path in kept} == kept
    assert summary(twice)["bf16", "1"]["processes"] == "3"
    twice.config["measurement"]["rounds"] = 1
    twice.save()
    assert measure_jobs(twice.plan()) == 0
    twice.run(SUMMARY)
    assert summary(twice)["bf16", "1"]["processes"] == "1"
    assert len(twice.all_records()) == 19


def test_a_lost_round_is_measured_again_and_a_lost_out_of_memory_in_every_round(twice):
    twice.record_path("fp32", "2.round-2").unlink()
    assert twice.plan() == {"measure": 1, "collect": 1, **DERIVED, "all": 1, "total": 7}
    twice.record_path("fp32", 512).unlink()
    done = twice.run(SUMMARY)
    assert "batch-512.round-2.json was derived from a record that was deleted" in done.stdout + done.stderr
    assert [name for name in rounds(twice, "fp32", 512) if "superseded" not in name] == [
        "batch-512.json",
        "batch-512.round-2.json",
    ]
    assert twice.record_path("fp32", "2.round-2").exists()
    assert twice.plan(SUMMARY) == NOTHING


def test_a_preview_shows_the_rounds_that_there_are(twice):
    twice.record_path("fp32", "1.round-2").unlink()
    twice.record_path("fp32", 2).unlink()
    for path in (twice.record_path("bf16", 1), twice.record_path("bf16", "1.round-2")):
        path.unlink()
    twice.run("preview")
    with (twice.folder / "results/box/preview/summary.csv").open() as stream:
        shown = {(row["precision"], row["batch_size"]): row for row in csv.DictReader(stream)}
    assert {key: (row["outcome"], row["processes"]) for key, row in shown.items()} == {
        ("fp32", "1"): ("ok", "1"), ("fp32", "2"): ("ok", "1"), ("fp32", "512"): ("oom", ""),
        ("bf16", "1"): ("missing", ""), ("bf16", "2"): ("ok", "2"), ("bf16", "512"): ("oom", ""),
    }  # fmt: skip


#: The batch size of the cell that scatters, and the names of its records.
NOISY, RECORDS = 2, ["batch-2.json", *(f"batch-2.round-{n}.json" for n in (2, 3, 4))]


def decided(workspace: Workspace) -> dict[str, int]:
    """The rounds of each cell, by the end of the path of its first record."""
    cells = json.loads((workspace.folder / "results/box/rounds.json").read_text())["cells"]
    return {path.split("/fake/")[1].removesuffix(".json"): cell["rounds"] for path, cell in cells.items()}


def processes(workspace: Workspace) -> dict[tuple[str, str], str]:
    return {key: row["processes"] for key, row in summary(workspace).items() if row["outcome"] == "ok"}


def test_a_noisy_cell_has_more_rounds_and_a_quiet_one_none(uneven_once, uneven):
    said = (uneven_once.folder / "run.log").read_text()
    lines = re.findall(r"^(\[\d+/\d+\]) tiny prompt4-new8 fake (.*?): ", said, re.MULTILINE)
    assert lines[11:] == [
        ("[12/12]", "bf16 batch 512 round 2"),
        ("[13/14]", "fp32 batch 2 round 3"),
        ("[14/14]", "fp32 batch 2 round 4"),
    ]
    noisy = {"fp32/batch-2": 4}
    quiet = {f"{precision}/batch-{n}": 2 for precision in ("fp32", "bf16") for n in (1, 2, 512)}
    assert decided(uneven) == quiet | noisy
    assert rounds(uneven, "fp32", NOISY) == sorted(RECORDS)
    assert processes(uneven) == {("fp32", "1"): "2", ("fp32", "2"): "4", ("bf16", "1"): "2", ("bf16", "2"): "2"}
    provenance = json.loads((uneven.folder / "results/box/provenance.json").read_text())
    assert provenance["measurement"]["rounds"] == "2 or more"
    assert "The grid was measured in 2 or more rounds" in (uneven.folder / "results/box/report.html").read_text()
    assert uneven.plan() == NOTHING
    shutil.rmtree(uneven.folder / ".snakemake")
    scramble(uneven.folder)
    assert uneven.plan() == NOTHING


def test_a_lost_further_round_is_measured_again_alone_and_a_lost_decision_made_again(uneven):
    kept = {path: (uneven.folder / path).read_bytes() for path in uneven.all_records() if path.name != RECORDS[2]}
    decision = uneven.folder / "results/box/rounds.json"
    before = decision.read_bytes()
    uneven.record_path("fp32", "2.round-3").unlink()
    assert uneven.plan() == {"measure": 1, "collect": 1, **DERIVED, "all": 1, "total": 7}
    decision.unlink()
    said = uneven.run("-n")
    assert "rounds 1" in re.sub(" +", " ", said.stdout + said.stderr)
    uneven.run()
    assert decision.read_bytes() == before
    assert rounds(uneven, "fp32", NOISY) == sorted(RECORDS)
    assert {path: (uneven.folder / path).read_bytes() for path in kept} == kept
    assert uneven.plan() == NOTHING


def test_more_rounds_at_the_most_measure_only_the_new_ones_and_fewer_measure_nothing(uneven):
    limits = uneven.config["measurement"]["rounds"]
    kept = {path: (uneven.folder / path).read_bytes() for path in uneven.all_records()}
    for most, n_records, used in ((5, 15, "5"), (3, 15, "3")):
        limits["most"] = most
        uneven.save()
        planned = uneven.plan(SUMMARY)
        assert (planned["rounds"], measure_jobs(planned)) == (1, 0), "it is not decided yet"
        uneven.run(SUMMARY)
        assert len(uneven.all_records()) == n_records
        assert processes(uneven)["fp32", "2"] == used
    assert {path: (uneven.folder / path).read_bytes() for path in kept} == kept
    uneven.config["measurement"]["rounds"] = 2
    uneven.save()
    assert uneven.plan(SUMMARY) == {"collect": 1, "total": 1}


def test_a_lost_record_of_the_least_rounds_is_measured_again_and_all_is_decided_again(uneven):
    lost = uneven.record_path("fp32", NOISY)
    lost.unlink()
    planned = uneven.plan()
    assert (planned["measure"], planned["rounds"]) == (1, 1)
    uneven.run(str(lost.relative_to(uneven.folder)), SUMMARY)
    assert set(decided(uneven).values()) == {2}, "no call is slow any more"
    assert set(processes(uneven).values()) == {"2"}
    assert rounds(uneven, "fp32", NOISY) == sorted(RECORDS), "what is not asked for stays"


def test_further_rounds_of_other_settings_are_measured_again_where_snakemake_remembers_nothing(uneven, tmp_path):
    shutil.rmtree(uneven.folder / ".snakemake")
    scramble(uneven.folder)
    uneven.config["measurement"]["min_cycles"] = 4
    uneven.save()
    slow = fault(fault="slow", on_batch=2, after=2, once=str(tmp_path / "was-slow-again"))
    uneven.run(SUMMARY, FAKE_ENGINE=slow)
    decided = json.loads((uneven.folder / "results/box/rounds.json").read_text())["cells"]
    assert max(cell["rounds"] for cell in decided.values()) > 2
    for first, cell in decided.items():
        path = uneven.folder / first
        for each in (path, *(path.with_suffix(f".round-{n}.json") for n in range(2, cell["rounds"] + 1))):
            assert json.loads(each.read_text())["cell"]["measurement"]["min_cycles"] == 4, each
