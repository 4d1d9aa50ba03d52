"""The line per cell."""

from __future__ import annotations

import logging

import pytest
from made_up import DRIFTS, OLD, SHARED, epyc_ceilings, make_cell, make_experiment, make_oom, make_record, write_records
from snakemake_interface_logger_plugins.common import LogEvent

from inference_benchmark import files
from inference_benchmark.experiment.cells import log_path
from inference_benchmark.experiment.plan import Plan
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.records.attempts import AttemptLog
from inference_benchmark.records.results import cell_results
from inference_benchmark.render import progress
from inference_benchmark.render.one_line import cell_text, next_steps, study_text
from inference_benchmark.render.ranking import ranked
from inference_benchmark.results.summary_csv import to_csv


def handler_of(experiment, unfinished, lines, mode="run", clock=lambda: 0.0):
    """A handler of the plan of an experiment, which writes to lines. unfinished: outputs, as they are at any time."""
    return progress.ProgressHandler(
        Plan((experiment,), Supervision(), {}), AttemptLog(), mode=lambda: mode, retries=lambda: 0,
        unfinished=lambda: [*unfinished, "results/box/summary.csv"], write=lines.append, clock=clock,
    )  # fmt: skip


def event(kind, **facts):
    """What Snakemake's logger hands to its handlers."""
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", None, None)
    record.__dict__ |= {"event": LogEvent(kind), **facts}
    return record


def test_a_line_per_cell_counts_and_estimates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [make_cell(batch_size=size) for size in (1, 2, 4, 8, 16)]
    measured = make_record(cells[0], samples_s=[0.5] * 3, stability=DRIFTS, flags=SHARED)
    write_records(tmp_path, [measured, *map(make_oom, cells[1:4])])
    lines, now = [], [100.0]
    handler = handler_of(make_experiment(1, 2, 4, 8, 16), [cell.path for cell in cells], lines, clock=lambda: now[0])

    def tell(kind, **facts):
        handler.emit(event(kind, **facts))

    tell("run_info", stats={"measure": 5, "total": 9})
    for jobid, cell in enumerate(cells):
        tell("job_info", jobid=jobid, rule_name="measure", output=[f"{cell.path} (update)"])
    tell("job_info", jobid=9, rule_name="collect", output=[])
    now[0] += 10
    tell("job_finished", job_id=0)
    tell("job_finished", job_id=9)
    for jobid in (1, 2, 3):
        now[0] += 10
        tell("job_finished", job_id=jobid)
    log = tmp_path / "logs/box/tiny/prompt4-new8/fake/fp32/batch-16.log"
    log.parent.mkdir(parents=True)
    log.write_text("measure.py: timeout during measure: no end after 5 s; not tried again\n")
    tell("job_error", jobid=4, aux={}, log=[log], rule_msg=None)
    assert lines == [
        "[1/5] tiny prompt4-new8 fake fp32 batch 1: 16.0 tok/s ± 0.0% (drift, gpu-shared), 4 left\n",
        "[2/5] tiny prompt4-new8 fake fp32 batch 2: oom during load, 3 left\n",
        "[3/5] tiny prompt4-new8 fake fp32 batch 4: oom during load, 2 left, about 0 s\n",
        "[4/5] tiny prompt4-new8 fake fp32 batch 8: oom during load, 1 left, about 0 s\n",
        "[5/5] tiny prompt4-new8 fake fp32 batch 16: failed (timeout), see logs/box/tiny/prompt4-new8/fake/fp32/batch-16.log\n",
        "    measure.py: timeout during measure: no end after 5 s; not tried again\n",
    ]
    refused = tmp_path / "collect.log"
    refused.write_text("".join(f"collect.py: record {n} is missing\n" for n in range(1, 8)) + "collect.py: measure\n")
    tell("job_error", jobid=9, rule_name="collect", log=["collect.log"])
    assert handler.ending("snakemake --cores 1") == (
        "Cells and studies: 1 measured, 3 out of memory, 1 failed.\n"
        f"Failed: tiny prompt4-new8 fake fp32 batch 16, see {log.relative_to(tmp_path)}:\n"
        "    timeout during measure: no end after 5 s\n"
        "Failed: collect, see collect.log:\n"
        "    record 1 is missing\n    record 2 is missing\n    record 3 is missing\n    record 4 is missing\n"
        "    ... 3 more\n    measure\n"
        "To go on, with what is missing: snakemake --cores 1\n"
    )


