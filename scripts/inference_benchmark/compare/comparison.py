"""Two result sets, cell by cell: how many times as fast, and whether the difference is more than noise. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis import statistics, yardstick
from inference_benchmark.analysis.figures import COMPARED, Figure
from inference_benchmark.analysis.statistics import Estimate, RatioTest
from inference_benchmark.analysis.yardstick import Speed
from inference_benchmark.compare.result_set import CellResult, ResultSet
from inference_benchmark.experiment.baselines import KEYS
from inference_benchmark.records import comparability
from inference_benchmark.units import format_figure

VERSION = 1

FASTER, SLOWER, SAME, UNKNOWN = "faster", "slower", "same", "unknown"
#: Where a result set has a single process: its calls agree better than processes do.
PERHAPS_FASTER, PERHAPS_SLOWER = "perhaps faster", "perhaps slower"
FITS_NOW, FITS_NO_LONGER, NEITHER_FITS, NO_FIGURE = "fits now", "fits no longer", "neither fits", "no figure"
#: A side is faster than its machine can be, so that its figure, or what is known of the machine, is wrong.
ABOVE_LIMIT = "above limit"
#: The fact that differs where the machine itself does.
SPEED = "speed of the machine"

#: One set of tables and charts is about one grid: a model and a workload.
GRID = ("model", "prompt_tokens", "new_tokens")
Grid = tuple[str | None, int | None, int | None]


def grid_of(where: Mapping[str, Any]) -> Grid:
    """None for what the result set does not know."""
    return tuple(where.get(key) for key in GRID)


class ComparedCell(NamedTuple):
    """A cell that both result sets have.

    where: as the new set names it. base_engine: "" where the base names none. base, new: the figures by name.
    ratio: how many times as fast the new one is, above 1 for faster, with its 95 % interval; None where it is unknown.
    p_value: of equal means. processes: of base and new; 0 where there are no samples.
    """

    where: Mapping[str, Any]
    base_engine: str
    base_outcome: str
    new_outcome: str
    base: Mapping[str, float]
    new: Mapping[str, float]
    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    processes: tuple[int, int] = (0, 0)

    @property
    def is_judged(self) -> bool:
        """Whether it was tested with several processes in both sets."""
        return self.p_value is not None and min(self.processes) > 1


class ComparedColumn(NamedTuple):
    """Cells that differ in batch size alone.

    geometric_mean: of the ratios of so many cells. base_largest, new_largest: the largest of the compared batch sizes
    that fits, None where none does.
    """

    where: Mapping[str, Any]
    geometric_mean: float | None
    cells: int
    base_largest: int | None
    new_largest: int | None


class Difference(NamedTuple):
    """A fact that is not the same in both result sets, with every value that it takes in each."""

    fact: str
    base: Sequence[Any]
    new: Sequence[Any]


@dataclass(frozen=True)
class Comparison:
    """base, new: names of the result sets. figure: the name of the figure compared. notes: remarks of both.
    only_base, only_new: cells that the other set does not have. paired: whether cells were compared round by round."""

    base: str
    new: str
    figure: str
    notes: Sequence[str]
    differences: Sequence[Difference]
    cells: Sequence[ComparedCell]
    columns: Sequence[ComparedColumn]
    only_base: Sequence[Mapping[str, Any]]
    only_new: Sequence[Mapping[str, Any]]
    paired: bool = False
    version: int = VERSION

    def to_document(self) -> dict[str, Any]:
        """For JSON. ``verdict`` holds at 95 % for all cells together (Holm); each interval for its cell alone."""
        return {
            **asdict(self),
            "differences": [each._asdict() for each in self.differences],
            "cells": [each._asdict() for each in self.cells],
            "columns": [each._asdict() for each in self.columns],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of to_document. Raises ValueError for another version."""
        if document.get("version") != VERSION:
            raise ValueError(f"version is {document.get('version')!r}; this program reads version {VERSION}")
        parts = {"differences": Difference, "cells": ComparedCell, "columns": ComparedColumn}
        return cls(**document | {name: [kind(**each) for each in document[name]] for name, kind in parts.items()})

    @cached_property
    def grids(self) -> Mapping[Grid, Sequence[ComparedCell]]:
        """Its cells by model and workload."""
        by_grid: dict[Grid, list[ComparedCell]] = {}
        for cell in self.cells:
            by_grid.setdefault(grid_of(cell.where), []).append(cell)
        return by_grid

    @property
    def judged(self) -> int:
        """How many cells were tested with several processes in both sets."""
        return sum(cell.is_judged for cell in self.cells)

    @property
    def single_process(self) -> bool:
        """Whether a cell was tested by the calls of a single process."""
        return any(cell.p_value is not None and min(cell.processes) == 1 for cell in self.cells)


