"""From a cell to its record: measured by a worker, or ended as an earlier record shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis.max_batch import batch_limit, failing_try
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import conditions
from inference_benchmark.measure.environments import python_of
from inference_benchmark.measure.session import check_engine, hold_device
from inference_benchmark.measure.warm_start import Warm
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.models import checkpoint
from inference_benchmark.records import record_file
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.parts import Note, Reason
from inference_benchmark.records.record import OTHER_CELL, AnyRecord, Record
from inference_benchmark.records.rounds import assess, different_answers, each_once


def measure_cell(cell: Cell, watch: Supervision) -> Record:
    """Measure a cell, in one round, in a worker process.

    Raises MeasurementError, checkpoint.CheckpointError and OSError where there is nothing to record.
    """
    check_engine(cell)
    weights = checkpoint.ensure(cell.model) if engines.ENGINES[cell.base_engine].needs_weights else None
    order = {"cell": cell.to_json(), "checkpoint": str(weights) if weights else None}
    with hold_device(cell, watch) as session:
        warm = Warm(cell.base_engine, str(weights), cell.round) if weights else None
        report = session.run_worker("cell", order, cell.threads, warm=warm)
        outcome, reason = session.classify(report)
        where_and_when = session.where_and_when()
    run = report.run()
    return Record(
        cell=cell,
        outcome=outcome,
        reason=reason,
        runs=(run,),
        stability=assess(cell, [run]) if outcome == "ok" else None,
        flags=flags(report, cell, session.busy),
        model={**report.model, **(checkpoint.facts(weights) if weights else {"weights": None})},
        **where_and_when,
    )


def oom_from_search(cell: Cell) -> Record | None:
    """The record of a cell that does not fit, according to the search for the largest batch.

    None where there is no such search, where it was done under other settings, and where the cell fits.
    """
    study = ColumnStudy.of("max-batch", cell)
    try:
        search = record_file.load_for(study, Path(study.path), but_for=("tolerance_percent",))
    except FileNotFoundError:
        return None
    except (RecordError, OSError) as error:
        print(f"{study.path}: not used: {error}", file=sys.stderr)
        return None
    failed = failing_try(search.results, cell.batch_size) if search.outcome == "ok" else None
    if not failed:
        return None
    fits, fails = batch_limit(search.results)
    reason = Reason(
        phase="max-batch",
        exception_type=failed["exception_type"],
        message=f"not measured: {fits} fit and {fails} do not; there: {failed['message']}",
        limit=search.limit,
        evidence={"search": study.path, "searched_at": search.ended_at, "try": failed},
    )
    return _not_measured(cell, "oom", reason, search)


def ending_of_other_cell(cell: Cell) -> Record | None:
    """The record of a cell whose ending another one has shown; None where no record does.

    In round 1 a smaller batch that ran out of memory or that a library could not generate shows it, and any batch that
    is not supported before anything is generated. From round 2 on the first round of the cell shows it. All under the
    same settings and with the same software. Raises MeasurementError where that cannot be asked.
    """
    first = Path(cell.first_round.path)
    paths = [first] if cell.round > 1 else baselines.records_below(first.parent)
    for path, other in record_file.readable(paths, record_file.load):
        if not _shows_the_ending_of(cell, other) or other.software != python_of(cell.environment).software:
            continue
        batch_size = other.cell.batch_size
        ran_out = f"not measured: batch {batch_size} ran out of memory during {other.reason.phase}: "
        reason = Reason(
            phase=OTHER_CELL,
            exception_type=other.reason.exception_type,
            message=(ran_out if other.outcome == "oom" and other.runs else "") + other.reason.message,
            limit=other.reason.limit,
            evidence={"record": str(path), "batch_size": batch_size, "ended_at": other.ended_at},
        )
        return _not_measured(cell, other.outcome, reason, other)
    return None


def _shows_the_ending_of(cell: Cell, other: Record) -> bool:
    if other.outcome == "ok" or other.cell != replace(cell, batch_size=other.cell.batch_size, round=1):
        return False
    if cell.round > 1:
        return True
    was_tried = bool(other.runs) and other.cell != cell
    of_any_batch = other.outcome == "unsupported" and other.reason.phase in ("start", "load")
    return was_tried and (of_any_batch or other.cell.batch_size < cell.batch_size)


def _not_measured(cell: Cell, outcome: str, reason: Reason, shown_by: AnyRecord) -> Record:
    """The record of a cell that an earlier record says all about."""
    return Record(
        cell=cell,
        outcome=outcome,
        reason=reason,
        runs=(),
        stability=None,
        flags=(),
        model=shown_by.model,
        software=shown_by.software,
        device=shown_by.device,
        host=shown_by.host,
        variables=shown_by.variables,
        git=shown_by.git,
        started_at=shown_by.started_at,
        ended_at=shown_by.ended_at,
    )


def _compilation_flags(model: Mapping[str, Any], cell: Cell) -> Iterator[Note]:
    while_timed = {
        "graphs compiled": model.get("graphs_while_timed"),
        "CUDA graphs recorded": model.get("cuda_graphs_recorded_while_timed"),
        "CUDA graphs given up": model.get("cuda_graphs_skipped_while_timed"),
    }
    if any(while_timed.values()):
        counts = ", ".join(f"{count} {what}" for what, count in while_timed.items() if count)
        yield Note("compiled-while-timed", f"in timed calls: {counts}")
    compilation = model.get("compilation", {})
    if reason := compilation.get("why_not"):
        yield Note("not-compiled", f"{cell.engine} ran eagerly: {reason}")
    recorded, skipped = (compilation.get(f"cuda_graphs_{name}") for name in ("recorded", "skipped"))
    # A call of one token is prefill only, which is not compiled.
    if recorded is not None and cell.workload.new_tokens > 1 and (skipped or not recorded):
        message = f"{recorded} CUDA graphs recorded, {skipped} given up: the launches of kernels are in the figures"
        yield Note("without-cuda-graphs", message)


def flags(report: WorkerReport, cell: Cell, busy: str | None) -> tuple[Note, ...]:
    """What a reader must know before relying on a cell, each kind once."""
    notes = [Note("gpu-busy-at-start", f"when the cell started, {busy}")] if busy else []
    notes += different_answers(report.tokens_sha256)
    notes += (Note(**flag) for flag in conditions.flags(report.conditions, cell.device))
    if rows := report.model.get("non_finite_rows"):
        message = (
            f"in {rows} of {cell.batch_size} rows the largest logit was NaN or infinite: the answers are not valid"
        )
        notes.append(Note("non-finite-logits", message))
    notes += _compilation_flags(report.model, cell)
    if report.energy_error:
        notes.append(Note("energy-unknown", report.energy_error))
    return each_once(notes)