@pytest.mark.parametrize(("between_s", "left"), [(9, "36 s"), (4.5, "18 s")], ids=["in turn", "side by side"])
def test_the_time_left_is_what_a_dry_run_would_say(tmp_path, monkeypatch, between_s, left):
    """By earlier records and those of the run. An installation, before the first cell, is no cell's time."""
    monkeypatch.chdir(tmp_path)
    *cells, known = [make_cell(batch_size=size) for size in (1, 2, 4, 8, 16)]
    write_records(tmp_path, [make_record(known, ended_at="2026-01-01T00:01:29.000+00:00")])
    experiment, lines, now = make_experiment(1, 2, 4, 8, 16), [], [0.0]
    handler = handler_of(experiment, [cell.path for cell in cells], lines, clock=lambda: now[0])
    handler.emit(event("run_info"))
    now[0] += 600
    for jobid, cell in enumerate(cells[:3]):
        handler.emit(event("job_info", jobid=jobid, rule_name="measure", output=[cell.path]))
        now[0] += between_s
        write_records(tmp_path, [make_record(cell)])
        handler.emit(event("job_finished", job_id=jobid))
    assert lines[-1].endswith(f"1 left, about {left}\n")
    dry = handler_of(experiment, [], [], mode="plan")
    dry.emit(event("job_info", jobid=1, rule_name="", output=[cells[3].path]))
    assert dry.ending("").startswith("Estimated time: 36 s for 1 cells"), "9 s at 4, 89 s at 16"


def test_how_a_run_is_interrupted_is_told_and_what_was_measured_counts(tmp_path, monkeypatch):
    """After Ctrl-C, Snakemake tells of no job that ends well."""
    monkeypatch.chdir(tmp_path)
    cells = [make_cell(batch_size=n) for n in (1, 2, 4, 8)]
    lines = []
    handler = handler_of(make_experiment(1, 2, 4, 8), [cell.path for cell in cells], lines)
    handler.emit(event("run_info"))
    for jobid, cell in enumerate(cells[:3]):
        handler.emit(event("job_info", jobid=jobid, rule_name="measure", output=[cell.path]))
    logs = [log_path(cell.path) for cell in cells]
    logs[0].parent.mkdir(parents=True)
    logs[0].write_text("measure.py: ended by SIGINT; nothing is recorded\n")
    logs[1].touch()
    failed = event("error")
    failed.msg = (
        "RuleException:\nCalledProcessError in file \"x\", line 5:\nCommand 'x' returned non-zero exit status 137."
    )
    for jobid in (0, 1):
        handler.emit(failed)
        handler.emit(event("job_error", jobid=jobid, aux={}, log=[logs[jobid]], rule_msg=None))
    write_records(tmp_path, [make_record(cells[2], samples_s=[0.5] * 3)])
    said = handler.ending("snakemake")
    assert [line.partition(" left")[0] for line in filter(None, lines)] == [
        "[1/4] tiny prompt4-new8 fake fp32 batch 1: interrupted\n",
        f"[2/4] tiny prompt4-new8 fake fp32 batch 2: failed (killed by SIGKILL), see {logs[1]}, 2",
        "[3/4] tiny prompt4-new8 fake fp32 batch 4: 64.0 tok/s ± 0.0%, 1",
    ]
    assert said == (
        "Cells and studies: 1 measured, 1 interrupted, 1 failed, 1 not reached.\n"
        f"Failed: tiny prompt4-new8 fake fp32 batch 2, see {logs[1]}:\n    killed by SIGKILL\n"
        "To go on, with what is missing: snakemake\n"
    )


