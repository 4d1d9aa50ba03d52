"""Choosing the best cells of a grid under limits, by 95 % intervals and not by means alone.

report/choose.js has the same rule for the page; a test in tests/browser compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from inference_benchmark.analysis.figures import Figure
from inference_benchmark.analysis.statistics import Estimate

Verdict = Literal["meets", "perhaps", "exceeds", "unknown"]


class Candidate(NamedTuple):
    """A measured cell. figures: those that it has, by name; both ends of a figure without an interval are its value."""

    name: str
    figures: Mapping[str, Estimate]
    warnings: Sequence[str] = ()


class Limit(NamedTuple):
    """The most that a figure may be, in the unit of its column."""

    figure: Figure
    most: float

    def verdict(self, cell: Candidate) -> Verdict:
        """meets: the upper end of the interval does. perhaps: only the mean does. unknown: there is no such figure."""
        estimate = cell.figures.get(self.figure.name)
        if estimate is None:
            return "unknown"
        if estimate.value > self.most:
            return "exceeds"
        return "meets" if estimate.high is not None and estimate.high <= self.most else "perhaps"


@dataclass(frozen=True)
class Choice:
    """The answer, cells with a better goal first.

    best: of the cells that meet all limits the one with the best goal, then those that cannot be told apart from it.
    perhaps: cells that perhaps meet all limits and may be as good as the best. verdicts: of every limit on every cell
    that has the figure of the goal. nearest: where there is neither, the cell whose mean exceeds its worst limit by the
    smallest factor, and that limit.
    """

    best: Sequence[Candidate]
    perhaps: Sequence[Candidate]
    verdicts: Sequence[tuple[Limit, Sequence[Verdict]]]
    nearest: tuple[Candidate, Limit] | None


def choose(cells: Sequence[Candidate], goal: Figure, limits: Sequence[Limit] = ()) -> Choice:
    """The best of these cells.

    Two cells cannot be told apart where the intervals of their goal overlap. That is the cautious rule: intervals that
    do not overlap differ significantly, and some that overlap do so too (Schenker and Gentleman, "On judging the
    significance of differences by examining the overlap between confidence intervals", The American Statistician
    55(3), 2001). An interval that is unknown overlaps all others.
    """
    cells = [cell for cell in cells if goal.name in cell.figures]
    cells.sort(key=lambda cell: cell.figures[goal.name].value, reverse=goal.better == "higher")
    verdicts = {cell.name: {limit.verdict(cell) for limit in limits} for cell in cells}
    meet = [cell for cell in cells if verdicts[cell.name] <= {"meets"}]
    perhaps = [cell for cell in cells if "perhaps" in verdicts[cell.name] <= {"meets", "perhaps"}]
    first = next(iter(meet or perhaps), None)
    return Choice(
        best=[cell for cell in meet if _may_equal(cell, first, goal)],
        perhaps=[cell for cell in perhaps if _may_equal(cell, first, goal)],
        verdicts=[(limit, [limit.verdict(cell) for cell in cells]) for limit in limits],
        nearest=None if first else _nearest(cells, limits),
    )


def price_per_million_tokens(throughput: Estimate, price_per_hour: float) -> Estimate:
    """Of a machine that always generates at this throughput in tokens/sec, in the currency of the price."""
    return throughput.per(price_per_hour / 3600 * 1e6)


def grams_co2_per_million_tokens(energy: Estimate, grams_per_kwh: float) -> Estimate:
    """Of the counted energy in joules/token; a kWh is 3.6e6 joules."""
    return energy.times(1e6 / 3.6e6 * grams_per_kwh)


def _may_equal(cell: Candidate, best: Candidate, goal: Figure) -> bool:
    """Whether the interval of a cell's goal reaches that of the best cell."""
    one, other = cell.figures[goal.name], best.figures[goal.name]
    if None in (*one, *other):
        return True
    return one.high >= other.low if goal.better == "higher" else one.low <= other.high


def _nearest(cells: Sequence[Candidate], limits: Sequence[Limit]) -> tuple[Candidate, Limit] | None:
    """The cell whose worst limit is exceeded by the smallest factor; None where none has all figures."""

    def factor(cell: Candidate, limit: Limit) -> float:
        return cell.figures[limit.figure.name].value / limit.most

    known = [cell for cell in cells if all(limit.figure.name in cell.figures for limit in limits)]
    cell = min(known, key=lambda cell: max(factor(cell, limit) for limit in limits), default=None)
    return cell and (cell, max(limits, key=lambda limit: factor(cell, limit)))
