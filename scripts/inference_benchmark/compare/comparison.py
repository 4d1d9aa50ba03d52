"""Two result sets, cell by cell: how many times as fast, and whether the difference is more than noise. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis import descriptive, statistics, yardstick
from inference_benchmark.analysis.figures import COMPARED, Figure
from inference_benchmark.analysis.statistics import Estimate, RatioTest
from inference_benchmark.compare.result_set import ResultSet
from inference_benchmark.records import comparability
from inference_benchmark.results.cell_result import KEYS, CellResult
from inference_benchmark.results.column import Column
from inference_benchmark.units import format_figure

#: 2: columns are those of results/column.py. 3: freedom.
VERSION = 3

FASTER, SLOWER, SAME, UNKNOWN = "faster", "slower", "same", "unknown"
#: Where a result set has a single process: its calls agree better than processes do.
PERHAPS_FASTER, PERHAPS_SLOWER = "perhaps faster", "perhaps slower"
FITS_NOW, FITS_NO_LONGER, NEITHER_FITS, NO_FIGURE = "fits now", "fits no longer", "neither fits", "no figure"
#: The verdicts where there are not two figures, by the outcomes of base and new; else there is no figure.
_ENDINGS = {("oom", "ok"): FITS_NOW, ("ok", "oom"): FITS_NO_LONGER, ("oom", "oom"): NEITHER_FITS}
#: A side is faster than its machine can be, so that its figure, or what is known of the machine, is wrong.
ABOVE_LIMIT = "above limit"
#: The fact that differs where the machine itself does.
SPEED = "speed of the machine"


class ComparedCell(NamedTuple):
    """A cell that both result sets have. ratio: how many times as fast the new one is, above 1 for faster, with its
    95 % interval; None where it is unknown. p_value: of equal means. processes: of base and new; 0 without samples.
    freedom: degrees of freedom of the interval; None where it is unknown."""

    base: CellResult
    new: CellResult
    verdict: str
    ratio: Estimate | None = None
    p_value: float | None = None
    processes: tuple[int, int] = (0, 0)
    freedom: float | None = None

    @property
    def is_judged(self) -> bool:
        """Whether it was tested with several processes in both sets."""
        return self.p_value is not None and min(self.processes) > 1

    def to_document(self) -> dict[str, Any]:
        """For JSON: the cell, and of both sides the outcome and the values that can be compared."""
        value, low, high = self.ratio or Estimate(None)
        return {
            "where": self.new.key,
            "base_engine": self.base.column.engine,
            "base_outcome": self.base.outcome,
            "new_outcome": self.new.outcome,
            "base": _values(self.base),
            "new": _values(self.new),
            "verdict": self.verdict,
            "ratio": value,
            "low": low,
            "high": high,
            "p_value": self.p_value,
            "processes": list(self.processes),
            "freedom": self.freedom,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of to_document. The base has the precision and batch size of the new one, and its own engine."""
        where = document["where"]
        of_base = {**where, "engine": document["base_engine"], "environment": ""}
        ratio = Estimate(*(document[name] for name in ("ratio", "low", "high")))
        return cls(
            CellResult.of_key(of_base, document["base_outcome"], document["base"]),
            CellResult.of_key(where, document["new_outcome"], document["new"]),
            document["verdict"],
            None if ratio.value is None else ratio,
            document["p_value"],
            tuple(document["processes"]),
            document["freedom"],
        )