def test_what_has_been_running_for_long_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells, lines, now = [make_cell(batch_size=n) for n in (1, 2)], [], [0.0]
    handler = handler_of(make_experiment(1, 2), [cell.path for cell in cells], lines, clock=lambda: now[0])
    handler.emit(event("run_info"))
    handler.tell_running()
    handler.emit(event("job_info", jobid=0, rule_name="measure", output=[cells[0].path]))
    now[0] = 14.0
    handler.tell_running()
    assert lines == [], "not for long"
    now[0] = 75.0
    handler.tell_running()
    handler.emit(event("job_info", jobid=1, rule_name="measure", output=[cells[1].path]))
    handler.in_place = True
    handler.tell_running()
    handler.clear()
    handler.clear()
    line = "[0/2] tiny prompt4-new8 fake fp32 batch 1: running for 1 min 15 s"
    assert lines == [f"{line}\n", f"{line}, and 1 more", "\r\033[K"]


def test_snakemake_says_nothing_twice_and_no_more_than_it_knows():
    logger, printed, lines = logging.getLogger("made-up snakemake"), [], []
    stream = logging.Handler()
    stream.emit = lambda event: printed.append(event.getMessage())
    logger.addHandler(stream)
    logger.setLevel(logging.INFO)
    handler = handler_of(make_experiment(1), [], lines)
    progress.attach_progress(logger, handler, terse=True, is_local=lambda: True)
    for _ in range(2):
        logger.info("Job stats:\njob count", extra={"event": LogEvent.RUN_INFO})
        logger.info("Will exit after finishing currently running jobs (scheduler).")
    logger.info("Error: Directory cannot be locked. Another Snakemake instance is running.")
    logger.info("Some jobs were triggered by provenance information,\nsee ...")
    logger.error("another error")
    assert printed == [
        "Job stats:\njob count", "Will exit after finishing currently running jobs (scheduler).", "another error"
    ]  # fmt: skip
    assert lines == ["Another Snakemake runs in this folder, or was killed in it (snakemake --unlock).\n"]


def test_further_rounds_are_counted_when_the_first_of_them_begins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [make_cell(batch_size=1, round=number) for number in (1, 2, 3)]
    write_records(tmp_path, [make_record(cell, samples_s=[0.5] * 3) for cell in cells])
    lines, unfinished = [], [cells[0].path]
    handler = handler_of(make_experiment(1, most_rounds=3), unfinished, lines)
    handler.emit(event("run_info"))
    for jobid, cell in enumerate(cells):
        handler.emit(event("job_info", jobid=jobid, rule_name="measure", output=[cell.path]))
        handler.emit(event("job_finished", job_id=jobid))
        unfinished[:] = [each.path for each in cells[jobid + 1 :]]  # after the first a decision asks for two more
    counts = [line.split(" ")[0] + line.partition("tok/s ± 0.0%")[2] for line in lines]
    assert counts == ["[1/1]\n", "[2/3], 1 left\n", "[3/3]\n"]


def test_a_complete_run_ends_with_the_best_of_each_column_and_the_pages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = make_experiment(1, 2, precisions=tuple(f"p{n}" for n in range(6)))
    handler = handler_of(experiment, [], [])
    pages = [f"results/{name}" for name in ("box/report.html", "report.html")]
    for jobid, path in enumerate([*pages, "results/box/tables.md"]):
        rule = {pages[0]: "report", pages[1]: "report_of_all"}.get(path, "tables")
        handler.emit(event("job_info", jobid=jobid, rule_name=rule, output=[path]))
    assert handler.ending("snakemake") == "", "as long as no page is there"
    records = [
        make_record(cell, samples_s=[(0.1 + 0.4 * cell.batch_size) / (1 + int(cell.precision[1]))] * 3)
        for cell in experiment.cells()
    ]
    files.write(to_csv(cell_results(records)), tmp_path / "results/box/summary.csv")
    files.write_json(SURE, tmp_path / "results/box/provenance.json")
    for jobid in (1, 0, 2):
        handler.emit(event("job_finished", job_id=jobid))
    assert handler.ending("snakemake").splitlines() == [
        "The best of each column on box, by throughput:",
        *ranked(cell_results(records), 0.1),
        "Report: results/box/report.html; tables: results/box/tables.md",
        "Report of all machines: results/report.html",
    ]


