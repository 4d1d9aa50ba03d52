"""From a cell to its record: measured by workers, or oom because of an earlier search."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis.max_batch import batch_limit, failing_try
from inference_benchmark.analysis.stability import stability
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.cells import Cell, Watch
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.machine import conditions, provenance
from inference_benchmark.measure.outcome import MeasurementError
from inference_benchmark.measure.session import check_engine, hold_device
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.models import checkpoint
from inference_benchmark.records import record
from inference_benchmark.records.record import AnyRecord, Note, Reason, Record, RecordError, Run, Stability


def measure_cell(cell: Cell, watch: Watch) -> Record:
    """Measure a cell in worker processes, one after the other.

    Raises MeasurementError, checkpoint.CheckpointError and OSError where there is nothing to record.
    """
    check_engine(cell.engine, cell.precision)
    weights = checkpoint.ensure(cell.model) if engines.ENGINES[cell.engine].needs_weights else None
    order = {"cell": cell.to_json(), "checkpoint": str(weights) if weights else None}
    with hold_device(cell, watch) as session:
        reports: list[WorkerReport] = []
        while len(reports) < cell.measurement.processes:
            reports.append(session.run_worker("cell", order, cell.measurement.threads))
            try:
                outcome, reason = session.classify(reports[-1])
            except MeasurementError:
                if earlier := [asdict(report.run()) for report in reports[:-1]]:
                    print(f"samples of the processes before it: {json.dumps(earlier)}", file=sys.stderr)
                raise
            if outcome != "ok":
                break
        where_and_when = session.where_and_when()
    runs = tuple(report.run() for report in reports)
    return Record(
        cell=cell,
        outcome=outcome,
        reason=reason,
        runs=runs,
        stability=_stability(cell, runs) if outcome == "ok" else None,
        flags=flags(reports, cell, session.busy),
        model={**reports[-1].model, **(checkpoint.facts(weights) if weights else {"weights": None})},
        **where_and_when,
    )


def oom_from_search(cell: Cell) -> Record | None:
    """The record of a cell that does not fit, according to the search for the largest batch.

    None where there is no such search, where it was done under other settings, and where the cell fits.
    """
    study = ColumnStudy.of("max-batch", cell)
    try:
        search = record.load_for(study, Path(study.path), but_for=("tolerance_percent",))
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

    A smaller batch that ran out of memory or that a library could not generate shows it, and any batch that is not
    supported before anything is generated; under the same settings and with the same software.
    """
    for path in baselines.records_below(Path(cell.path).parent):
        batch_size = int(path.stem.removeprefix("batch-"))
        try:
            other = record.load_for(replace(cell, batch_size=batch_size), path)
        except (RecordError, OSError):
            continue
        of_any_batch = other.outcome == "unsupported" and other.reason.phase in ("start", "load")
        shows = of_any_batch or (other.outcome != "ok" and batch_size < cell.batch_size)
        if not shows or batch_size == cell.batch_size or not other.runs or other.software != provenance.software():
            continue
        ran_out = f"not measured: batch {batch_size} ran out of memory during {other.reason.phase}: "
        reason = Reason(
            phase=record.OTHER_CELL,
            exception_type=other.reason.exception_type,
            message=(ran_out if other.outcome == "oom" else "") + other.reason.message,
            limit=other.reason.limit,
            evidence={"record": str(path), "batch_size": batch_size, "ended_at": other.ended_at},
        )
        return _not_measured(cell, other.outcome, reason, other)
    return None


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
        environment=shown_by.environment,
        git=shown_by.git,
        started_at=shown_by.started_at,
        ended_at=shown_by.ended_at,
    )


def _stability(cell: Cell, runs: tuple[Run, ...]) -> Stability:
    verdict = stability(
        [run.warmup_s for run in runs],
        [run.samples_s for run in runs],
        warmup_tolerance=cell.measurement.warmup_tolerance,
        target_half_width=cell.measurement.target_half_width,
        max_warmup_calls=cell.measurement.max_warmup_calls,
    )
    reasons = tuple(Note(name, message) for name, message in verdict.reasons.items())
    return Stability(stable=not reasons, reasons=reasons, outliers=verdict.outliers, drift=verdict.drift)


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


def flags(reports: list[WorkerReport], cell: Cell, busy: str | None) -> tuple[Note, ...]:
    """What a reader must know before relying on a cell, each kind once."""
    notes = [Note("gpu-busy-at-start", f"when the cell started, {busy}")] if busy else []
    digests = dict.fromkeys(digest for report in reports for digest in report.tokens_sha256)
    if len(digests) > 1:
        listed = ", ".join(digest[:12] for digest in digests)
        notes.append(
            Note("nondeterministic", f"{len(digests)} different answers to the same prompts, with digests {listed}")
        )
    for report in reports:
        notes += (Note(**flag) for flag in conditions.flags(report.conditions, cell.device))
        if rows := report.model.get("non_finite_rows"):
            message = (
                f"in {rows} of {cell.batch_size} rows the largest logit was NaN or infinite: the answers are not valid"
            )
            notes.append(Note("non-finite-logits", message))
        notes += _compilation_flags(report.model, cell)
        if report.energy_error:
            notes.append(Note("energy-unknown", report.energy_error))
    first: dict[str, Note] = {}
    for note in notes:
        first.setdefault(note.name, note)
    return tuple(first.values())
