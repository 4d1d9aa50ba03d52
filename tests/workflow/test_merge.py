"""Real Snakemake on records from several places."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from made_up import OOM
from running import REPORT, SUMMARY, Workspace, script


@pytest.fixture
def two_halves(measured: Workspace, tmp_path_factory) -> tuple[Workspace, Path]:
    """A project with half of its records, and a folder with the other half."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "results"
    shutil.copytree(measured.folder / "results", elsewhere)
    for path in (measured.folder / "results/box").rglob("bf16/batch-*.json"):
        path.unlink()
    for path in elsewhere.rglob("fp32/batch-*.json"):
        path.unlink()
    return measured, elsewhere


def test_merged_records_make_one_report_and_nothing_is_measured(two_halves):
    project, elsewhere = two_halves
    assert project.plan()["measure"] == 3
    assert script("merge", elsewhere, cwd=project.folder).returncode == 0
    assert "measure" not in project.plan()
    project.run(SUMMARY)
    rows = (project.folder / "results/box/summary.csv").read_text().splitlines()
    assert len(rows) == 7
    assert "measure" not in project.plan()


def test_a_second_record_that_a_copy_left_is_named(two_halves):
    project, elsewhere = two_halves
    script("merge", elsewhere, cwd=project.folder)
    path = project.record_path("fp32", 1)
    record = json.loads(path.read_text())
    path.with_name("batch-1 (conflicted copy).json").write_text(path.read_text())
    project.run(SUMMARY)
    path.with_name("batch-1.sync-conflict.json").write_text(json.dumps(record | {"started_at": "2020-01-01"}))
    (path.parent / "batch-7.json").write_text(json.dumps(record))  # of no cell that is asked for
    (project.folder / "results/box/summary.csv").unlink()
    done = project.snakemake()
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    name = path.relative_to(project.folder)
    assert f"two records of one cell: {name} of {record['started_at']} on" in printed
    assert f"{name.with_name('batch-1.sync-conflict.json')} of 2020-01-01 on" in printed
    assert "conflicted copy" not in printed


def test_a_record_with_hostile_texts_is_only_text(measured):
    """Whatever stands in a record of somebody else's: nothing of it runs, nor moves a terminal's cursor."""
    hostile = "\x1b[2J<script>alert(1)</script>=HYPERLINK(1)`touch pwned`$(touch pwned)'\";\n| x"
    path = measured.record_path("fp32", 512)
    record = json.loads(path.read_text())
    record["reason"] = asdict(replace(OOM, message=hostile, evidence={"search": hostile}))
    record["host"]["name"] = record["software"]["torch"] = record["device"]["name"] = hostile
    path.write_text(json.dumps(record))
    done = measured.snakemake()
    assert done.returncode != 0  # of another device than the others: named
    assert "\x1b" not in done.stdout + done.stderr
    measured.config["mixed_provenance"] = "split"
    measured.save()
    measured.run(REPORT)
    results = measured.folder / "results/box"
    assert "<script>alert" not in (results / "report.html").read_text()
    assert not list(measured.folder.rglob("pwned"))