def test_a_dry_run_says_what_further_rounds_may_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handler = handler_of(make_experiment(1, 2, most_rounds=4), [], [], mode="plan")
    for output in ("results/box/tiny/prompt4-new8/fake/fp32/batch-1.json", "results/box/summary.csv"):
        handler.emit(event("job_info", jobid=1, rule_name="", output=[output]))
    assert "Further" not in handler.ending("")
    handler.emit(event("job_info", jobid=2, rule_name="rounds", output=["results/box/rounds.json"]))
    said = handler.ending("").splitlines()
    assert said[0].startswith("Estimated time: 10 s for 1 cells and studies"), "no time to start but 10 s a cell"
    assert said[1] == "Further rounds: up to 3 of the cells that need them, up to 1 min 00 s."
    handler.would_run.clear()
    assert handler.ending("").splitlines() == said[1:], "after a change of the most rounds"
    handler.would_make.clear()
    assert handler.ending("") == ""


def test_a_dry_run_counts_the_environments_that_are_to_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFERENCE_BENCHMARK_CACHE", str(tmp_path))
    handler = handler_of(make_experiment(1, environments=({}, OLD)), [], [], mode="plan")
    for column in ("tiny", "old/tiny"):
        output = f"results/box/{column}/prompt4-new8/fake/fp32/batch-1.json"
        handler.emit(event("job_info", jobid=1, rule_name="", output=[output]))
    made = tmp_path / "environments/another/made.json"
    for seconds, total in ((None, "3 min 20 s"), (20, "40 s")):
        if seconds:
            files.write_json({"took_s": seconds}, made)
        said = f"Estimated time: {total} for 2 cells and studies, one after the other, and 1 environment to make. "
        assert handler.ending("").startswith(said)


def test_a_slow_cell_keeps_its_digits():
    text = cell_text(make_record(make_cell(batch_size=1), samples_s=[2000.0] * 3))
    assert text == "0.004 tok/s ± 0.0%"


def test_the_line_of_ceilings_has_no_emulation():
    text = study_text(epyc_ceilings())
    assert text == "10,000.0 GB/s; Tflop/s: float32 0.067, bfloat16 0.067, float16 0.067, int8 0.067"


SURE = {"machine": "box", "measurement": {"rounds": 3, "target_half_width_percent": 10}}


def test_the_next_steps_are_those_that_help():
    above = {"cells": 2, "of": 25, "rounds": 14, "seconds": 180.0}
    assert next_steps(SURE) == []
    assert next_steps(SURE | {"above_target": above | {"cells": 0}, "disturbed": {"rounds": 20, "of": 75}}) == []
    assert next_steps(SURE | {"above_target": above}) == [
        "2 of 25 cells have an interval above ±10.0%; measurement.rounds: {least: 3, most: 14} would narrow them, in "
        "about 3 min 00 s."
    ]
    some_have_more = SURE | {"measurement": SURE["measurement"] | {"rounds": "3 or more"}, "above_target": above}
    assert next_steps(SURE, [make_oom()]) == ["tiny prompt4-new8 fake fp32 batch 2, by threads: oom during load."]
    assert "{least: 3, most: 14}" in next_steps(some_have_more)[0]
    hopeless = above | {"rounds": None, "seconds": None}
    assert next_steps(SURE | {"above_target": hopeless}) == ["2 of 25 cells have an interval above ±10.0%."]
    assert next_steps(SURE | {"disturbed": {"rounds": 30, "of": 75}}) == [
        "Other processes disturbed 30 of 75 rounds; snakemake results/box/threads.json tries fewer threads."
    ]
