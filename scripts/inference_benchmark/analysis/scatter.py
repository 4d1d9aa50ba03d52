"""How much what was measured scatters, and what the cells of a run show of each other's scatter.

Times are positive and vary by factors, so that variances are those of logarithms: squared relative deviations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from inference_benchmark.analysis.descriptive import mean, percentile, standard_deviation

#: Of all intervals.
LEVEL = 0.95
#: From fewer cells it is not known how cells scatter, nor what the speed of the machine means to one.
LEAST_CELLS = 8


class Scatter(NamedTuple):
    """The variance of logarithms, known with so many degrees of freedom."""

    variance: float
    freedom: float

    def moderated(self, prior: Prior) -> Scatter:
        """Of freedom + 1 values, with what is known from other cells."""
        freedom = prior.freedom + self.freedom
        variance = (prior.freedom * prior.variance + self.freedom * self.variance) / freedom
        return Scatter(variance + prior.unseen * (self.freedom + 1), freedom)

    def of_mean(self, n: int) -> Scatter:
        """Of the mean of n such values."""
        return self._replace(variance=self.variance / n)

    @property
    def reach(self) -> float:
        """Half the t interval."""
        return t_quantile(self.freedom) * math.sqrt(self.variance)


class Prior(NamedTuple):
    """What all cells of a run show about one of them: the variance of its rounds, and how many degrees of freedom that
    is worth beside its own. unseen: the variance of its mean because it did not see the machine as the others did."""

    variance: float
    freedom: float
    unseen: float = 0


#: Nothing is known from other cells.
NO_PRIOR = Prior(0, 0)


def scatter_of(values: Sequence[float]) -> Scatter | None:
    deviation = standard_deviation(values)
    return None if deviation is None else Scatter(deviation**2, len(values) - 1)


def prior(cells: Sequence[Scatter]) -> Prior:
    """What all cells of a run show about the scatter of each: the typical variance, and how many degrees of freedom it
    is worth beside a cell's own. Cells of one run scatter alike, and three rounds say little about a cell. NO_PRIOR for
    fewer than eight cells.

    By the moments of the logarithms of the variances: Smyth, "Linear models and empirical Bayes methods for assessing
    differential expression in microarray experiments", Stat. Appl. Genet. Mol. Biol. 3(1), 2004, section 6.2. As in his
    program limma, a variance is at least a 100,000th of the median, and the prior is worth no more than all cells.
    """
    least = 1e-5 * percentile([cell.variance for cell in cells], 50) if len(cells) >= LEAST_CELLS else 0
    if not least:
        return NO_PRIOR
    from scipy.special import digamma, polygamma

    def log_bias(freedom: float) -> float:
        """Mean of the logarithm of a variance with these degrees of freedom, less that of the true variance."""
        return float(digamma(freedom / 2)) - math.log(freedom / 2)

    logs = [math.log(max(variance, least)) - log_bias(freedom) for variance, freedom in cells]
    beyond_chance = standard_deviation(logs) ** 2 - mean([float(polygamma(1, cell.freedom / 2)) for cell in cells])
    most = sum(cell.freedom for cell in cells)
    freedom = min(2 * _inverse_trigamma(beyond_chance), most) if beyond_chance > 0 else most
    return Prior(math.exp(mean(logs) + log_bias(freedom)), freedom)


def _inverse_trigamma(value: float) -> float:
    """By Newton's method on 1 / trigamma, which is convex and nearly straight (Smyth, 2004, appendix)."""
    from scipy.special import polygamma

    x, step = 0.5 + 1 / value, math.inf
    while abs(step) > 1e-9 * x:
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
    return x


@cache
def t_quantile(freedom: float) -> float:
    """The t for which Student's distribution is between -t and t with probability LEVEL. freedom: at least 1.

    scipy.special.stdtrit is the same, and takes a quarter of a second to be imported, in the process of every cell.
    With t = sqrt(freedom) tan(angle) the density is a power of the cosine of the angle. Its integral, by Simpson's
    rule, is solved for the angle by Newton's method: as it is concave, each step from below comes closer.
    """
    parts = 64  # Even; the error of t is then below a millionth.
    scale = 2 * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def density(angle: float) -> float:
        return scale * math.cos(angle) ** (freedom - 1)

    angle, step = 0.0, math.inf
    while step > 1e-12 * angle:
        width = angle / parts
        inner = sum(density(i * width) * (4 if i % 2 else 2) for i in range(1, parts))
        step = (LEVEL - (density(0) + inner + density(angle)) * width / 3) / density(angle)
        angle += step
    return math.sqrt(freedom) * math.tan(angle)
