"""One study from its device to its record: ceilings, the largest batch that fits, how answers differ, or a timeline."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis.max_batch import batch_limit, next_batch_size
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.studies import CeilingsStudy, ColumnStudy, Study, TimelineStudy
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import conditions
from inference_benchmark.measure.outcome import MeasurementError, memory_limit
from inference_benchmark.measure.session import Session, check_engine, hold_device
from inference_benchmark.measure.warm_start import Warm
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.models import checkpoint
from inference_benchmark.records import record_file, tries
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.comparability import disagreeing
from inference_benchmark.records.parts import Note, Reason
from inference_benchmark.records.record import Record, StudyRecord
from inference_benchmark.records.tries import Tries


def run_study(study: Study, watch: Supervision, output: Path) -> StudyRecord:
    """Do a study in worker processes.

    output: the place of its record, beside which the tries of a search are kept, and the trace of a timeline.
    Raises MeasurementError, checkpoint.CheckpointError and OSError where there is nothing to record.
    """
    setup = study.setup
    if isinstance(study, CeilingsStudy):
        order: dict[str, Any] = {"device": study.device, "threads": study.threads}
    else:
        check_engine(setup)
        weights = checkpoint.ensure(setup.model) if engines.ENGINES[setup.base_engine].needs_weights else None
        order = {"study": study.to_json(), "checkpoint": str(weights) if weights else None}
    with hold_device(setup, watch) as session:
        if study.kind == "max-batch":
            return _search(study, order, session, output)
        if isinstance(study, TimelineStudy):
            order["trace"] = str(trace_path(output).absolute()) if study.trace else None
        is_early = study.kind in ("divergence", "timeline")  # right after cells, whose server still runs
        warm = Warm(setup.base_engine, str(weights), 1) if is_early and weights else None
        report = session.run_worker(study.kind, order, setup.threads, warm=warm)
        outcome, reason = session.classify(report)
        return _record(study, session, report, outcome, reason, report.results)


def trace_path(output: Path) -> Path:
    """Where the Chrome trace of a timeline with this record is."""
    return output.with_suffix(".trace.json.gz")


def _search(study: ColumnStudy, order: Mapping[str, Any], session: Session, output: Path) -> StudyRecord:
    """The record of a search. It goes on from the tries of an interrupted one; an interrupted try is done again."""
    session.look_around("max_batch", study.threads)
    limit = memory_limit(study, session.origin)
    so_far = Tries(study, tries.circumstances(session.origin, limit), session.started_at)
    try:
        so_far = tries.earlier(output, so_far)
    except RecordError as error:
        print(f"{tries.path(output)}: not used: {error}", file=sys.stderr)

    def keep(result: Mapping[str, Any]) -> None:
        nonlocal so_far
        so_far = replace(so_far, results=(*so_far.results, result))
        try:
            so_far.write(output)
        except OSError as error:  # the search itself needs no file
            print(f"{tries.path(output)}: {error.strerror or error}; the tries are not kept", file=sys.stderr)

    session.started_at = so_far.started_at
    if so_far.results:
        print(f"{tries.path(output)}: going on from {len(so_far.results)} tries", file=sys.stderr)
    else:
        so_far = replace(so_far, results=shown_by_cells(study, output.parent, so_far.circumstances))
    while True:
        report = session.run_worker("max_batch", {**order, "tries": so_far.results}, study.threads, keep)
        try:
            outcome, reason = session.classify(report)
        except MeasurementError:
            print(f"{tries.path(output)}: the next attempt goes on from {len(so_far.results)} tries", file=sys.stderr)
            raise
        if outcome == "oom":
            if report.trying is None and (fits := batch_limit(so_far.results).fits):
                raise MeasurementError(
                    f"out of memory during {reason.phase}, where {fits} rows fitted before: {reason.message}; "
                    "does anything else use the memory?"
                )
            # Memory ran out where no exception could be caught: while loading, or through a kill by the kernel.
            keep(_lost_try(report, reason))
            if next_batch_size(so_far.results, study.tolerance) is not None:
                continue
            outcome, reason = "ok", None
        return _record(study, session, report, outcome, reason, so_far.results, limit)


def shown_by_cells(study: ColumnStudy, folder: Path, now: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """What the cells of a column have shown about its largest batch, as tries: the largest that fits and the smallest
    that does not, as far as there are such.

    folder: with the records. now: the circumstances of the search. Cells that were measured under other settings or in
    other circumstances say nothing.
    """
    shown = []
    for path, found in record_file.readable(baselines.records_below(folder), record_file.load):
        origin = {name: getattr(found, name) for name in ("software", "device", "host", "variables", "git")}
        then = tries.circumstances(origin, memory_limit(found.cell, origin))
        is_of_column = ColumnStudy.of("max-batch", found.cell, study.tolerance_percent) == study
        if is_of_column and found.runs and found.outcome != "unsupported" and not disagreeing(then, now):
            shown.append(_try_of_cell(found, path))
    fits, fails = batch_limit(shown)
    edge = [each for each in shown if each["batch_size"] in (fits, fails)]
    for each in edge:
        what = "fits" if each["fits"] else "does not fit"
        print(f"batch size {each['batch_size']} {what}: {each['evidence']['record']}", file=sys.stderr)
    return tuple(edge)


def _try_of_cell(found: Record, path: Path) -> dict[str, Any]:
    reason = found.reason
    return {
        "batch_size": found.cell.batch_size,
        "fits": reason is None,
        "exception_type": reason and reason.exception_type,
        "message": reason and f"during {reason.phase}: {reason.message}",
        "memory": found.runs[-1].memory,
        "evidence": {**(reason.evidence if reason else {}), "record": str(path), "ended_at": found.ended_at},
    }


def _record(
    study: Study,
    session: Session,
    report: WorkerReport,
    outcome: str,
    reason: Reason | None,
    results: Iterable[Mapping[str, Any]],
    limit: Mapping[str, Any] | None = None,
) -> StudyRecord:
    return StudyRecord(
        study=study,
        outcome=outcome,
        reason=reason,
        results=tuple(results),
        limit=limit,
        conditions=report.conditions,
        flags=tuple(Note(**flag) for flag in conditions.flags(report.conditions, study.setup.device)),
        model=report.model,
        **session.where_and_when(),
    )


def _lost_try(report: WorkerReport, reason: Reason) -> dict[str, Any]:
    return {
        "batch_size": report.trying or 1,
        "fits": False,
        "exception_type": reason.exception_type,
        "message": f"during {reason.phase}: {reason.message}",
        "memory": report.memory,
        **({"evidence": reason.evidence} if reason.evidence else {}),
    }