def compare(
    base: ResultSet, new: ResultSet, figure: Figure = COMPARED["throughput"], paired: bool = False
) -> Comparison:
    """Each cell of new with the same cell of base.

    Two cells are the same if they agree in all of KEYS that the base has; models are matched by name if the base has
    names, else by their parameters. So one cell of the base can match several of the new set. Samples are compared by
    Welch's test on the logarithms of the means of processes, or of calls if a set has one process; a difference of such
    calls is called ``perhaps``. paired: the two were measured together, round by round; then the ratios of the rounds
    that both have are tested.
    """
    keys = matching_keys([cell.where for cell in base.cells])
    by_key = {_key(cell, keys): cell for cell in base.cells}
    pairs = [(by_key[_key(cell, keys)], cell) for cell in new.cells if _key(cell, keys) in by_key]
    test = _paired_test if paired else _test
    tests = [test(one, other, figure) for one, other in pairs]
    significant = iter(statistics.significant([test for test in tests if test]))
    cells = [
        _compared(one, other, figure, test, bool(test) and next(significant))
        for (one, other), test in zip(pairs, tests, strict=True)
    ]
    matched = {_key(other, keys) for _, other in pairs}
    return Comparison(
        base=base.name,
        new=new.name,
        figure=figure.name,
        notes=[*base.notes, *new.notes],
        differences=differences(base, new),
        cells=cells,
        columns=list(_columns(cells)),
        only_base=[cell.where for cell in base.cells if _key(cell, keys) not in matched],
        only_new=[cell.where for cell in new.cells if _key(cell, keys) not in by_key],
        paired=paired,
    )


def differences(base: ResultSet, new: ResultSet) -> list[Difference]:
    """What is not the same in both: facts that both know, and the speed of the machine itself."""
    return [*_differences(base.facts, new.facts), *_differences_of_speed(base.speed, new.speed)]


