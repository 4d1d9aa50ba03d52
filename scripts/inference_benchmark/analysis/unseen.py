"""How uncertain the mean of a cell is because its rounds did not see the machine as the other cells did.

A shared machine can have states that last longer than a round: for some seconds its memory is twice as fast, and cells
take longer or shorter. If all rounds of a cell fall into one of them, they agree with each other, and nothing in their
scatter shows that the run as a whole was otherwise. The yardsticks around them do.
"""

from __future__ import annotations

from collections.abc import Sequence

from inference_benchmark.analysis.descriptive import mean
from inference_benchmark.analysis.scatter import LEAST_CELLS

#: Of each round of a cell, the logarithm of the speed of the machine around it, for each kernel of the yardstick. Empty
#: where it is not known of all rounds.
Around = Sequence[Sequence[float]]


def unseen(cells: Sequence[Sequence[float]], around: Sequence[Around]) -> list[float]:
    """The variance of the mean of each cell by what its rounds did not see: the square of the distance between the mean
    speed around them and that around the rounds of all cells, times the mean square of the slope of times over speeds.
    Of the kernels of the yardstick, which are seldom independent, the one for which it is largest.

    cells: logarithms of the times of each round. The slopes of cells differ, also in sign. Their mean square follows
    from the moments of all cells (Hildreth and Houck, "Some estimators for a linear model with random coefficients",
    J. Am. Stat. Assoc. 63, 1968), so that the scatter of few rounds is not taken for a slope. 0 where the speed is
    unknown, and for fewer than eight cells in several rounds.
    """
    known = [bool(speeds) and len(times) == len(speeds) > 1 for times, speeds in zip(cells, around, strict=True)]
    rounds = [(times, speeds) for times, speeds, is_known in zip(cells, around, known, strict=True) if is_known]
    if len(rounds) < LEAST_CELLS:
        return [0.0] * len(cells)
    n_kernels = len(rounds[0][1][0])
    by_kernel = [
        _of_kernel([(times, [speed[kernel] for speed in speeds]) for times, speeds in rounds])
        for kernel in range(n_kernels)
    ]
    largest = map(max, zip(*by_kernel, strict=True))
    return [next(largest) if is_known else 0.0 for is_known in known]


def _of_kernel(cells: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[float]:
    """cells: times and speeds of their rounds."""
    usual = mean([speed for _, speeds in cells for speed in speeds])
    slope_squared = _mean_squared_slope(cells)
    return [slope_squared * (mean(speeds) - usual) ** 2 for _, speeds in cells]


def _mean_squared_slope(cells: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """S: sums of products of deviations over the n rounds of a cell, x of its speeds, y of its times. b: its slope. v:
    the variance of the rest. In the mean Sxy^2 is b^2 Sxx^2 + v Sxx, and Syy is b^2 Sxx + v (n - 1). The sums of both
    over all cells give the two unknowns."""
    sums = []
    for times, speeds in cells:
        time, speed = mean(times), mean(speeds)
        x, y = [each - speed for each in speeds], [each - time for each in times]
        xx, xy, yy = (sum(a * b for a, b in zip(*each, strict=True)) for each in ((x, x), (x, y), (y, y)))
        sums.append((xy**2, xx**2, xx, yy, len(times) - 1))
    xy_squared, xx_squared, xx, yy, freedom = map(sum, zip(*sums, strict=True))
    determinant = xx_squared * freedom - xx**2
    return max((xy_squared * freedom - yy * xx) / determinant, 0.0) if determinant > 0 else 0.0
