"""Real Snakemake: cells that fail, are interrupted, or are tried again."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from preloaded import HANGS_S
from running import NOTHING, SUMMARY, clock_stands_until, measure_jobs, wait_for


def test_a_cell_out_of_time_is_named_so_and_the_others_go_on(workspace):
    workspace.config["watch"]["timeout_seconds"] = 5
    workspace.grid.update(precisions=["fp32"], batch_sizes=[2, 512])
    workspace.save()
    done = workspace.snakemake(**clock_stands_until("stopped", fault="hang", on_batch=2))
    assert done.returncode != 0
    assert "fake fp32 batch 2: failed (timeout), see logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log" in done.stderr
    assert "timeout during warm-up: no end after 5 s; the worker, stopped by a signal, was killed" in done.stderr
    assert workspace.record_path("fp32", 512).exists()
    assert not workspace.record_path("fp32", 2).exists()


def test_a_failing_cell_names_its_log_and_the_others_go_on(workspace):
    environ = {"FAKE_ENGINE": json.dumps({"fault": "error", "on_batch": 2})}
    done = workspace.snakemake(**environ)
    assert done.returncode == 1
    assert "fake fp32 batch 2: failed, see logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log" in done.stderr
    assert "made-up error" in (workspace.folder / "logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log").read_text()
    assert workspace.record_path("bf16", 512).exists()
    assert not workspace.record_path("fp32", 2).exists()
    last = done.stderr[done.stderr.index("Cells and studies: ") :].splitlines()
    column = "prompt4-new8/fake"
    assert last == [
        "Cells and studies: 2 measured, 2 out of memory, 2 failed.",
        f"Failed: tiny {column.replace('/', ' ')} fp32 batch 2, see logs/box/tiny/{column}/fp32/batch-2.log:",
        "    ValueError during warm-up: made-up error",
        f"Failed: tiny {column.replace('/', ' ')} bf16 batch 2, see logs/box/tiny/{column}/bf16/batch-2.log:",
        "    ValueError during warm-up: made-up error",
        "To go on, with what is missing: snakemake --cores 1 --resources gpu=1",
    ]
    assert "\nPreview: 4 of 6 cells have a record, 2 failed. See results/box/preview/report.html.\n" in done.stderr
    tables = (workspace.folder / "results/box/preview/tables.md").read_text()
    row, *_ = (line for line in tables.splitlines() if line.startswith("| 2 "))
    assert row.split()[3::2] == ["failed", "failed"]
    rows = (workspace.folder / "results/box/preview/summary.csv").read_text().splitlines()
    log = f"logs/box/tiny/{column}/fp32/batch-2.log: ValueError during warm-up: made-up error"
    assert [row for row in rows if ",2,fake," in row and ",failed," in row and log in row]
    assert measure_jobs(workspace.plan()) == 2
    assert "Cells and studies" not in workspace.run(SUMMARY).stderr
    assert measure_jobs(workspace.plan()) == 0


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("kill", "the worker was killed by SIGKILL during warm-up"),
        ("io-error", "OSError during warm-up: made-up error of a disk"),
    ],
)
def test_an_attempt_that_something_else_ended_is_repeated_and_stands_in_the_record(workspace, fault, why):
    fault = {"fault": fault, "on_batch": 2, "once": str(workspace.folder / "been-here")}
    workspace.grid["precisions"] = ["fp32"]
    workspace.save()
    done = workspace.run(SUMMARY, "--retries", "2", FAKE_ENGINE=json.dumps(fault))
    assert f"[1/3] tiny prompt4-new8 fake fp32 batch 2: failed ({why}), attempt 2 of 3 follows" in done.stderr
    (lost,) = workspace.record("fp32", 2)["attempts"]
    assert lost.pop("ended_at") < workspace.record("fp32", 2)["ended_at"]
    nowhere = dict.fromkeys(("job", "state", "node"))
    assert lost == {"attempt": 1, "said": f"measure.py: {why}", **nowhere}
    assert "attempts" not in workspace.record("fp32", 1)
    kept = workspace.folder / "logs/box/tiny/prompt4-new8/fake/fp32/batch-2.attempt-1.log"
    assert why in kept.read_text()
    assert measure_jobs(workspace.plan()) == 0


def test_a_cell_that_failed_by_itself_is_not_measured_again_in_a_retry(workspace):
    """A second measurement would leave a record: the fault comes once."""
    fault = {"fault": "error", "on_batch": 2, "once": str(workspace.folder / "been-here")}
    workspace.grid["precisions"] = ["fp32"]
    workspace.save()
    done = workspace.snakemake("--retries", "2", FAKE_ENGINE=json.dumps(fault))
    assert done.returncode != 0
    assert not workspace.record_path("fp32", 2).exists()
    assert done.stderr.count("batch 2: failed, see logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log") == 1
    assert "follows" not in done.stderr
    log = (workspace.folder / "logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log").read_text()
    assert "Traceback" in log
    assert log.endswith("measure.py: ValueError during warm-up: made-up error; not tried again\n")
    workspace.run(SUMMARY)
    assert "attempts" not in workspace.record("fp32", 2)


def test_cells_that_failed_when_measured_again_are_due_the_next_time(measured):
    """Snakemake itself takes the earlier record, which it restores, for the new one."""
    measured.config["measurement"]["min_cycles"] = 5
    measured.save()
    old = measured.record_path("fp32", 2).read_bytes()
    done = measured.snakemake(FAKE_ENGINE=json.dumps({"fault": "error", "on_batch": 2}))
    assert done.returncode != 0
    assert measure_jobs(measured.plan()) == 2
    (kept,) = measured.record_path("fp32", 2).parent.glob("batch-2.superseded-*.json")
    assert kept.read_bytes() == old
    measured.run(SUMMARY)
    assert measured.record("fp32", 2)["cell"]["measurement"]["min_cycles"] == 5


def test_a_valid_record_stays_where_measuring_it_again_fails(measured):
    old = measured.record_path("fp32", 2).read_bytes()
    target = str(measured.record_path("fp32", 2).relative_to(measured.folder))
    done = measured.snakemake("--forcerun", target, FAKE_ENGINE=json.dumps({"fault": "error", "on_batch": 2}))
    assert done.returncode != 0
    assert measured.record_path("fp32", 2).read_bytes() == old


@pytest.mark.parametrize("end", ["Ctrl-C", "a closed terminal", "kill -9"])
def test_a_run_that_ends_early_keeps_what_is_finished_and_the_next_does_the_rest(workspace, end):
    """While the third cell hangs."""
    workspace.grid.update(precisions=["fp32"], batch_sizes=[1, 2, 4, 512])
    workspace.save()
    hang = {"fault": "hang", "on_batch": 4, "once": str(workspace.folder / "been-here")}
    environ = {**os.environ, "FAKE_ENGINE": json.dumps(hang)}
    run = subprocess.Popen(
        workspace.command(), cwd=workspace.folder, env=environ, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # which nohup ignores
    )  # fmt: skip
    wait_for((workspace.folder / "been-here").exists)
    planned = workspace.run("-n")
    assert "Another Snakemake runs in this folder, or was killed in it (snakemake --unlock)." in planned.stderr
    assert (planned.stdout + planned.stderr).count("Job stats") == 1
    assert "Error" not in planned.stdout + planned.stderr
    if end == "kill -9":
        run.kill()
    elif end == "Ctrl-C":
        os.killpg(run.pid, signal.SIGINT)
    else:
        run.send_signal(signal.SIGHUP)
    said = run.communicate(timeout=HANGS_S)[1]  # until the last of its processes has ended
    assert run.returncode != 0
    if end == "kill -9":
        workspace.run("--unlock")
    else:
        assert "fp32 batch 4: interrupted\n" in said
        assert "Cells and studies: 2 measured, 1 interrupted, 1 not reached." in said
        assert "Failed" not in said
    finished = {p: p.read_bytes() for p in (workspace.folder / "results").rglob("batch-*.json")}
    assert len(finished) == 2
    for path in finished:
        json.loads(path.read_text())
    assert not list((workspace.folder / "results").rglob(".batch*"))
    plan = measure_jobs(workspace.plan())
    assert plan == 4 - len(finished)
    workspace.run(SUMMARY)
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert workspace.plan(SUMMARY) == NOTHING
