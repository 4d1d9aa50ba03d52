"""Samples by themselves: means, percentiles, outliers and trends. Pure functions."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean as mean

#: Fewer samples have no quartiles, and no order to see a trend in, worth the name.
_FEW = 5


def standard_deviation(samples: Sequence[float]) -> float | None:
    """Of the sample (n - 1); None for fewer than two."""
    if len(samples) < 2:
        return None
    centre = mean(samples)
    return math.sqrt(math.fsum((s - centre) ** 2 for s in samples) / (len(samples) - 1))


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


def settled(calls_s: Sequence[float], compiled: int, tolerance: float) -> bool:
    """Whether warm-up calls have settled: the last two agree. compiled: how many are up to the last that compiled.
    They are compared with none; one more is enough, because a call that compiles does all other one-time work too."""
    return len(calls_s) > compiled if compiled else agree(calls_s, tolerance)