class ComparedColumn(NamedTuple):
    """Cells that differ in batch size alone. column, label: as the new set has them. geometric_mean: of the ratios of
    so many cells. base_largest, new_largest: the largest of the compared batch sizes that fits, None if none does."""

    column: Column
    label: str
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
    """base, new: names of the result sets. figure: its name. notes: remarks of both. only_base, only_new: cells that
    the other set does not have. paired: whether cells were compared round by round."""

    base: str
    new: str
    figure: str
    notes: Sequence[str]
    differences: Sequence[Difference]
    cells: Sequence[ComparedCell]
    columns: Sequence[ComparedColumn]
    only_base: Sequence[CellResult]
    only_new: Sequence[CellResult]
    paired: bool = False

    def to_document(self) -> dict[str, Any]:
        """For JSON. ``verdict`` holds at 95 % for all cells together (Holm); each interval for its cell alone."""
        return {
            **vars(self),
            "version": VERSION,
            "differences": [each._asdict() for each in self.differences],
            "cells": [each.to_document() for each in self.cells],
            "columns": [{**each._asdict(), "column": asdict(each.column)} for each in self.columns],
            "only_base": [each.key for each in self.only_base],
            "only_new": [each.key for each in self.only_new],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of to_document. Raises ValueError for another version."""
        if document.get("version") != VERSION:
            raise ValueError(f"version is {document.get('version')!r}; this program reads version {VERSION}")
        parts = {
            "differences": lambda each: Difference(**each),
            "cells": ComparedCell.from_document,
            "columns": lambda each: ComparedColumn(**each | {"column": Column(**each["column"])}),
            "only_base": CellResult.of_key,
            "only_new": CellResult.of_key,
        }
        made = {name: [make(each) for each in document[name]] for name, make in parts.items()}
        return cls(**{name: value for name, value in document.items() if name != "version"} | made)

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
    that both have are tested. The scatter of all cells of a set, or of all pairs, is known of each.
    """
    keys = matching_keys(base.cells)
    by_key = {cell.key_in(keys): cell for cell in base.cells}
    pairs = [(by_key[key], cell) for cell in new.cells if (key := cell.key_in(keys)) in by_key]
    tests = _paired_tests(pairs, figure) if paired else _tests(pairs, figure, base, new)
    significant = iter(statistics.significant([test for test in tests if test]))
    cells = [
        _compared(one, other, figure, test, bool(test) and next(significant))
        for (one, other), test in zip(pairs, tests, strict=True)
    ]
    matched = {other.key_in(keys) for _, other in pairs}
    return Comparison(
        base=base.name,
        new=new.name,
        figure=figure.name,
        notes=[*base.notes, *new.notes],
        differences=differences(base, new),
        cells=cells,
        columns=list(_columns(cells)),
        only_base=[cell for cell in base.cells if cell.key_in(keys) not in matched],
        only_new=[cell for cell in new.cells if cell.key_in(keys) not in by_key],
        paired=paired,
    )


def differences(base: ResultSet, new: ResultSet) -> list[Difference]:
    """Facts that both know and that differ, and the kernels of the yardstick in which the machine itself differs by
    more than the tolerance. A variable of the environment may be set in one set only. Of the cells that both have, as
    far as their records are there: what is true of others has no part in a ratio."""
    keys, found = matching_keys(base.cells), []
    common = set.intersection(*({cell.key_in(keys) for cell in each.cells} for each in (base, new)))
    base, new = (each.about(cell for cell in each.cells if cell.key_in(keys) in common) for each in (base, new))
    both = comparability.shared(base.facts, new.facts) if base.facts and new.facts else set()
    for fact in (name for name in {**base.facts, **new.facts} if name in both):
        ours, theirs = (list(each.facts.get(fact, ["not set"])) for each in (base, new))
        if set(map(str, ours)) != set(map(str, theirs)):
            found.append(Difference(fact, ours, theirs))
    if base.speed and new.speed:
        ratios = zip(yardstick.NAMES, new.speed.over(base.speed), base.speed.texts, new.speed.texts, strict=True)
        for name, ratio, our, their in ratios:
            if min(ratio, 1 / ratio) < 1 - yardstick.TOLERANCE:
                now = f"{their}, {format_figure(ratio, '.2f')}x"
                found.append(Difference(f"{SPEED} ({name}, median)", [our], [now]))
    return found


def matching_keys(base: Sequence[CellResult]) -> tuple[str, ...]:
    """The keys in which a cell has to agree with one of these cells of a base to be the same. Prompts of a base that
    does not say are random token ids."""
    known = {"prompts"} | {key for cell in base for key in cell.key}
    return tuple(key for key in KEYS if key in known and not (key == "parameters" and "model" in known))


def read_all(paths: Iterable[Path]) -> list[Comparison]:
    """Comparisons from their JSON files."""
    return [Comparison.from_document(json.loads(path.read_bytes())) for path in paths]


def regressions(comparison: Comparison, limit: float) -> list[ComparedCell]:
    """Cells that are slower by at least this part of the base's speed, and those that no longer fit."""
    return [cell for cell in comparison.cells if _is_regression(cell, limit)]


def _is_regression(cell: ComparedCell, limit: float) -> bool:
    return cell.verdict == FITS_NO_LONGER or (cell.verdict == SLOWER and cell.ratio.value <= 1 - limit)


def undecided(comparison: Comparison, limit: float) -> list[tuple[ComparedCell, int | None]]:
    """Cells that can be slower by this part of the base's speed, for all that is known, and are not found to be; each
    with how many rounds would tell, None where that cannot be said."""
    return [
        (cell, statistics.rounds_needed(cell.ratio, min(cell.processes), cell.freedom, 1 - limit))
        for cell in comparison.cells
        if not _is_regression(cell, limit) and cell.ratio and not (cell.is_judged and cell.ratio.low > 1 - limit)
    ]


def _values(cell: CellResult) -> dict[str, float]:
    return {figure.name: cell.value(figure.name) for figure in COMPARED.values() if figure.name in cell.figures}


def _paired_tests(pairs: Sequence[tuple[CellResult, CellResult]], figure: Figure) -> list[RatioTest | None]:
    by_round = (
        [dict(zip(of.rounds, of.samples(figure), strict=False)) for of in pair] if _are_limited(pair) else [{}, {}]
        for pair in pairs
    )
    return statistics.paired_ratio_tests([statistics.shifts_of_rounds(*sides) for sides in by_round])


def _tests(pairs: Sequence[tuple[CellResult, CellResult]], figure: Figure, *sets: ResultSet) -> list[RatioTest | None]:
    priors = [statistics.prior_of_processes(cell.samples(figure) for cell in each.cells) for each in sets]
    tests = []
    for pair in pairs:
        base, new = (cell.samples(figure) for cell in pair)
        tests.append(statistics.ratio_test(base, new, priors) if base and new and _are_limited(pair) else None)
    return tests


def _are_limited(pair: tuple[CellResult, CellResult]) -> bool:
    """Whether neither is faster than its machine can be."""
    return not any(cell.is_above_limit for cell in pair)


def _compared(
    base: CellResult, new: CellResult, figure: Figure, test: RatioTest | None, significant: bool
) -> ComparedCell:
    if not (figure.name in base.figures and figure.name in new.figures):
        return ComparedCell(base, new, _ENDINGS.get((base.outcome, new.outcome), NO_FIGURE))
    if base.is_above_limit or new.is_above_limit:
        return ComparedCell(base, new, ABOVE_LIMIT)
    processes = len(base.samples(figure)), len(new.samples(figure))
    if test is None:
        ratio = new.value(figure.name) / base.value(figure.name)
        speedup = Estimate(ratio if figure.better == "higher" else 1 / ratio)
        return ComparedCell(base, new, UNKNOWN, speedup, processes=processes)
    verdicts = (FASTER, SLOWER) if min(processes) > 1 else (PERHAPS_FASTER, PERHAPS_SLOWER)
    verdict = verdicts[test.speedup.value < 1] if significant else SAME
    return ComparedCell(base, new, verdict, test.speedup, test.p_value, processes, test.freedom)


def _columns(cells: Sequence[ComparedCell]) -> Iterator[ComparedColumn]:
    columns: dict[str, list[ComparedCell]] = {}
    for cell in cells:
        columns.setdefault(cell.new.column_label, []).append(cell)
    for label, members in columns.items():
        logs = [math.log(cell.ratio.value) for cell in members if cell.ratio]
        geometric_mean = math.exp(descriptive.mean(logs)) if logs else None
        base = max((cell.new.batch_size for cell in members if cell.base.is_measured), default=None)
        new = max((cell.new.batch_size for cell in members if cell.new.is_measured), default=None)
        yield ComparedColumn(members[0].new.column, label, geometric_mean, len(logs), base, new)
