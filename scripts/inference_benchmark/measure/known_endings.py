"""Records of cells whose ending earlier records show, so that they need not be measured."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from inference_benchmark.analysis.max_batch import batch_limit, failing_try
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.measure.environments import python_of
from inference_benchmark.records import record_file
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.parts import Reason
from inference_benchmark.records.record import OTHER_CELL, AnyRecord, Record


def known_ending(cell: Cell) -> Record | None:
    """The record of a cell whose ending earlier records show; None if it has to be measured. Raises as they do."""
    return oom_from_search(cell) or ending_of_other_cell(cell)


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
    """The record of a cell whose ending the record of another cell shows; None if none does.

    In round 1 that is a smaller batch that ran out of memory or that a library could not generate, or any batch that is
    not supported before anything is generated. From round 2 on it is the first round of the cell. All under the same
    settings and with the same software. Raises MeasurementError if the software cannot be found out.
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


def _not_measured(cell: Cell, outcome: str, reason: Reason, earlier: AnyRecord) -> Record:
    where_and_when = ("model", "software", "device", "host", "variables", "git", "started_at", "ended_at")
    same = {name: getattr(earlier, name) for name in where_and_when}
    return Record(cell=cell, outcome=outcome, reason=reason, runs=(), stability=None, flags=(), **same)
