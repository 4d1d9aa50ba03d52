"""Real Snakemake: tables and report during a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import psutil
from running import NOTHING, SUMMARY, script, wait_for


def stopped_processes() -> list[int]:
    return [each.pid for each in psutil.process_iter(["status"]) if each.info["status"] == psutil.STATUS_STOPPED]


def test_a_preview_shows_what_there_is_while_others_measure(workspace):
    workspace.grid["batch_sizes"] = [1, 2]
    workspace.save()
    hang = {"fault": "hang", "on_batch": 2, "once": str(workspace.folder / "been-here")}
    environ = {**os.environ, "FAKE_ENGINE": json.dumps(hang)}
    run = subprocess.Popen(
        workspace.command(SUMMARY), cwd=workspace.folder, env=environ, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for((workspace.folder / "been-here").exists)
    done = workspace.run("preview")
    assert run.poll() is None, "the second cell hangs"
    folder = workspace.folder / "results/box/preview"
    assert "missing. See results/box/preview/report.html." in done.stdout
    page = (folder / "report.html").read_text()
    assert "1 of 4 cells have a record" in page
    row = next(line for line in (folder / "tables.md").read_text().splitlines() if line.startswith("| 1 "))
    assert row.count("|") == 5  # with the one inside the figure
    assert row.split("|")[-2].strip() == ""
    wait_for(lambda: run.pid in map(os.getpgid, stopped_processes()))
    os.killpg(run.pid, signal.SIGCONT)
    _, printed = run.communicate()
    assert run.returncode == 0, printed
    assert len(list((workspace.folder / "results/box/tiny").rglob("batch-*.json"))) == 4
    assert workspace.plan(SUMMARY) == NOTHING


def test_a_preview_names_what_failed_and_what_is_refused(measured):
    measured.record_path("bf16", 2).unlink()
    measured.snakemake(
        str(measured.record_path("bf16", 2).relative_to(measured.folder)), FAKE_ENGINE='{"fault": "error"}'
    )
    measured.record_path("fp32", 1).write_text("{")
    measured.record_path("fp32", 512).unlink()
    (measured.folder / "logs/box/tiny/prompt4-new8/fake/fp32/batch-512.log").unlink()
    done = measured.run("preview")
    assert "Preview: 3 of 6 cells have a record, 1 failed, 1 refused, 1 missing." in done.stdout
    log = "logs/box/tiny/prompt4-new8/fake/bf16/batch-2.log"
    failed = f"Failed: tiny prompt4-new8 fake bf16 batch 2, see {log}:\n    ValueError during warm-up: made-up error"
    path = "results/box/tiny/prompt4-new8/fake/fp32/batch-1.json"
    refused = f"Refused: tiny prompt4-new8 fake fp32 batch 1, see {path}:\n    not JSON"
    assert failed in done.stdout
    assert refused in done.stdout
    page = (measured.folder / "results/box/preview/report.html").read_text()
    assert f"<li>{failed}</li>" in page
    assert f"<li>{refused}" in page
    rows = (measured.folder / "results/box/preview/summary.csv").read_text().splitlines()
    assert len(rows) == 7
    done = script("compare", *["results/box/preview/summary.csv"] * 2, cwd=measured.folder)
    assert done.returncode == 0, done.stderr
    assert "3 cells in common: 2 same, 1 neither fits" in done.stdout
    assert "3 cells without a record yet are left out" in done.stdout


def test_a_preview_of_nothing_says_so(workspace):
    assert "0 of 6 cells have a record, 6 missing. There is nothing to show yet." in workspace.run("preview").stdout
