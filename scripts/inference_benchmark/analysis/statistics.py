"""Means with their intervals, tests, outliers and trends. Pure functions of raw samples.

Samples are grouped by the process that took them: ``[[s, s, s], [s, s, s]]`` are two processes of three. All samples of
one process share its memory layout, placement and threads, so they agree better than processes do. With several
processes the interval is that of their means, with a degree of freedom per process (Kalibera and Jones, "Rigorous
benchmarking in reasonable time", ISMM 2013, section 6). With one process it only says how well that repeats itself.

Times are positive and vary by factors, so that variances are those of logarithms: squared relative deviations.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple

LEVEL = 0.95
#: Fewer samples have no quartiles, and no order to see a trend in, worth the name.
_FEW = 5
#: From fewer cells it is not known how cells scatter.
_LEAST_CELLS = 8
#: More rounds than this are not asked for.
MOST_ROUNDS = 1000
#: The fewest rounds whose interval says something: of two, t is 12.7.
FEWEST_ROUNDS = 3

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


class Scatter(NamedTuple):
    """The variance of logarithms, known with so many degrees of freedom."""

    variance: float
    freedom: float

    def moderated(self, prior: Scatter) -> Scatter:
        """With what is known from other cells."""
        freedom = prior.freedom + self.freedom
        return Scatter((prior.freedom * prior.variance + self.freedom * self.variance) / freedom, freedom)

    def of_mean(self, n: int) -> Scatter:
        """Of the mean of n such values."""
        return self._replace(variance=self.variance / n)

    @property
    def reach(self) -> float:
        """Half the t interval."""
        return t_quantile(self.freedom) * math.sqrt(self.variance)


#: Nothing is known from other cells.
NO_PRIOR = Scatter(0, 0)


def prior(cells: Sequence[Scatter]) -> Scatter:
    """What all cells of a run show about the scatter of each: the typical variance, and how many degrees of freedom it
    is worth beside a cell's own. Cells of one run scatter alike, and three rounds say little about a cell. NO_PRIOR for
    fewer than eight cells.

    By the moments of the logarithms of the variances: Smyth, "Linear models and empirical Bayes methods for assessing
    differential expression in microarray experiments", Stat. Appl. Genet. Mol. Biol. 3(1), 2004, section 6.2. As in his
    program limma, a variance is at least a 100,000th of the median, and the prior is worth no more than all cells.
    """
    least = 1e-5 * percentile([cell.variance for cell in cells], 50) if len(cells) >= _LEAST_CELLS else 0
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
    return Scatter(math.exp(mean(logs) + log_bias(freedom)), freedom)


def prior_of_processes(cells: Iterable[Groups]) -> Scatter:
    """The prior of the means of processes, from the cells with several of them."""
    return prior([_scatter(_logs(groups)) for groups in cells if len(groups) > 1])


def _inverse_trigamma(value: float) -> float:
    """By Newton's method on 1 / trigamma, which is convex and nearly straight (Smyth, 2004, appendix)."""
    from scipy.special import polygamma

    x, step = 0.5 + 1 / value, math.inf
    while abs(step) > 1e-9 * x:
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
    return x


class RatioTest(NamedTuple):
    """A test of two means. ratio: new over base. low, high: its interval at LEVEL. p_value: of equal means. freedom:
    degrees of freedom."""

    ratio: float
    low: float
    high: float
    p_value: float
    freedom: float

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


def estimate(groups: Groups, prior: Scatter = NO_PRIOR) -> Estimate:
    """The geometric mean over processes of their means; of a single process the mean of its calls. The interval is the
    t interval of its logarithm, which never reaches zero. prior: of the means of processes."""
    if len(groups) > 1:
        logs = _logs(groups)
        return _around(math.exp(mean(logs)), _scatter(logs).moderated(prior).of_mean(len(logs)))
    (calls,) = groups
    centre, scatter = mean(calls), _scatter(calls)
    # The relative error of a mean is nearly the error of its logarithm (delta method).
    return _around(centre, scatter and Scatter(scatter.variance / centre**2, scatter.freedom).of_mean(len(calls)))


def difference(groups: Groups, others: Groups, prior: Scatter = NO_PRIOR) -> Estimate | None:
    """How much longer groups take than others, which the same processes took; None where that is no more than noise.

    With several processes it is the estimate of the differences of their means; with one, the two sets of calls are
    independent (Welch, Biometrika 34, 1947). prior: of the differences.
    """
    differences = _differences(groups, others)
    if not min(differences) > 0:
        return None
    if len(groups) > 1:
        logs = [math.log(each) for each in differences]
        value, scatter = math.exp(mean(logs)), _scatter(logs).moderated(prior).of_mean(len(logs))
    else:
        (value,) = differences
        sides = [_scatter(calls) for (calls,) in (groups, others)]
        if None in sides:
            return None
        scatter = _welch(*(each.of_mean(each.freedom + 1) for each in sides))
        scatter = scatter._replace(variance=scatter.variance / value**2)
    return _around(value, scatter) if scatter.reach < 1 else None


def prior_of_differences(cells: Iterable[tuple[Groups, Groups]]) -> Scatter:
    """The prior of the differences of the means of processes, from the cells in which there are several above 0."""
    differences = (_differences(*each) for each in cells)
    return prior_of_processes([[each] for each in of_cell] for of_cell in differences if min(of_cell) > 0)


