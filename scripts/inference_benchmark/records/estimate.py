"""How long a run will take, from how long the cells and studies with a record took."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from inference_benchmark.experiment.cells import Cell, Measurement
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.records.record import AnyRecord, Record, StudyRecord
from inference_benchmark.records.record_file import load_any, readable

#: Seconds for imports and weights where no record says more: 5 to 10 s for the imports, and the rest for the weights.
START_S = 10

#: The records of a column of the tables by batch size; of every column by its folder.
_Column = Mapping[int, Record]


@dataclass(frozen=True)
class Estimate:
    """seconds: of measuring one after the other. known: how many of the cells and studies rest on a record of their
    like; the others are taken for short calls."""

    seconds: float
    known: int
    unknown: int


def earlier_records(machines: Iterable[str]) -> Iterator[AnyRecord]:
    """Every record of these machines that can be read, also of cells that are no longer configured or are stale."""
    for machine in machines:
        yield from (record for _, record in readable(Path("results", machine).rglob("*.json"), load_any))


def estimate(planned: Sequence[Subject], earlier: Iterable[AnyRecord]) -> Estimate:
    """How long cells and studies will take that are planned, by earlier records."""
    columns: dict[str, dict[int, Record]] = {}
    studies: dict[str, list[StudyRecord]] = {}
    for record in earlier:
        if isinstance(record, StudyRecord):
            studies.setdefault(record.study.kind, []).append(record)
        else:
            columns.setdefault(_folder(record.cell), {})[record.cell.batch_size] = record
    expected = [
        _of_cell(each, columns) if isinstance(each, Cell) else _of_study(each, studies.get(each.kind, ()))
        for each in planned
    ]
    short = [_short_calls_s(each) for each, seconds in zip(planned, expected, strict=True) if seconds is None]
    known = [seconds for seconds in expected if seconds is not None]
    return Estimate(sum(known) + sum(short), len(known), len(short))


def _of_cell(cell: Cell, columns: Mapping[str, _Column]) -> float | None:
    """By the records of its column, else by those of that column in the current environment, else by those of the other
    columns of its table; None without any."""
    own = _folder(cell)
    for folder in (own, _folder(replace(cell, environment={}))):
        if folder in columns:
            return _of_column(cell, columns[folder])
    table = own.rsplit("/", 2)[0] + "/"
    others = [_of_column(cell, column) for folder, column in columns.items() if folder.startswith(table)]
    return statistics.median(others) if others else None


def _of_column(cell: Cell, column: _Column) -> float:
    """Between the two nearest batch sizes that were measured. What ends at once because of another cell is free."""
    for batch_size, record in column.items():
        if record.outcome == "unsupported" or (record.outcome == "oom" and batch_size < cell.batch_size):
            return 0.0
    measured = {size: record for size, record in sorted(column.items()) if record.outcome == "ok"} or column
    import numpy

    seconds = [_seconds(record, cell.measurement) for record in measured.values()]
    return float(numpy.interp(cell.batch_size, list(measured), seconds))


def _of_study(study: Subject, earlier: Sequence[StudyRecord]) -> float | None:
    same = [_took_s(record) for record in earlier if record.study.path == study.path]
    others = [_took_s(record) for record in earlier]
    return statistics.median(same or others) if others else None


def _seconds(record: Record, settings: Measurement) -> float:
    """How long the cell of a record takes under these settings. Where they are others, each timed part takes
    max_seconds, or longer for the fewest calls."""
    took_s = _took_s(record)
    if record.outcome != "ok" or record.cell.measurement == settings:
        return took_s
    parts = [part for run in record.runs for part in (run.samples_s, run.first_token_s) if part]
    timed_s = sum(max(settings.max_seconds, settings.min_cycles * statistics.fmean(part)) for part in parts)
    untimed_s = took_s - sum(sum(part) for part in parts)
    return untimed_s + timed_s


def _took_s(record: AnyRecord) -> float:
    return (datetime.fromisoformat(record.ended_at) - datetime.fromisoformat(record.started_at)).total_seconds()


def _short_calls_s(subject: Subject) -> float:
    if not isinstance(subject, Cell):
        return START_S
    return START_S + 2 * subject.measurement.max_seconds


def _folder(cell: Cell) -> str:
    return cell.path.rpartition("/")[0]
