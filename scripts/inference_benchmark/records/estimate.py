"""How long a run will take, estimated from the records of earlier cells and studies, else from published figures."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

from inference_benchmark.cli import ProblemsError
from inference_benchmark.engines import compiles
from inference_benchmark.experiment.cells import Cell, Measurement
from inference_benchmark.experiment.plan import Plan
from inference_benchmark.experiment.studies import CeilingsStudy, ColumnStudy, Subject
from inference_benchmark.models.architecture import bloom_parameters
from inference_benchmark.records.record import AnyRecord, Record, StudyRecord
from inference_benchmark.records.record_file import load_any, readable
from inference_benchmark.results.cell_result import CellResult
from inference_benchmark.results.summary_csv import read_table

#: Seconds for imports and weights if no record says more: 5 to 10 s for the imports, and the rest for the weights.
START_S = 10
#: Seconds for which an engine compiles in each process if no record says more: 20 on a fast CPU, 120 on two slow ones;
#: for CUDA 25 to 60 s for a model of a billion parameters.
COMPILE_S = 60


class RunTime(NamedTuple):
    """seconds: of measuring one after the other. known: for how many cells and studies there are records to estimate
    from; published: for how many other cells published figures; the unknown ones count as short calls, after the time
    that their engine takes to start."""

    seconds: float
    known: int
    unknown: int
    published: int = 0


class Known(NamedTuple):
    """What tells how long cells and studies take: records, to which those of a run may be added, and published
    figures."""

    records: list[AnyRecord]
    figures: Sequence[CellResult]

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """What is known when a run or a dry run begins."""
        return cls(list(earlier_records(plan.machines)), list(published_figures(plan.any_machine.baselines.values())))

    def estimate(self, planned: Sequence[Subject]) -> RunTime:
        return estimate(planned, self.records, self.figures)


def earlier_records(machines: Iterable[str]) -> Iterator[AnyRecord]:
    """Every record of these machines that can be read, also of cells that are no longer configured or are stale."""
    for machine in machines:
        yield from (record for _, record in readable(Path("results", machine).rglob("*.json"), load_any))


def published_figures(baselines: Iterable[str]) -> Iterator[CellResult]:
    """The measured cells of tables of figures; baselines: paths. What cannot be read is left out."""
    for path in filter(Path.is_file, map(Path, baselines)):
        with suppress(ProblemsError, OSError):
            yield from (cell for cell in read_table(path)[1] if cell.is_measured)


def estimate(planned: Sequence[Subject], earlier: Iterable[AnyRecord], published: Iterable[CellResult] = ()) -> RunTime:
    """The time that planned cells and studies will take, from earlier records, else from published figures."""
    columns: dict[str, dict[int, Record]] = defaultdict(dict)
    studies: dict[str, list[StudyRecord]] = defaultdict(list)
    for record in earlier:
        if isinstance(record, StudyRecord):
            studies[record.study.kind].append(record)
        else:
            columns[_folder(record.cell)][record.cell.batch_size] = record
    starts: dict[str, list[float]] = defaultdict(list)
    for record in (record for column in columns.values() for record in column.values() if record.outcome == "ok"):
        starts[record.cell.base_engine].append(record.took_s - sum(map(sum, _timed_parts(record))))
    known, by_figures, short, figures = [], [], [], list(published)
    for subject in planned:
        is_cell = isinstance(subject, Cell)
        seconds = _of_cell(subject, columns) if is_cell else _of_study(subject, studies[subject.kind])
        if seconds is not None:
            known.append(seconds)
        elif is_cell and (seconds := _of_figures(subject, figures)) is not None:
            by_figures.append(seconds)
        else:
            short.append(_start_s(subject.setup, starts) + (2 * subject.measurement.max_seconds if is_cell else 0))
    return RunTime(sum(known) + sum(by_figures) + sum(short), len(known), len(short), len(by_figures))


def _of_cell(cell: Cell, columns: Mapping[str, Mapping[int, Record]]) -> float | None:
    """From the records of its column, else of that column in the current environment, else of the other columns of its
    engine in its table, else of the other engines; None without any. columns: records by batch size, by the folder of
    the column."""
    own = _folder(cell)
    for folder in (own, _folder(replace(cell, environment={}))):
        if folder in columns:
            return _of_column(cell, columns[folder])
    engine = own.rpartition("/")[0]
    for folder, compile_s in ((engine, 0), (engine.rpartition("/")[0], _compile_s(cell))):
        others = [column for name, column in columns.items() if name.startswith(f"{folder}/") and _is_measured(column)]
        if others:
            return statistics.median(_of_column(cell, column) for column in others) + compile_s
    return None


def _of_column(cell: Cell, column: Mapping[int, Record]) -> float:
    """Interpolated between the nearest batch sizes measured; 0 if an earlier record shows how the cell ends."""
    for batch_size, record in column.items():
        if record.outcome == "unsupported" or (record.outcome == "oom" and batch_size < cell.batch_size):
            return 0.0
    measured = {size: record for size, record in sorted(column.items()) if record.outcome == "ok"} or column
    import numpy

    seconds = [_seconds(record, cell.measurement) for record in measured.values()]
    return float(numpy.interp(cell.batch_size, list(measured), seconds))


def _of_figures(cell: Cell, figures: Sequence[CellResult]) -> float | None:
    """With calls as long as those of the same model on another GPU; None without figures of it. A precision without
    figures counts as the slowest that has some, and a batch size as the nearest."""
    speeds: dict[str, dict[int, float]] = defaultdict(dict)
    parameters = bloom_parameters(cell.model.get("architecture", {}))
    for each in figures if parameters and cell.device == "cuda" else ():
        if (each.value("parameters"), each.column.new_tokens) == (parameters, cell.workload.new_tokens):
            speeds[each.column.precision][each.batch_size] = each.value("throughput_tok_per_s")
    if not speeds:
        return None
    import numpy

    alike = [speeds[cell.precision]] if cell.precision in speeds else speeds.values()
    slowest = min(numpy.interp(cell.batch_size, *zip(*sorted(each.items()), strict=True)) for each in alike)
    call_s, settings = float(cell.batch_size * cell.workload.new_tokens / slowest), cell.measurement
    compile_s = _compile_s(cell)
    warmup_s = 2 * call_s + compile_s if compile_s else 3 * call_s
    return START_S + warmup_s + _timed_s(call_s, settings) + settings.max_seconds


def _of_study(study: Subject, earlier: Sequence[StudyRecord]) -> float | None:
    same = [record for record in earlier if record.study.path == study.path] or earlier
    return statistics.median(record.took_s for record in same) if same else None


def _seconds(record: Record, settings: Measurement) -> float:
    """The time of a record's cell under these settings, which may be others than its own."""
    took_s = record.took_s
    if record.outcome != "ok" or record.cell.measurement == settings:
        return took_s
    parts = _timed_parts(record)
    return took_s - sum(map(sum, parts)) + sum(_timed_s(statistics.fmean(part), settings) for part in parts)


def _timed_s(call_s: float, settings: Measurement) -> float:
    """The time of one part's calls: max_seconds, or longer for the fewest calls."""
    return max(settings.max_seconds, settings.fewest_calls(call_s) * call_s)


def _timed_parts(record: Record) -> list[Sequence[float]]:
    return [part for run in record.runs for part in (run.samples_s, run.first_token_s) if part]


def _start_s(setup: Cell | ColumnStudy | CeilingsStudy, starts: Mapping[str, Sequence[float]]) -> float:
    """Until the first timed call. starts: what that took before, by engine."""
    if isinstance(setup, CeilingsStudy):
        return START_S
    earlier = starts.get(setup.base_engine)
    return statistics.median(earlier) if earlier else START_S + _compile_s(setup)


def _compile_s(setup: Cell | ColumnStudy) -> float:
    return COMPILE_S if compiles(setup.base_engine, setup.options) else 0


def _is_measured(column: Mapping[int, Record]) -> bool:
    return any(record.outcome != "unsupported" for record in column.values())


def _folder(cell: Cell) -> str:
    return cell.path.rpartition("/")[0]
