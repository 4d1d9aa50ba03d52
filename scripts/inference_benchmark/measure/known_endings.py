"""Records of cells and studies whose ending earlier records show, so that they need not be measured."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_benchmark.analysis.max_batch import batch_limit, failing_try
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import CeilingsStudy, ColumnStudy, Subject, TimelineStudy
from inference_benchmark.measure.environments import python_of
from inference_benchmark.records import record_file
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.parts import Reason
from inference_benchmark.records.record import OTHER_CELL, AnyRecord, Record, StudyRecord


def known_ending(subject: Subject) -> AnyRecord | None:
    """The record of a cell or study whose ending earlier records show; None if it has to be measured. Raises as they
    do."""
    if isinstance(subject, Cell):
        return oom_from_search(subject) or ending_of_other_cell(subject)
    return None if isinstance(subject, CeilingsStudy) else ending_of_study(subject)


def oom_from_search(cell: Cell) -> Record | None:
    """The record of a cell that does not fit, according to the search for the largest batch under the same settings;
    None if it fits, or nothing was searched."""
    study = ColumnStudy.of("max-batch", cell)
    try:
        search = record_file.load_for(study, Path(study.path), but_for=("tolerance_percent",))
    except FileNotFoundError:
        return None
    except (RecordError, OSError) as error:
        print(f"{study.path}: not used: {error}", file=sys.stderr)
        return None
    failed = failing_try(search.results, cell.batch_size) if search.outcome == "ok" else None
    if not failed or failed["exception_type"].endswith(UnsupportedError.__name__):  # which the cell will tell by itself
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
    """The record of a cell whose ending the record of another cell shows; None if none does.

    In round 1 that is a smaller batch that ran out of memory or that a library could not generate, or any batch that is
    not supported before anything is generated. From round 2 on it is the first round of the cell. All under the same
    settings and with the same software. Raises MeasurementError if the software cannot be found out.
    """
    first = Path(cell.first_round.path)
    paths = [first] if cell.round > 1 else baselines.records_below(first.parent)
    for path, other in record_file.readable(paths, record_file.load):
        if _shows_the_ending_of(cell, other) and other.software == python_of(cell.environment).software:
            return _not_measured(cell, other.outcome, _shown_by(path, other), other)
    return None


def ending_of_study(study: ColumnStudy | TimelineStudy) -> StudyRecord | None:
    """The record of a study of what is not supported before anything is generated, as a cell that it is about shows
    under the same settings and with the same software; None if none does. Raises as ending_of_other_cell."""
    for path, other in record_file.readable(baselines.records_below(Path(study.path).parent), record_file.load):
        if not (other.runs and _is_of_any_batch(other) and _is_about(study, other.cell)):
            continue
        if other.software == python_of(study.setup.environment).software:
            nothing = {"results": (), "limit": None, "conditions": {}, "flags": (), "model": {}}
            reason, origin = _shown_by(path, other), _where_and_when(other)
            return StudyRecord(study=study, outcome=other.outcome, reason=reason, **nothing, **origin)
    return None


def _is_about(study: ColumnStudy | TimelineStudy, cell: Cell) -> bool:
    if isinstance(study, TimelineStudy):
        return study.cell == replace(cell, batch_size=study.cell.batch_size, round=1)
    return study == ColumnStudy.of(study.kind, cell, study.tolerance_percent)


def _shows_the_ending_of(cell: Cell, other: Record) -> bool:
    if other.outcome == "ok" or other.cell != replace(cell, batch_size=other.cell.batch_size, round=1):
        return False
    if cell.round > 1:
        return True
    was_tried = bool(other.runs) and other.cell != cell
    return was_tried and (_is_of_any_batch(other) or other.cell.batch_size < cell.batch_size)


def _is_of_any_batch(record: Record) -> bool:
    return record.outcome == "unsupported" and record.reason.phase in ("start", "load")


def _shown_by(path: Path, other: Record) -> Reason:
    batch_size = other.cell.batch_size
    ran_out = f"not measured: batch {batch_size} ran out of memory during {other.reason.phase}: "
    return Reason(
        phase=OTHER_CELL,
        exception_type=other.reason.exception_type,
        message=(ran_out if other.outcome == "oom" and other.runs else "") + other.reason.message,
        limit=other.reason.limit,
        evidence={"record": str(path), "batch_size": batch_size, "ended_at": other.ended_at},
    )


def _not_measured(cell: Cell, outcome: str, reason: Reason, earlier: AnyRecord) -> Record:
    same = {"model": earlier.model, **_where_and_when(earlier)}
    return Record(cell=cell, outcome=outcome, reason=reason, runs=(), stability=None, flags=(), **same)


def _where_and_when(earlier: AnyRecord) -> dict[str, Any]:
    names = ("software", "device", "host", "variables", "git", "started_at", "ended_at")
    return {name: getattr(earlier, name) for name in names}
