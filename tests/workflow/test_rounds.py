"""Real Snakemake: the whole grid in several rounds, each round of a cell a job with a record of its own."""

from __future__ import annotations

import csv
import re

import pytest
from running import DERIVED, NOTHING, SUMMARY, Workspace, fake_grid, fault, measure_jobs


@pytest.fixture(scope="session")
def twice_once(shared_folder) -> Workspace:
    """Two precisions, three batch sizes of which the last does not fit, two rounds, all done; only to be looked at."""
    scatters = fault(scatter=[0.02, 0.001])
    two = {"rounds": 2}
    return Workspace.run_once(
        shared_folder / "rounds", fake_grid(), lambda config: config["measurement"].update(two), FAKE_ENGINE=scatters
    )


@pytest.fixture
def twice(twice_once, tmp_path) -> Workspace:
    """The same, to be changed."""
    return twice_once.copy(tmp_path)


def rounds(workspace: Workspace, precision: str, batch_size: int) -> list[str]:
    folder = workspace.record_path(precision, batch_size).parent
    return sorted(path.name for path in folder.glob(f"batch-{batch_size}.*"))


def summary(workspace: Workspace) -> dict[tuple[str, str], dict[str, str]]:
    with (workspace.folder / "results/box/summary.csv").open() as stream:
        return {(row["precision"], row["batch_size"]): row for row in csv.DictReader(stream)}


def test_the_grid_is_measured_round_by_round_and_a_table_is_of_all_rounds(twice_once, twice):
    said = (twice_once.folder / "run.log").read_text()
    lines = re.findall(r"^\[\d+/12\] tiny prompt4-new8 fake (.*?): (\w+)", said, re.MULTILINE)
    cells = [f"{precision} batch {n}" for precision in ("fp32", "bf16") for n in (1, 2, 512)]
    assert [cell for cell, _ in lines] == [*cells, *(f"{cell} round 2" for cell in cells)]
    assert "fp32 batch 512 round 2: oom, as its first round showed" in said
    rows = summary(twice)
    assert len(rows) == 6
    assert {rows["fp32", n]["processes"] for n in "12"} == {"2"}
    assert rows["fp32", "512"]["outcome"] == "oom"
    own = [twice.record("fp32", "2.round-2" if n == 2 else 2) for n in (1, 2)]
    means = [sum(record["runs"][0]["samples_s"]) / 3 for record in own]
    assert means[0] != means[1], "processes scatter"
    assert float(rows["fp32", "2"]["latency_s"]) == pytest.approx(sum(means) / 2)
    assert twice.plan() == NOTHING


def test_more_rounds_measure_only_the_new_ones_and_fewer_measure_nothing(twice):
    kept = {path: (twice.folder / path).read_bytes() for path in twice.all_records()}
    twice.config["measurement"]["rounds"] = 3
    twice.save()
    assert measure_jobs(twice.plan()) == 6
    twice.run(SUMMARY)
    assert {path: (twice.folder / path).read_bytes() for path in kept} == kept
    assert summary(twice)["bf16", "1"]["processes"] == "3"
    twice.config["measurement"]["rounds"] = 1
    twice.save()
    assert measure_jobs(twice.plan()) == 0
    twice.run(SUMMARY)
    assert summary(twice)["bf16", "1"]["processes"] == "1"
    assert len(twice.all_records()) == 18


def test_a_lost_round_is_measured_again_and_a_lost_out_of_memory_in_every_round(twice):
    twice.record_path("fp32", "2.round-2").unlink()
    assert twice.plan() == {"measure": 1, "collect": 1, **DERIVED, "all": 1, "total": 7}
    twice.run()
    twice.record_path("fp32", 512).unlink()
    done = twice.run()
    assert "batch-512.round-2.json was derived from a record that was deleted" in done.stdout + done.stderr
    assert [name for name in rounds(twice, "fp32", 512) if "superseded" not in name] == [
        "batch-512.json",
        "batch-512.round-2.json",
    ]
    assert twice.plan() == NOTHING


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
