"""Records measured in several places come together, and none goes over another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_record import OOM, make_record
from test_studies import conducted

from conftest import REPO, Workspace, make_cell
from inference_benchmark.experiment.studies import ColumnStudy


def write(folder: Path, **changes) -> Path:
    """A record in a results folder, at its place."""
    cell = make_cell(**{name: changes.pop(name) for name in ("machine", "batch_size", "precision") if name in changes})
    path = folder / Path(cell.path).relative_to("results")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(make_record(cell, **changes)))
    return path


def merge(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, REPO / "scripts/merge.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_two_clusters_measured_comes_together(tmp_path):
    here, there, third = tmp_path / "results", tmp_path / "there", tmp_path / "third"
    write(here, machine="a100", batch_size=1)
    write(there, machine="a100", batch_size=2)
    write(there, machine="a100", batch_size=1)  # the same file in both places
    write(third, machine="h200", batch_size=1)
    for derived in ("h200/summary.csv", "h200/charts/x.svg", "report.html", "h200/preview/batch-9.json"):
        (third / derived).parent.mkdir(parents=True, exist_ok=True)
        (third / derived).write_text("not to be copied")
    done = merge(tmp_path, "there", "third")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 files copied, 1 were here already, 0 conflicts: none\n"
    column = "tiny/prompt4-new8/fake/fp32"
    assert set(contents(here)) == {
        f"a100/{column}/batch-1.json", f"a100/{column}/batch-2.json", f"h200/{column}/batch-1.json"
    }  # fmt: skip
    assert merge(tmp_path, "there", "third").stdout.startswith("0 files copied, 3 were here already")


def test_two_records_of_one_cell_are_named_and_nothing_is_copied(tmp_path):
    here, there = tmp_path / "results", tmp_path / "there"
    write(here, host={"name": "a1"})
    write(there, host={"name": "b7"}, started_at="2026-02-02T00:00:00.000+00:00")
    write(there, batch_size=4)
    before = contents(here)
    done = merge(tmp_path, "there")
    place = "results/box/tiny/prompt4-new8/fake/fp32/batch-2.json"
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"merge.py: {place}: two records for one place: {place} of 2026-01-01T00:00:00.000+00:00 on a1; "
        f"{place.replace('results', 'there')} of 2026-02-02T00:00:00.000+00:00 on b7",
        "merge.py: nothing was copied (see --on-conflict)",
    ]
    assert contents(here) == before
    assert merge(tmp_path, "there", "--on-conflict", "keep").returncode == 0
    assert contents(here).items() > before.items()
    assert len(contents(here)) == 2
    assert merge(tmp_path, "there", "--on-conflict", "replace").returncode == 0
    assert json.loads((tmp_path / place).read_text())["host"]["name"] == "b7"
    (kept,) = (tmp_path / place).parent.glob("batch-2.superseded-*.json")
    assert kept.read_bytes() == before[place.removeprefix("results/")]


def test_two_sources_can_be_in_conflict_too(tmp_path):
    write(tmp_path / "one", host={"name": "a1"})
    write(tmp_path / "two", host={"name": "b7"})
    done = merge(tmp_path, "one", "two")
    assert done.returncode == 1
    assert "two records for one place: one/box" in done.stderr
    assert not (tmp_path / "results").exists()


def test_what_is_no_record_of_its_place_is_named(tmp_path):
    there = tmp_path / "there"
    good = write(there)
    shutil.copy(good, good.with_name("batch-2 (1).json"))
    shutil.copytree(there / "box", there / "box-old")
    (there / "box/ceilings.json").write_text("{")
    os.mkfifo(there / "box/tiny/batch-1.json")
    (good.parent / "batch-3.json").symlink_to("/etc/passwd")
    (good.parent / "batch-4.json").write_text(json.dumps({"study": {"kind": "../../x"}}))
    (good.parent / "batch-5.json").write_text("[" * 100_000)
    (good.parent / "batch-6.json").write_text(json.dumps(make_record() | {"schema_version": 2}))
    done = merge(tmp_path, "there", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for line in (
        "fp32/batch-2 (1).json: is the record of box/tiny/prompt4-new8/fake/fp32/batch-2.json; move or rename it",
        "box-old/tiny/prompt4-new8/fake/fp32/batch-2.json: is the record of box/",
        "box/ceilings.json: not JSON",
        "box/tiny/batch-1.json: Not a regular file",
        "batch-3.json: not JSON",
        "batch-4.json: there is no study named '../../x'",
        "batch-5.json: not JSON",
        "batch-6.json: schema_version is 2",
    ):
        assert line in done.stderr, line
    assert not (tmp_path / "results").exists()
    done = merge(tmp_path, "nowhere")
    assert done.returncode == 1
    assert done.stderr == "merge.py: nowhere: No such file or directory\nmerge.py: nothing was copied\n"


def test_studies_come_along(tmp_path):
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
    path = tmp_path / "there" / Path(study.path).relative_to("results")
    conducted(study, path)
    assert merge(tmp_path, "there").returncode == 0
    assert (tmp_path / study.path).read_bytes() == path.read_bytes()


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
    assert merge(project.folder, elsewhere).returncode == 0
    assert "measure" not in project.plan()
    project.run()
    rows = (project.folder / "results/box/summary.csv").read_text().splitlines()
    assert len(rows) == 7
    assert project.plan() == {}


def test_a_second_record_that_a_copy_left_is_named(two_halves):
    project, elsewhere = two_halves
    merge(project.folder, elsewhere)
    path = project.record_path("fp32", 1)
    record = json.loads(path.read_text())
    path.with_name("batch-1 (conflicted copy).json").write_text(path.read_text())
    project.run()
    path.with_name("batch-1.sync-conflict.json").write_text(json.dumps(record | {"started_at": "2020-01-01"}))
    (path.parent / "batch-7.json").write_text(json.dumps(record))  # of no cell that is asked for
    (project.folder / "results/box/summary.csv").unlink()
    done = project.snakemake()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    name = path.relative_to(project.folder)
    assert f"two records of one cell: {name} of {record['started_at']} on" in said
    assert f"{name.with_name('batch-1.sync-conflict.json')} of 2020-01-01 on" in said
    assert "conflicted copy" not in said


def test_a_record_with_hostile_texts_is_only_text(measured):
    """Whatever stands in a record of somebody else's: nothing of it runs, nor moves a terminal's cursor."""
    hostile = "\x1b[2J<script>alert(1)</script>=HYPERLINK(1)`touch pwned`$(touch pwned)'\";\n| x"
    path = measured.record_path("fp32", 512)
    record = json.loads(path.read_text())
    record["reason"] = {**OOM, "phase": "load", "message": hostile, "evidence": {"search": hostile}}
    record["host"]["name"] = record["software"]["torch"] = record["device"]["name"] = hostile
    path.write_text(json.dumps(record))
    done = measured.snakemake()
    assert done.returncode != 0  # of another device than the others: named
    assert "\x1b" not in done.stdout + done.stderr
    measured.config["mixed_provenance"] = "split"
    measured.save()
    measured.run()
    results = measured.folder / "results/box"
    assert "<script>alert" not in (results / "report.html").read_text()
    assert not list(measured.folder.rglob("pwned"))
