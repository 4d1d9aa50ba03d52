"""Timelines through real Snakemake."""

from __future__ import annotations

import csv
import json
import re

import pytest
from running import NOTHING, SUMMARY, Workspace, fake_grid, script


@pytest.fixture(scope="session")
def timeline_once(shared_folder) -> Workspace:
    """A fake experiment with a timeline, all done; only to be looked at."""
    return Workspace.run_once(
        shared_folder / "timeline", fake_grid(precisions=["fp32"], batch_sizes=[1, 2], timeline=[2])
    )


@pytest.fixture
def with_timeline(timeline_once, tmp_path) -> Workspace:
    """The same, to be changed."""
    return timeline_once.copy(tmp_path)


def test_a_timeline_is_measured_once_and_shown(timeline_once, with_timeline):
    said = (timeline_once.folder / "run.log").read_text()
    assert "fake fp32 batch 2 timeline: first step 2.1 ms, then 2.1 ms" in said
    folder = with_timeline.folder / "results/box"
    assert [path.name for path in folder.rglob("timeline*")] == ["timeline-batch-2.json"]
    text = (folder / "tables.md").read_text()
    row = next(line for line in text.splitlines() if re.match(r"\| fp32 batch 2 .*\+0\.0%", line))
    assert [cell.strip() for cell in row.split("|")[2:7]] == ["2.06"] * 5
    assert "Steps of a call" in (folder / "report.html").read_text()
    with (with_timeline.folder / SUMMARY).open() as summary:
        (row,) = [row for row in csv.DictReader(summary) if row["first_step_s"]]
    assert (row["batch_size"], row["timeline_flags"]) == ("2", "")
    assert with_timeline.plan() == NOTHING


def test_what_a_timeline_depends_on_makes_it_stale(with_timeline):
    with_timeline.grid["timeline_trace"] = True
    with_timeline.save()
    assert with_timeline.plan()["timeline"] == 1
    assert "measure" not in with_timeline.plan()
    with_timeline.grid.update(timeline_trace=False, timeline=[1, 2])
    with_timeline.save()
    assert with_timeline.plan()["timeline"] == 1
    record = with_timeline.record_path("fp32", 2).with_name("timeline-batch-2.json")
    document = json.loads(record.read_text())
    document["study"]["cell"]["measurement"]["seed"] = 5
    record.write_text(json.dumps(document))
    for path in (with_timeline.folder / ".snakemake").rglob("metadata"):
        path.rename(path.with_name("forgotten"))  # as in a clone
    assert with_timeline.plan()["timeline"] == 2
    with_timeline.run(SUMMARY)
    assert json.loads(record.read_text())["study"]["cell"]["measurement"]["seed"] == 0


def test_a_timeline_of_a_batch_size_that_is_not_measured_is_refused(with_timeline):
    with_timeline.grid["timeline"] = [2, 3]
    with_timeline.save()
    done = with_timeline.snakemake()
    assert done.returncode == 1
    assert "grid.cpu.timeline[1]: 3 is not among batch_sizes; allowed: 1, 2" in done.stdout + done.stderr


def test_timelines_are_merged_like_other_records(with_timeline, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    done = script("merge", with_timeline.folder / "results", cwd=other)
    assert done.returncode == 0, done.stderr
    assert len(list(other.rglob("timeline-batch-2.json"))) == 1