def matching_keys(base: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The keys in which a cell has to agree with one of these cells of a base to be the same."""
    keys = [key for key in KEYS if any(where.get(key) is not None for where in base)]
    return tuple(key for key in keys if not (key == "parameters" and "model" in keys))


def read_all(paths: Iterable[Path]) -> list[Comparison]:
    """Comparisons from their JSON files."""
    return [Comparison.from_document(json.loads(path.read_bytes())) for path in paths]


def regressions(comparison: Comparison, limit: float) -> list[ComparedCell]:
    """Cells that are slower by at least this part of the base's speed, and those that no longer fit."""
    return [cell for cell in comparison.cells if _is_regression(cell, limit)]


def _is_regression(cell: ComparedCell, limit: float) -> bool:
    return cell.verdict == FITS_NO_LONGER or (cell.verdict == SLOWER and cell.ratio <= 1 - limit)


def undecided(comparison: Comparison, limit: float) -> list[tuple[ComparedCell, int | None]]:
    """Cells that can be slower by this part of the base's speed, for all that is known, and are not found to be; each
    with how many rounds would tell, None where that cannot be said."""
    return [
        (cell, statistics.rounds_needed(Estimate(cell.ratio, cell.low, cell.high), min(cell.processes), 1 - limit))
        for cell in comparison.cells
        if not _is_regression(cell, limit) and cell.ratio is not None and not (cell.is_judged and cell.low > 1 - limit)
    ]


def _key(cell: CellResult, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(cell.where.get(key) for key in keys)


def _test(base: CellResult, new: CellResult, figure: Figure) -> RatioTest | None:
    if base.above_limit or new.above_limit:
        return None
    one, other = getattr(base, figure.samples), getattr(new, figure.samples)
    return statistics.ratio_test(one, other) if one and other else None


def _paired_test(base: CellResult, new: CellResult, figure: Figure) -> RatioTest | None:
    if base.above_limit or new.above_limit:
        return None
    one, other = (dict(zip(of.rounds, getattr(of, figure.samples), strict=False)) for of in (base, new))
    return statistics.paired_ratio_test(one, other)


def _compared(
    base: CellResult, new: CellResult, figure: Figure, test: RatioTest | None, significant: bool
) -> ComparedCell:
    cell = ComparedCell(
        where=new.where,
        base_engine=base.where.get("engine", ""),
        base_outcome=base.outcome,
        new_outcome=new.outcome,
        base=base.figures,
        new=new.figures,
        verdict=_ending(base.outcome, new.outcome),
    )
    if not (figure.name in base.figures and figure.name in new.figures):
        return cell
    if base.above_limit or new.above_limit:
        return cell._replace(verdict=ABOVE_LIMIT)
    processes = len(getattr(base, figure.samples)), len(getattr(new, figure.samples))
    cell = cell._replace(processes=processes, verdict=UNKNOWN)
    if test is None:
        ratio = new.figures[figure.name] / base.figures[figure.name]
        return cell._replace(ratio=ratio if figure.better == "higher" else 1 / ratio)
    # Samples are times: half the time is twice the speed.
    verdicts = (FASTER, SLOWER) if min(processes) > 1 else (PERHAPS_FASTER, PERHAPS_SLOWER)
    verdict = verdicts[test.ratio > 1] if significant else SAME
    return cell._replace(
        verdict=verdict, ratio=1 / test.ratio, low=1 / test.high, high=1 / test.low, p_value=test.p_value
    )


def _ending(base: str, new: str) -> str:
    """The verdict where there are not two figures."""
    return {("oom", "ok"): FITS_NOW, ("ok", "oom"): FITS_NO_LONGER, ("oom", "oom"): NEITHER_FITS}.get(
        (base, new), NO_FIGURE
    )


def _columns(cells: Sequence[ComparedCell]) -> Iterator[ComparedColumn]:
    columns: dict[tuple[Any, ...], list[ComparedCell]] = {}
    for cell in cells:
        where = {key: value for key, value in cell.where.items() if key != "batch_size"}
        columns.setdefault(tuple(where.items()), []).append(cell)
    for where, members in columns.items():
        logs = [math.log(cell.ratio) for cell in members if cell.ratio is not None]
        largest = [
            max((cell.where["batch_size"] for cell in members if outcome(cell) == "ok"), default=None)
            for outcome in (lambda cell: cell.base_outcome, lambda cell: cell.new_outcome)
        ]
        yield ComparedColumn(dict(where), math.exp(statistics.mean(logs)) if logs else None, len(logs), *largest)


def _differences_of_speed(base: Speed | None, new: Speed | None) -> Iterator[Difference]:
    """The kernels of the yardstick in which the machine itself differs by more than the tolerance."""
    if base is None or new is None:
        return
    for name, ratio, ours, theirs in zip(yardstick.NAMES, new.over(base), base.texts, new.texts, strict=True):
        if min(ratio, 1 / ratio) < 1 - yardstick.TOLERANCE:
            yield Difference(f"{SPEED} ({name}, median)", [ours], [f"{theirs}, {format_figure(ratio, '.2f')}x"])


def _differences(base: Mapping[str, Sequence[Any]], new: Mapping[str, Sequence[Any]]) -> Iterator[Difference]:
    """Facts that both sets know and that differ; a variable of the environment may be set in one set only."""
    both = comparability.shared(base, new) if base and new else set()
    for fact in (name for name in {**base, **new} if name in both):
        ours, theirs = list(base.get(fact, ["not set"])), list(new.get(fact, ["not set"]))
        if {str(value) for value in ours} != {str(value) for value in theirs}:
            yield Difference(fact, ours, theirs)
