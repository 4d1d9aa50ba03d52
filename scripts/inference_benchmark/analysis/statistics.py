"""Means with their intervals, and tests. Pure functions of raw samples.

Samples are grouped by the process that took them: ``[[s, s, s], [s, s, s]]`` are two processes of three. All samples of
one process share its memory layout, placement and threads, so they agree better than processes do. With several
processes the interval is that of their means, with a degree of freedom per process (Kalibera and Jones, "Rigorous
benchmarking in reasonable time", ISMM 2013, section 6). With one process it only says how well that repeats itself.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from inference_benchmark.analysis.descriptive import mean
from inference_benchmark.analysis.scatter import LEVEL, NO_PRIOR, Prior, Scatter, prior, scatter_of, t_quantile
from inference_benchmark.analysis.unseen import Around, unseen

#: More rounds than this are not asked for.
MOST_ROUNDS = 1000
#: The fewest rounds whose interval says something: of two, t is 12.7.
FEWEST_ROUNDS = 3
#: Of the target that more rounds are planned for: by what they were planned for, half of the intervals would miss it.
_PLANNED = 0.9

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


def priors_of_processes(cells: Sequence[Groups], around: Sequence[Around] = ()) -> list[Prior]:
    """The prior of the means of processes for each cell of a run. around: the speed of the machine, for each cell; ()
    if it is known for none."""
    return _priors([_logs(groups) for groups in cells], around)


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


def estimate(groups: Groups, prior: Prior = NO_PRIOR) -> Estimate:
    """The geometric mean over processes of their means; of a single process the mean of its calls. The interval is the
    t interval of its logarithm, which never reaches zero. prior: of the means of processes."""
    if len(groups) > 1:
        logs = _logs(groups)
        return _around(math.exp(mean(logs)), scatter_of(logs).moderated(prior).of_mean(len(logs)))
    (calls,) = groups
    centre, scatter = mean(calls), scatter_of(calls)
    # The relative error of a mean is nearly the error of its logarithm (delta method).
    return _around(centre, scatter and Scatter(scatter.variance / centre**2, scatter.freedom).of_mean(len(calls)))


def difference(groups: Groups, others: Groups, prior: Prior = NO_PRIOR) -> Estimate | None:
    """How much longer groups take than others, which the same processes took; None where that is no more than noise.

    With several processes it is the estimate of the differences of their means; with one, the two sets of calls are
    independent (Welch, Biometrika 34, 1947). prior: of the differences.
    """
    differences = _differences(groups, others)
    if not min(differences) > 0:
        return None
    if len(groups) > 1:
        logs = [math.log(each) for each in differences]
        value, scatter = math.exp(mean(logs)), scatter_of(logs).moderated(prior).of_mean(len(logs))
    else:
        (value,) = differences
        sides = [scatter_of(calls) for (calls,) in (groups, others)]
        if None in sides:
            return None
        scatter = _welch(*(each.of_mean(each.freedom + 1) for each in sides))
        scatter = scatter._replace(variance=scatter.variance / value**2)
    return _around(value, scatter) if scatter.reach < 1 else None


def priors_of_differences(cells: Sequence[tuple[Groups, Groups]], around: Sequence[Around] = ()) -> list[Prior]:
    """The prior of the differences of the means of processes for each cell, from those in which all are above 0."""
    differences = [_differences(*each) for each in cells]
    logs = [[math.log(each) for each in of_cell] if min(of_cell, default=0) > 0 else [] for of_cell in differences]
    return _priors(logs, around)


def _priors(cells: Sequence[Sequence[float]], around: Sequence[Around]) -> list[Prior]:
    """cells: of each the logarithms of what its processes took."""
    of_all = prior([scatter_of(logs) for logs in cells if len(logs) > 1])
    return [of_all._replace(unseen=variance) for variance in unseen(cells, around or [()] * len(cells))]


def _differences(groups: Groups, others: Groups) -> list[float]:
    """Process by process."""
    return [mean(a) - mean(b) for a, b in zip(groups, others, strict=True)]


def ratio_test(base: Groups, new: Groups, priors: Sequence[Prior] = (NO_PRIOR, NO_PRIOR)) -> RatioTest | None:
    """Welch's t test on the logarithms of what varies: the means of processes, or the calls of a single process.

    priors: of the means of processes in the sets of base and new. None where a side has a single value, so that its
    scatter is unknown.
    """
    means, scatters = [], []
    for groups, of_set in zip((base, new), priors, strict=True):
        logs = _logs(groups if len(groups) > 1 else [[seconds] for seconds in groups[0]])
        if len(logs) < 2:
            return None
        scatter = scatter_of(logs).moderated(of_set if len(groups) > 1 else NO_PRIOR)
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
    scatters = [scatter_of(shifts) for shifts in cells]
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


def rounds_to_reach(half_width: float, groups: Groups, most: int, prior: Prior = NO_PRIOR) -> int:
    """How many rounds bring half of the interval of their mean below a part of it, if further rounds scatter as these
    did; at least these, and at most so many. Where these are not enough, below _PLANNED of it.

    groups: the samples of each round. prior: of the means of processes. A single round does not show how rounds
    scatter: where even the interval of its calls is too wide, FEWEST_ROUNDS are asked for.
    """
    if len(groups) == 1:
        reached = estimate(groups).half_width
        return 1 if reached is not None and reached <= half_width else min(FEWEST_ROUNDS, most)
    now = scatter_of(_logs(groups)).moderated(prior)
    # The interval is from value * exp(-reach) to value * exp(reach).
    if now.of_mean(len(groups)).reach < math.asinh(half_width):
        return len(groups)
    return _fewest_rounds(now, len(groups), most, math.asinh(_PLANNED * half_width)) or most


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
