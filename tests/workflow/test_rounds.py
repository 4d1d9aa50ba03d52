"""Real Snakemake: the whole grid in several rounds, each round of a cell a job with a record of its own."""

from __future__ import annotations

import csv
import re

import pytest
from running import DERIVED, NOTHING, Workspace, fake_grid, fault, measure_jobs


@pytest.fixture
def twice(tmp_path) -> Workspace:
    """Two precisions, three batch sizes of which the last does not fit, two rounds; not measured yet."""
    workspace = Workspace.make(tmp_path, fake_grid())
    workspace.config["measurement"]["rounds"] = 2
    workspace.save()
    return workspace


def rounds(workspace: Workspace, precision: str, batch_size: int) -> list[str]:
    folder = workspace.record_path(precision, batch_size).parent
    return sorted(path.name for path in folder.glob(f"batch-{batch_size}.*"))


def summary(workspace: Workspace) -> dict[tuple[str, str], dict[str, str]]:
    with (workspace.folder / "results/box/summary.csv").open() as stream:
        return {(row["precision"], row["batch_size"]): row for row in csv.DictReader(stream)}


def test_the_grid_is_measured_round_by_round_and_a_table_is_of_all_rounds(twice):
    done = twice.run(FAKE_ENGINE=fault(scatter=[0.02, 0.001]))
    lines = re.findall(r"^\[\d+/12\] tiny prompt4-new8 fake (.*?): (\w+)", done.stderr, re.MULTILINE)
    cells = [f"{precision} batch {n}" for precision in ("fp32", "bf16") for n in (1, 2, 512)]
    assert [cell for cell, _ in lines] == [*cells, *(f"{cell} round 2" for cell in cells)]
    assert "fp32 batch 512 round 2: oom, as its first round showed" in done.stderr
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
    twice.run()
    kept = {path: (twice.folder / path).read_bytes() for path in twice.all_records()}
    twice.config["measurement"]["rounds"] = 3
    twice.save()
    assert measure_jobs(twice.plan()) == 6
    twice.run()
    assert {path: (twice.folder / path).read_bytes() for path in kept} == kept
    assert summary(twice)["bf16", "1"]["processes"] == "3"
    twice.config["measurement"]["rounds"] = 1
    twice.save()
    assert measure_jobs(twice.plan()) == 0
    twice.run()
    assert summary(twice)["bf16", "1"]["processes"] == "1"
    assert len(twice.all_records()) == 18


def test_a_lost_round_is_measured_again_and_a_lost_out_of_memory_in_every_round(twice):
    twice.run()
    twice.record_path("fp32", "2.round-2").unlink()
    assert twice.plan() == {"measure": 1, "collect": 1, **DERIVED, "all": 1, "total": 7}
    twice.run()
    twice.record_path("fp32", 512).unlink()
    done = twice.run()
    assert "batch-512.round-2.json rests on a record that is gone" in done.stdout + done.stderr
    assert [name for name in rounds(twice, "fp32", 512) if "superseded" not in name] == [
        "batch-512.json",
        "batch-512.round-2.json",
    ]
    assert twice.plan() == NOTHING


def test_a_preview_shows_the_rounds_that_there_are(twice):
    twice.run()
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
