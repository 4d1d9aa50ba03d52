"""Means with their intervals, tests, outliers and trends. Pure functions of raw samples.

Samples are grouped by the process that took them: ``[[s, s, s], [s, s, s]]`` are two processes of three. All samples of
one process share its memory layout, placement and threads, so they agree better than processes do. With several
processes the interval is that of their means, with a degree of freedom per process (Kalibera and Jones, "Rigorous
benchmarking in reasonable time", ISMM 2013, section 6). With one process it only says how well that repeats itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple

LEVEL = 0.95
#: Fewer samples have no quartiles, and no order to see a trend in, worth the name.
_FEW = 5
#: More rounds than this are not asked for.
MOST_ROUNDS = 1000

Groups = Sequence[Sequence[float]]


class Estimate(NamedTuple):
    """A value and its interval at LEVEL; low and high are None where the interval is unknown."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the interval, as a part of the value."""
        return None if self.low is None else (self.high - self.low) / 2 / self.value

    def times(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, *(None if end is None else end * factor for end in self[1:]))

    def per(self, amount: float) -> Estimate:
        """amount / self: a rate from a time. Without an interval where that of the time reaches zero."""
        ends = (amount / self.high, amount / self.low) if self.low is not None and self.low > 0 else (None, None)
        return Estimate(amount / self.value, *ends)


def ratio(new: Estimate, base: Estimate) -> Estimate:
    """new / base, two positive values that do not depend on each other.

    The variances of their logarithms add (delta method). No interval where one is unknown or reaches zero.
    """
    value = new.value / base.value
    if any(each.low is None or not each.low > 0 for each in (new, base)):
        return Estimate(value)
    factor = math.exp(math.hypot(*(math.log(each.high / each.low) / 2 for each in (new, base))))
    return Estimate(value, value / factor, value * factor)


class RatioTest(NamedTuple):
    """A test of two means. ratio: new over base. low, high: its interval at LEVEL. p_value: of equal means."""

    ratio: float
    low: float
    high: float
    p_value: float

    @property
    def speedup(self) -> Estimate:
        """How many times as fast the new one is, if the means are times: half the time is twice the speed."""
        return Estimate(1 / self.ratio, 1 / self.high, 1 / self.low)


def mean(samples: Sequence[float]) -> float:
    return math.fsum(samples) / len(samples)


def standard_deviation(samples: Sequence[float]) -> float | None:
    """Of the sample (n - 1); None for fewer than two."""
    if len(samples) < 2:
        return None
    centre = mean(samples)
    return math.sqrt(math.fsum((s - centre) ** 2 for s in samples) / (len(samples) - 1))


def estimate(groups: Groups) -> Estimate:
    """The mean over processes of their means, with its t interval."""
    units = _units(groups)
    return _around(mean(units), *_variance_of_mean(units))


def mean_difference(groups: Groups, others: Groups) -> Estimate:
    """The mean of groups less that of others, which the same processes took.

    With several processes the differences are taken process by process; with one, the two sets of calls are independent
    (Welch, Biometrika 34, 1947).
    """
    if len(groups) > 1:
        return estimate([[mean(a) - mean(b) for a, b in zip(groups, others, strict=True)]])
    return _around(mean(groups[0]) - mean(others[0]), *_welch(groups[0], others[0]))


def ratio_test(base: Groups, new: Groups) -> RatioTest | None:
    """Welch's t test on the logarithms of what varies: the means of processes, or the calls of a single process.

    None where a side has a single value, so that its spread is unknown.
    """
    logs = [[math.log(unit) for unit in _units(groups)] for groups in (base, new)]
    if min(map(len, logs)) < 2:
        return None
    return _test_of_shift(mean(logs[1]) - mean(logs[0]), *_welch(*logs))


def paired_ratio_test(base: Mapping[int, Sequence[float]], new: Mapping[int, Sequence[float]]) -> RatioTest | None:
    """Student's t test on the logarithms of the ratios of means, a ratio for each round that both have.

    base, new: samples by round, each round of the two measured one right after the other. A round that slows both
    does not change their ratio. None for fewer than two rounds.
    """
    shifts = [math.log(mean(new[number]) / mean(base[number])) for number in base if number in new]
    if len(shifts) < 2:
        return None
    return _test_of_shift(mean(shifts), *_variance_of_mean(shifts))


def rounds_needed(ratio: Estimate, n_rounds: int, other: float) -> int | None:
    """How many rounds it takes to tell a ratio from another one, if further rounds scatter as these n_rounds did; None
    where MOST_ROUNDS are not enough, or nothing is known of the scatter.

    ratio: with its interval, which is as wide to both sides on a logarithmic scale. other: above 0.
    """
    if ratio.low is None or n_rounds < 2:
        return None
    distance = abs(math.log(ratio.value / other))
    deviation = math.log(ratio.high / ratio.value) / t_quantile(n_rounds - 1) * math.sqrt(n_rounds)
    enough = (n for n in range(n_rounds, MOST_ROUNDS + 1) if t_quantile(n - 1) * deviation / math.sqrt(n) < distance)
    return next(enough, None)


