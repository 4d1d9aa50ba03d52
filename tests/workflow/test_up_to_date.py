"""Real Snakemake: what is made again, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from made_up import TINY_BLOOM
from running import (
    DERIVED,
    NOTHING,
    REPORT,
    SUMMARY,
    TABLES,
    Workspace,
    drawn,
    fake_grid,
    measure_jobs,
    scramble,
)

from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.freshness import date_derived_files


def test_records_of_different_hardware_or_software_are_refused_or_split(measured):
    path = measured.record_path("bf16", 2)
    record = json.loads(path.read_text())
    torch = record["software"]["torch"]
    record["software"]["torch"], record["environment"]["OMP_PROC_BIND"] = "2.11.0", "true"
    record["git"] = {"commit": "d" * 40, "dirty": False}
    path.write_text(json.dumps(record))
    done = measured.snakemake()
    printed, name = done.stdout + done.stderr, "results/box/tiny/prompt4-new8/fake/bf16/batch-2.json"
    assert done.returncode != 0
    assert f"tiny prompt4-new8: torch differs: {torch} in 5 cells; 2.11.0 in {name}" in printed
    assert f"tiny prompt4-new8: environment OMP_PROC_BIND differs: not set in 5 cells; true in {name}" in printed
    assert "commit differs" not in printed
    assert "or set mixed_provenance: split" in printed
    measured.config["mixed_provenance"] = "split"
    measured.save()
    assert measure_jobs(measured.plan()) == 0
    measured.run(TABLES, REPORT)
    tables = (measured.folder / "results/box/tables.md").read_text()
    assert "bf16<br>torch 2.11.0, environment OMP_PROC_BIND true" in tables
    assert f"bf16<br>torch {torch}, environment OMP_PROC_BIND not set" in tables
    assert "OMP_PROC_BIND" in (measured.folder / "results/box/report.html").read_text()


def test_a_copy_without_snakemakes_memory_plans_nothing(measured):
    shutil.rmtree(measured.folder / ".snakemake")
    assert measured.plan() == NOTHING
    shutil.rmtree(measured.folder / ".snakemake", ignore_errors=True)
    scramble(measured.folder)
    assert measured.plan() == NOTHING


def test_files_that_are_made_from_each_other_are_dated_alike_however_long_that_takes(measured, monkeypatch):
    monkeypatch.chdir(measured.folder)
    (saved,) = Path(".snakemake/experiments").glob("*.json")
    dated = os.utime
    monkeypatch.setattr(os, "utime", lambda *arguments: (time.sleep(0.02), dated(*arguments)))
    date_derived_files([Experiment.from_json(saved.read_text())], metadata=Path("none"))
    assert len({Path(path).stat().st_mtime_ns for path in (SUMMARY, TABLES, REPORT)}) == 1


@pytest.fixture
def of_checkpoint(tmp_path) -> tuple[Workspace, Path]:
    """A cell of a checkpoint that is measured, and the folder with the weights."""
    weights = tmp_path / "weights"
    shutil.copytree(drawn({"architecture": TINY_BLOOM, "seed": 0}), weights)
    (tmp_path / "w").mkdir()
    grid = fake_grid(models=["mine"], precisions=["fp32"], batch_sizes=[1, 2])
    workspace = Workspace.make(tmp_path / "w", grid, {"mine": {"checkpoint": str(weights)}})
    workspace.run(TABLES)
    return workspace, weights


def test_the_bytes_of_a_checkpoint_decide_and_not_where_they_lie(of_checkpoint):
    workspace, weights = of_checkpoint
    moved = weights.rename(weights.with_name("moved"))
    weights.with_name("link").symlink_to(moved)
    for path in ("../moved/", "../link", f"{workspace.folder}/./../moved"):
        workspace.config["models"]["mine"]["checkpoint"] = path
        workspace.save()
        assert measure_jobs(workspace.plan()) == 0
    # A record of before, with the path in its cell.
    for path in workspace.all_records():
        record = json.loads((workspace.folder / path).read_text())
        record["cell"]["model"]["checkpoint"] = "/where/it/was"
        (workspace.folder / path).write_text(json.dumps(record))
    workspace.run(TABLES)
    with (moved / "config.json").open("a") as config:
        config.write("\n")
    assert measure_jobs(workspace.plan()) == 2


def test_weights_are_needed_to_measure_and_not_to_read(of_checkpoint):
    workspace, weights = of_checkpoint
    (weights / "model.safetensors").rename(weights / "elsewhere")
    workspace.run()
    assert workspace.plan() == NOTHING
    assert "2 of 2" in workspace.run("preview").stdout
    (workspace.folder / "results/box/mine/prompt4-new8/fake/fp32/batch-2.json").unlink()
    done = workspace.snakemake()
    assert done.returncode != 0
    assert f"models.mine.checkpoint: {weights} holds no weights; allowed: model.safetensors or" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((workspace.folder / "results").rglob("batch-2.json"))
    (weights / "elsewhere").rename(weights / "model.safetensors")
    workspace.run(TABLES)


def test_a_copy_without_memory_still_fills_only_what_is_missing(measured):
    shutil.rmtree(measured.folder / ".snakemake")
    measured.record_path("fp32", 2).unlink()
    scramble(measured.folder)
    assert measure_jobs(measured.plan()) == 1


def test_records_of_other_settings_are_measured_again_where_snakemake_remembers_nothing(measured):
    """As records that were written after a Ctrl-C, and all those of a clone."""
    shutil.rmtree(measured.folder / ".snakemake")
    scramble(measured.folder)
    measured.config["measurement"]["min_cycles"] = 5
    measured.save()
    assert measure_jobs(measured.plan()) == 6
    assert measure_jobs(measured.plan("preview")) == 0, "only what is asked for"
    assert measured.record("fp32", 1)["cell"]["measurement"]["min_cycles"] == 3
    measured.run(SUMMARY)
    assert measured.record("fp32", 1)["cell"]["measurement"]["min_cycles"] == 5
    assert len(list((measured.folder / "results").rglob("*.superseded-*.json"))) == 6
    assert measure_jobs(measured.plan()) == 0


def test_files_dated_in_the_future_are_used(measured):
    """As an unpacked archive or a wrong clock leaves them: a record, code, and the configuration."""
    files = [measured.record_path("fp32", 1), measured.folder / "scripts/collect.py", measured.folder / "config.yaml"]
    for path in files:
        os.utime(path, (tomorrow := time.time() + 86_400, tomorrow))
    (measured.folder / SUMMARY).unlink()
    measured.run(SUMMARY, TABLES)
    assert all(path.stat().st_mtime <= time.time() for path in files)
    assert not {"collect", "tables"} & measured.plan().keys()


def test_records_laid_in_from_elsewhere_reach_the_tables(measured):
    """As after a campaign on another machine: newer content, older times."""
    path = measured.record_path("fp32", 1)
    record = json.loads(path.read_text())
    record["runs"][0]["samples_s"] = [1.0, 1.0, 1.0]
    path.write_text(json.dumps(record))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert measured.plan() == {"collect": 1, **DERIVED, "all": 1, "total": 6}
    measured.run(TABLES)
    assert "8.00 \\| 125.00" in (measured.folder / "results/box/tables.md").read_text()
    assert not {"collect", "tables"} & measured.plan().keys()


def test_a_changed_template_makes_the_report_again_and_nothing_else(measured):
    template = measured.folder / "report/report.html.j2"
    template.write_text(template.read_text().replace("Conditions and provenance", "Origin"))
    assert measured.plan() == {"report": 1, "all": 1, "total": 2}


def test_a_trial_of_threads_makes_the_report_again_and_nothing_else(measured):
    record = json.loads(measured.record_path("fp32", 1).read_text())
    record["cell"]["measurement"]["threads"] = 1
    (measured.folder / "results/box/threads.json").write_text(json.dumps({"records": [record]}))
    assert measured.plan() == {"report": 1, "all": 1, "total": 2}
    measured.run(REPORT)
    assert "batch 1, by threads: 1: " in (measured.folder / REPORT).read_text()


def test_a_changed_formula_makes_the_summary_again_and_measures_nothing(measured):
    formula = measured.folder / "scripts/inference_benchmark/analysis/metrics.py"
    text = formula.read_text()
    assert text.count("return 1000 / throughput") == 1
    formula.write_text(text.replace("return 1000 / throughput", "return 1e6 / throughput"))
    assert measured.plan() == {"collect": 1, **DERIVED, "all": 1, "total": 6}
    measured.run(TABLES)
    assert "\\| 2031.25" in (measured.folder / "results/box/tables.md").read_text()


@pytest.mark.parametrize("content", ["{", '{"schema_version": 0}', ""], ids=["half", "old", "empty"])
def test_corrupt_and_old_records_are_refused_by_name(measured, content):
    measured.record_path("bf16", 2).write_text(content)
    done = measured.snakemake()
    assert done.returncode != 0
    assert "results/box/tiny/prompt4-new8/fake/bf16/batch-2.json: " in done.stdout + done.stderr
    assert measured.record_path("bf16", 2).read_text() == content


def test_a_refusal_ends_with_its_reason_and_is_not_forgotten(measured):
    path = measured.record_path("bf16", 2)
    whole = path.read_text()
    path.write_text("{")
    for _ in range(2):
        done = measured.snakemake()
        assert done.returncode != 0
        last = done.stderr[done.stderr.index("Failed: ") :].splitlines()
        assert last[0] == "Failed: collect, see logs/box/collect.log:"
        assert last[1].strip().startswith("results/box/tiny/prompt4-new8/fake/bf16/batch-2.json: not JSON")
        assert last[2].strip().startswith("there is no summary until this is resolved; tables and report stay")
        assert last[3:] == ["To go on, with what is missing: snakemake --cores 1 --resources gpu=1"]
        assert "scripts/inference_benchmark/" not in done.stdout + done.stderr, "no list of all code"
        assert not (measured.folder / "results/box/summary.csv").exists()
        assert (measured.folder / "results/box/report.html").exists()
    path.write_text(whole)
    measured.run(TABLES)


def test_touching_files_and_planning_claim_no_measurement(measured):
    for option in ("--touch", "--dry-run"):
        done = measured.run(option, "--forceall")
        assert "tok/s" not in done.stdout + done.stderr
        assert "Cells and studies" not in done.stderr


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.mkdir(), "is not a file; remove it, or put the record there"),
        (lambda path: os.mkfifo(path), "is not a file; remove it, or put the record there"),
    ],
    ids=["link", "folder", "fifo"],
)
def test_what_is_no_file_in_the_place_of_a_record_is_named_before_any_job(measured, put, message):
    path = measured.record_path("fp32", 1)
    path.unlink()
    put(path)
    done = measured.snakemake()
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"results/box/tiny/prompt4-new8/fake/fp32/batch-1.json: {message}" in printed
    assert "Traceback" not in printed
    assert "Job stats" not in printed


def test_results_that_are_out_of_date_and_only_to_be_read_are_named(measured):
    results = measured.folder / "results"
    mounted = subprocess.run(["mount", "--bind", results, results], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a read-only folder needs the right to mount: {mounted.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", results], check=True)
        assert measured.plan() == NOTHING
        measured.config["mixed_provenance"] = "split"
        measured.save()
        only_derived = measured.plan()
        measured.grid["batch_sizes"] = [1, 2, 4, 512]
        measured.save()
        planned, refused = measured.run("-n"), measured.snakemake()
    finally:
        subprocess.run(["umount", results], check=True)
    assert only_derived == {"collect": 1, **DERIVED, "all": 1, "total": 6}
    assert re.search(r"^measure +2$", planned.stdout, re.MULTILINE)
    line = "results/box/summary.csv: Read-only file system, and it is out of date or missing"
    assert planned.stdout.count("Read-only file system") == planned.stdout.count(f"{line}\n") == 1
    assert refused.returncode == 1
    assert f"\n{line}; work in a folder that can be written (snakemake --directory)\n" in refused.stderr


def test_a_cell_derived_from_another_record_is_measured_when_that_is_deleted(workspace):
    workspace.grid.update(precisions=["fp32"], batch_sizes=[1, 512, 1024])
    workspace.save()
    place = "results/box/tiny/prompt4-new8/fake/fp32"
    assert "batch 1024: oom, as a smaller batch showed" in workspace.run(SUMMARY).stderr
    assert workspace.record("fp32", 1024)["reason"]["phase"] == "other-cell"
    assert measure_jobs(workspace.plan()) == 0
    workspace.record_path("fp32", 512).unlink()
    done = workspace.run("-n")
    assert "batch-1024.json was derived from a record that was deleted; it is renamed" in done.stdout + done.stderr
    assert measure_jobs(workspace.plan()) == 2
    workspace.run(*(f"{place}/batch-{n}.json" for n in (512, 1024)), SUMMARY)
    # If the record it was derived from is in no grid, it is refused by name.
    workspace.grid["batch_sizes"] = [1, 1024]
    workspace.save()
    workspace.record_path("fp32", 512).unlink()
    done = workspace.snakemake()
    assert f"{place}/batch-1024.json: was not measured because of {place}/batch-512.json" in done.stderr
