"""Choosing the best cells of a grid under limits, by 95 % intervals and not by means alone.

report/choose.js has the same rule for the page; a test in tests/browser compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from inference_benchmark.analysis.figures import Figure
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.results.cell_result import CellResult

Verdict = Literal["meets", "perhaps", "exceeds", "unknown"]


class Bound(NamedTuple):
    """The most that a figure may be, in the unit of its column."""

    figure: Figure
    most: float

    def verdict(self, cell: CellResult) -> Verdict:
        """meets: the upper end of the interval does. perhaps: only the mean does. unknown: there is no such figure."""
        estimate = cell.figures.get(self.figure.name)
        if estimate is None:
            return "unknown"
        if estimate.value > self.most:
            return "exceeds"
        high = interval(estimate, self.figure)[1]
        return "meets" if high is not None and high <= self.most else "perhaps"


@dataclass(frozen=True)
class Choice:
    """The answer, cells with a better goal first. best: of the cells that meet all limits the one with the best goal,
    then those that cannot be told apart from it. perhaps: cells that perhaps meet all limits and may be as good as the
    best. verdicts: of every bound on every cell that has the figure of the goal. nearest: where there is neither, the
    cell whose mean exceeds its worst bound by the smallest factor, and that bound."""

    best: Sequence[CellResult]
    perhaps: Sequence[CellResult]
    verdicts: Sequence[tuple[Bound, Sequence[Verdict]]]
    nearest: tuple[CellResult, Bound] | None


def headline(cells: Sequence[CellResult], figure: Figure, target: float) -> CellResult | None:
    """The cell with the best value of a figure, of those that the machine can reach; None where no cell has it. Chance
    makes the best of uncertain values: a cell whose interval is wider than the target counts only if all are, or if it
    is better than the best of the others for all that the intervals say.

    target: of half an interval, as a part of its value.
    """
    having = [cell for cell in cells if figure.name in cell.figures and not cell.is_above_limit]
    widths = [cell.figures[figure.name].half_width for cell in having]
    certain = [cell for cell, width in zip(having, widths, strict=True) if width is not None and width <= target]
    pick = partial(max if figure.better == "higher" else min, key=lambda cell: cell.value(figure.name))
    if not having:
        return None
    best = pick(certain or having)
    known = [cell for cell, width in zip(having, widths, strict=True) if width is not None]
    return pick([best, *(cell for cell in known if not _may_equal(best, cell, figure))])


def choose(cells: Sequence[CellResult], goal: Figure, bounds: Sequence[Bound] = ()) -> Choice:
    """The best of these cells.

    Two cells cannot be told apart where the intervals of their goal overlap. That is the cautious rule: intervals that
    do not overlap differ significantly, and some that overlap do so too (Schenker and Gentleman, "On judging the
    significance of differences by examining the overlap between confidence intervals", The American Statistician
    55(3), 2001). An interval that is unknown overlaps none.
    """
    cells = [cell for cell in cells if goal.name in cell.figures]
    cells.sort(key=lambda cell: cell.figures[goal.name].value, reverse=goal.better == "higher")
    found = [(cell, {bound.verdict(cell) for bound in bounds}) for cell in cells]
    meet = [cell for cell, verdicts in found if verdicts <= {"meets"}]
    perhaps = [cell for cell, verdicts in found if "perhaps" in verdicts <= {"meets", "perhaps"}]
    first = next(iter(meet or perhaps), None)
    return Choice(
        best=[cell for cell in meet if _may_equal(cell, first, goal)],
        perhaps=[cell for cell in perhaps if _may_equal(cell, first, goal)],
        verdicts=[(bound, [bound.verdict(cell) for cell in cells]) for bound in bounds],
        nearest=None if first else _nearest(cells, bounds),
    )


def interval(estimate: Estimate, figure: Figure) -> tuple[float | None, float | None]:
    """The ends of its interval, None where it is unknown. A figure without an interval is exact."""
    return estimate[1:] if figure.interval else (estimate.value, estimate.value)


def price_per_million_tokens(throughput: Estimate, price_per_hour: float) -> Estimate:
    """Of a machine that always generates at this throughput in tokens/sec, in the currency of the price."""
    return throughput.per(price_per_hour / 3600 * 1e6)


def grams_co2_per_million_tokens(energy: Estimate, grams_per_kwh: float) -> Estimate:
    """Of the counted energy in joules/token; a kWh is 3.6e6 joules."""
    return energy.times(1e6 / 3.6e6 * grams_per_kwh)


def _may_equal(cell: CellResult, best: CellResult, goal: Figure) -> bool:
    """Whether the mean of a cell's goal is as good as that of the best cell, or its interval reaches that one's."""
    (low, high), (best_low, best_high) = (interval(each.figures[goal.name], goal) for each in (cell, best))
    if None in (low, best_low):
        low = high = cell.value(goal.name)
        best_low = best_high = best.value(goal.name)
    return high >= best_low if goal.better == "higher" else low <= best_high


def _nearest(cells: Sequence[CellResult], bounds: Sequence[Bound]) -> tuple[CellResult, Bound] | None:
    """The cell that exceeds its worst bound by the smallest factor; None where none has all figures."""

    def factor(cell: CellResult, bound: Bound) -> float:
        return cell.value(bound.figure.name) / bound.most

    known = [cell for cell in cells if all(bound.figure.name in cell.figures for bound in bounds)]
    cell = min(known, key=lambda cell: max(factor(cell, bound) for bound in bounds), default=None)
    return cell and (cell, max(bounds, key=lambda bound: factor(cell, bound)))
