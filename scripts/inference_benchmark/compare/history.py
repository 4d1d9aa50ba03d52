"""Result sets over time: the history of each cell, and the steps in it with what changed there."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from inference_benchmark.analysis import descriptive, scatter, statistics
from inference_benchmark.analysis.change_points import change_points
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.cli import ProblemsError
from inference_benchmark.compare import result_set
from inference_benchmark.compare.comparing import differences
from inference_benchmark.compare.comparison import Difference
from inference_benchmark.compare.result_set import ResultSet
from inference_benchmark.results.cell_result import KEYS, CellResult

#: What tells the cells of one machine apart. The parameters follow from the model.
_KEYS = tuple(key for key in KEYS if key != "parameters")
_THROUGHPUT = "throughput_tok_per_s"

#: Degrees of freedom with which an interval is that of a normal distribution.
_MANY = 1000
#: Repeated figures without any spread still have a rounding error.
_LEAST_ERROR = 1e-9


class Entry(NamedTuple):
    """A result set that was kept. name: where. date: when its first cell was measured. number: from 1 by date."""

    name: str
    date: datetime
    results: ResultSet
    number: int = 0


class Point(NamedTuple):
    """A cell with a throughput, and the entry that measured it."""

    entry: Entry
    cell: CellResult

    @property
    def throughput(self) -> Estimate:
        return self.cell.figures[_THROUGHPUT]


@dataclass(frozen=True)
class CellHistory:
    """A cell of a machine over time. points: at least one, in the order of their dates."""

    machine: str
    points: Sequence[Point]

    @property
    def cell(self) -> CellResult:
        """The cell as it was first measured."""
        return self.points[0].cell


class Step(NamedTuple):
    """A change of the level of a cell, between two neighbouring entries. ratio: the throughput of all points up to the
    next step over that of those since the step before, with its 95 % interval if it is tested: both sides have several
    processes. changed: the facts that differ between the two entries."""

    history: CellHistory
    before: Entry
    after: Entry
    ratio: Estimate
    is_tested: bool
    changed: Sequence[Difference]


def load(paths: Iterable[tuple[str, Path]]) -> list[Entry]:
    """The result sets at these paths, each with a name, in the order of their dates. Raises ProblemsError naming
    everything that cannot be used."""
    entries, problems = [], []
    for name, path in paths:
        try:
            results = result_set.load(path)
            entries.append(Entry(name, _date(results, path), results))
        except ProblemsError as error:
            problems += error.problems
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    if problems:
        raise ProblemsError(*problems)
    by_date = sorted(entries, key=lambda entry: entry.date)
    return [entry._replace(number=number) for number, entry in enumerate(by_date, start=1)]


def _date(results: ResultSet, path: Path) -> datetime:
    try:
        return datetime.fromisoformat(results.measured_from).astimezone(UTC)
    except (ValueError, TypeError):
        problem = "its date is unknown; keep the provenance.json of its run beside a summary.csv"
        raise ProblemsError(f"{path}: {problem}") from None


def histories_of(entries: Sequence[Entry]) -> list[CellHistory]:
    """Every cell that has a throughput somewhere, as the entries have it in their order. A cell that an entry has kept
    from the one before is one measurement. One that is faster than its machine can be is left out."""
    points: dict[tuple[Any, ...], list[Point]] = {}
    for entry in entries:
        for cell in entry.results.cells:
            if _THROUGHPUT in cell.figures and not cell.is_above_limit:
                known = points.setdefault((entry.results.name, *cell.key_in(_KEYS)), [])
                if not known or known[-1].cell != cell:
                    known.append(Point(entry, cell))
    return [CellHistory(machine, found) for (machine, *_), found in points.items()]


def steps_in(histories: Sequence[CellHistory]) -> list[Step]:
    """The changes of level of all cells by date, without those that the samples do not confirm: where both sides have
    several processes, Welch's test has to find a difference; all of these are right with 95 % certainty (Holm)."""
    places = sum(len(history.points) - 1 for history in histories)
    found = [step for history in histories for step in _candidates(history, places)]
    confirmed = iter(statistics.significant([test for _, test in found if test]))
    steps = [step for step, test in found if test is None or next(confirmed)]
    return sorted(steps, key=lambda step: step.after.number)


def _candidates(history: CellHistory, places: int) -> Iterator[tuple[Step, statistics.RatioTest | None]]:
    points = history.points
    error, freedom = _error(points)
    logs = [math.log(point.throughput.value) for point in points]
    changes = change_points(logs, error, freedom, places) if error else []
    levels = [points[start:end] for start, end in pairwise([0, *changes, len(points)])]
    for old, new in pairwise(levels):
        sides = [[samples for point in level for samples in point.cell.whole_s] for level in (old, new)]
        test = statistics.ratio_test(*sides) if min(map(len, sides)) > 1 else None
        ratio = test.speedup if test else Estimate(_level(new) / _level(old))
        before, after = old[-1].entry, new[0].entry
        yield Step(history, before, after, ratio, bool(test), differences(before.results, after.results)), test


def _error(points: Sequence[Point]) -> tuple[float, float]:
    """(standard error of the logarithm of a throughput, its degrees of freedom); 0 where no interval is known.

    It is the root mean square of the errors behind all intervals. How many processes are behind that of a figure
    without samples is not known: taken for many, its error is too large rather than too small.
    """
    squares, freedom = [], 0
    known = [(point.cell.whole_s, point.throughput) for point in points if point.throughput.low is not None]
    for samples, throughput in known:
        of_this = len(samples if len(samples) > 1 else samples[0]) - 1 if samples else _MANY
        squares.append((math.log(throughput.high / throughput.low) / 2 / scatter.t_quantile(of_this)) ** 2)
        freedom += of_this
    return (max(math.sqrt(descriptive.mean(squares)), _LEAST_ERROR), freedom) if squares else (0, 0)


def _level(points: Sequence[Point]) -> float:
    return math.exp(descriptive.mean([math.log(point.throughput.value) for point in points]))