def _differences(groups: Groups, others: Groups) -> list[float]:
    """Process by process."""
    return [mean(a) - mean(b) for a, b in zip(groups, others, strict=True)]


def ratio_test(base: Groups, new: Groups, priors: Sequence[Scatter] = (NO_PRIOR, NO_PRIOR)) -> RatioTest | None:
    """Welch's t test on the logarithms of what varies: the means of processes, or the calls of a single process.

    priors: of the means of processes in the sets of base and new. None where a side has a single value, so that its
    scatter is unknown.
    """
    means, scatters = [], []
    for groups, prior in zip((base, new), priors, strict=True):
        logs = _logs(groups if len(groups) > 1 else [[seconds] for seconds in groups[0]])
        if len(logs) < 2:
            return None
        scatter = _scatter(logs).moderated(prior if len(groups) > 1 else NO_PRIOR)
        means.append(mean(logs))
        scatters.append(scatter.of_mean(len(logs)))
    return _test_of_shift(means[1] - means[0], _welch(*scatters))


def shifts_of_rounds(base: Mapping[int, Sequence[float]], new: Mapping[int, Sequence[float]]) -> list[float]:
    """The logarithm of new over base for each round that both have, from the mean of its samples. base, new: samples by
    round, each round of the two measured one right after the other. A round that slows both does not change it."""
    return [math.log(mean(new[number]) / mean(base[number])) for number in base if number in new]


def paired_ratio_tests(cells: Sequence[Sequence[float]]) -> list[RatioTest | None]:
    """Student's t test on the shifts of the rounds of each cell, with the scatter of all; None for a cell with fewer
    than two rounds."""
    scatters = [_scatter(shifts) for shifts in cells]
    of_all = prior(list(filter(None, scatters)))
    return [
        scatter and _test_of_shift(mean(shifts), scatter.moderated(of_all).of_mean(len(shifts)))
        for shifts, scatter in zip(cells, scatters, strict=True)
    ]


def rounds_needed(ratio: Estimate, n_rounds: int, freedom: float, other: float) -> int | None:
    """How many rounds it takes to tell a ratio from another one, if further rounds scatter as these n_rounds did; None
    where MOST_ROUNDS are not enough, or nothing is known of the scatter.

    ratio: with its interval, which is as wide to both sides on a logarithmic scale. freedom: its degrees of freedom.
    other: above 0.
    """
    if ratio.low is None or n_rounds < 2:
        return None
    distance = abs(math.log(ratio.value / other))
    now = Scatter((math.log(ratio.high / ratio.value) / t_quantile(freedom)) ** 2 * n_rounds, freedom)
    return _fewest_rounds(now, n_rounds, MOST_ROUNDS, distance)


def rounds_to_reach(half_width: float, groups: Groups, most: int, prior: Scatter = NO_PRIOR) -> int:
    """How many rounds bring half of the interval of their mean below a part of it, if further rounds scatter as these
    did; at least these, and at most so many.

    groups: the samples of each round. prior: of the means of processes. A single round does not show how rounds
    scatter: where even the interval of its calls is too wide, FEWEST_ROUNDS are asked for.
    """
    if len(groups) == 1:
        reached = estimate(groups).half_width
        return 1 if reached is not None and reached <= half_width else min(FEWEST_ROUNDS, most)
    now = _scatter(_logs(groups)).moderated(prior)
    # The interval is from value * exp(-reach) to value * exp(reach).
    return _fewest_rounds(now, len(groups), most, math.asinh(half_width)) or most


def _fewest_rounds(now: Scatter, n_rounds: int, most: int, reach: float) -> int | None:
    """How many rounds make the t interval of their mean narrower than this to either side, if further rounds scatter as
    these n_rounds did; None where so many are not enough."""
    numbers = range(n_rounds, most + 1)
    after = [now._replace(freedom=now.freedom + n - n_rounds).of_mean(n) for n in numbers]
    index = bisect_left(after, True, key=lambda scatter: scatter.reach < reach)
    return numbers[index] if index < len(numbers) else None


def _test_of_shift(shift: float, scatter: Scatter) -> RatioTest:
    """shift: the difference of two means of logarithms. scatter: of that difference."""
    from scipy.special import stdtr

    error = math.sqrt(scatter.variance)
    p_value = 2 * stdtr(scatter.freedom, -abs(shift) / error) if error else shift == 0
    return RatioTest(*_around(math.exp(shift), scatter), float(p_value), scatter.freedom)


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


def _scatter(values: Sequence[float]) -> Scatter | None:
    deviation = standard_deviation(values)
    return None if deviation is None else Scatter(deviation**2, len(values) - 1)


def _logs(groups: Groups) -> list[float]:
    """Of the means of processes."""
    return [math.log(mean(samples)) for samples in groups]


def _welch(one: Scatter, other: Scatter) -> Scatter:
    """Of the difference of two means, with Welch and Satterthwaite's degrees of freedom."""
    (a, n), (b, m) = one, other
    return Scatter(a + b, (a + b) ** 2 / (a**2 / n + b**2 / m) if a + b > 0 else n + m)


def _around(value: float, scatter: Scatter | None) -> Estimate:
    """A value with the interval of its logarithm; None: unknown."""
    if scatter is None:
        return Estimate(value)
    factor = math.exp(scatter.reach)
    return Estimate(value, value / factor, value * factor)


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