def _test_of_shift(shift: float, variance: float, freedom: float) -> RatioTest:
    """shift: the difference of two means of logarithms, with its squared standard error."""
    from scipy.special import stdtr

    p_value = 2 * stdtr(freedom, -abs(shift) / math.sqrt(variance)) if variance else shift == 0
    return RatioTest(*map(math.exp, _around(shift, variance, freedom)), float(p_value))


def significant(tests: Sequence[RatioTest], level: float = LEVEL) -> list[bool]:
    """Which tests show a difference, so that all of these statements together are right with probability level.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian J. of Statistics 6, 1979.
    """
    called = [False] * len(tests)
    for rank, index in enumerate(sorted(range(len(tests)), key=lambda i: tests[i].p_value)):
        if tests[index].p_value > (1 - level) / (len(tests) - rank):
            break
        called[index] = True
    return called


def percentile(samples: Sequence[float], percent: float) -> float:
    """By linear interpolation between the two nearest samples; numpy's takes a hundred times as long for a few."""
    ordered = sorted(samples)
    position = (len(ordered) - 1) * percent / 100
    low = math.floor(position)
    return ordered[low] + (ordered[math.ceil(position)] - ordered[low]) * (position - low)


def outliers(samples: Sequence[float]) -> int | None:
    """How many samples lie outside Tukey's fences (Exploratory Data Analysis, 1977): beyond the quartiles by 1.5
    interquartile ranges. None for fewer than five samples. They are counted, never dropped."""
    if len(samples) < _FEW:
        return None
    low, high = percentile(samples, 25), percentile(samples, 75)
    reach = 1.5 * (high - low)
    return sum(not low - reach <= s <= high + reach for s in samples)


def drift(samples: Sequence[float]) -> float | None:
    """The change from first to last as a part of the median, where there is a trend; else 0. None for fewer than five.

    A trend is one by the test of Mann and Kendall, at a level of 5 %; its size is that of median_slope.
    """
    if len(samples) < _FEW:
        return None
    if _trend_p_value(samples) > 0.05:
        return 0.0
    return median_slope(list(enumerate(samples))) * (len(samples) - 1) / percentile(samples, 50)


def median_slope(points: Sequence[tuple[int, float]]) -> float:
    """Of all pairs of points (Sen, J. of the American Statistical Association 63, 1968)."""
    return percentile([(later - sooner) / (j - i) for (i, sooner), (j, later) in combinations(points, 2)], 50)


def _trend_p_value(samples: Sequence[float]) -> float:
    """How often chance makes samples rise or fall so much from first to last (Mann, Econometrica 13, 1945; with ties
    as in Kendall, Rank Correlation Methods, 1975).

    scipy.stats has the same test, and takes half a second to be imported, in the process of every cell.
    """
    rises = sum((later > sooner) - (later < sooner) for sooner, later in combinations(samples, 2))
    if rises == 0:
        return 1.0
    variance = _rank_variance(len(samples)) - sum(map(_rank_variance, Counter(samples).values()))
    return math.erfc((abs(rises) - 1) / math.sqrt(2 * variance))


def _rank_variance(n: int) -> float:
    """Of the number of pairs that rise less those that fall, among so many samples in random order."""
    return n * (n - 1) * (2 * n + 5) / 18


def agree(samples: Sequence[float], tolerance: float) -> bool:
    """Whether the last two differ by at most this part of the smaller."""
    return len(samples) > 1 and abs(samples[-1] - samples[-2]) <= tolerance * min(samples[-2:])


def _units(groups: Groups) -> Sequence[float]:
    """What varies independently: the means of processes, or the calls of a single one."""
    return [mean(samples) for samples in groups] if len(groups) > 1 else groups[0]


def _variance_of_mean(samples: Sequence[float]) -> tuple[float | None, float]:
    """(squared standard error, degrees of freedom)."""
    deviation = standard_deviation(samples)
    return None if deviation is None else deviation**2 / len(samples), len(samples) - 1


def _welch(samples: Sequence[float], others: Sequence[float]) -> tuple[float | None, float]:
    """(squared standard error of the difference of means, Welch and Satterthwaite's degrees of freedom)."""
    (a, n), (b, m) = _variance_of_mean(samples), _variance_of_mean(others)
    if a is None or b is None:
        return None, 0
    return a + b, (a + b) ** 2 / (a**2 / n + b**2 / m) if a + b > 0 else n + m


def _around(value: float, variance: float | None, freedom: float) -> Estimate:
    """The t interval of a mean around its value."""
    if variance is None:
        return Estimate(value)
    half_width = t_quantile(freedom) * math.sqrt(variance)
    return Estimate(value, value - half_width, value + half_width)


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
