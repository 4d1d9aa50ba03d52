"""How sure a mean is, and what stands against believing it. Pure functions of raw samples.

Samples are grouped by the process that took them: ``[[s, s, s], [s, s, s]]`` are two processes of three.
Within one process every sample shares its memory layout, its placement and its threads, so that samples
of one process agree better than processes do. Where there are several, the interval is one of their
means, with a degree of freedom per process (Kalibera and Jones, "Rigorous benchmarking in reasonable
time", ISMM 2013, section 6); where there is one, it can only say how well that process repeats itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LEVEL = 0.95

#: Tukey, Exploratory Data Analysis, 1977: samples beyond the quartiles by this many interquartile ranges.
_FENCE = 1.5
#: Fewer samples have no quartiles, and no order to see a trend in, worth the name.
_FEW = 5
#: A trend is flagged where chance explains it this rarely, and it amounts to this much from first to last.
_DRIFT_P, DRIFT_LIMIT = 0.05, 0.02
#: pyperf check: a standard deviation over 10 % of the mean, a sample 50 % off, values under 1 ms.
SPREAD_LIMIT, EXTREME_LIMIT, SHORTEST_S = 0.10, 0.50, 1e-3

Groups = Sequence[Sequence[float]]


class Estimate(NamedTuple):
    """A value and its interval at LEVEL; low and high are None where nothing is known of it."""

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


class Comparison(NamedTuple):
    """ratio: new over base. low, high: its interval. p_value: of the two having the same mean."""

    ratio: float
    low: float
    high: float
    p_value: float


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


def difference(groups: Groups, others: Groups) -> Estimate:
    """The mean of groups less that of others, which the same processes took.

    With several processes the differences are taken process by process; with one, the two sets of calls
    are independent (Welch, Biometrika 34, 1947).
    """
    if len(groups) > 1:
        return estimate([[mean(a) - mean(b) for a, b in zip(groups, others, strict=True)]])
    return _around(mean(groups[0]) - mean(others[0]), *_welch(groups[0], others[0]))


def compare(base: Groups, new: Groups) -> Comparison | None:
    """Welch's t test on the logarithms of what varies: processes where there are several, else calls.

    None where a side has a single value, so that nothing is known of its spread.
    """
    logs = [[math.log(unit) for unit in _units(groups)] for groups in (base, new)]
    if min(map(len, logs)) < 2:
        return None
    from scipy.special import stdtr

    shift = mean(logs[1]) - mean(logs[0])
    variance, freedom = _welch(*logs)
    if variance == 0:
        p_value = 1.0 if shift == 0 else 0.0
    else:
        p_value = float(2 * stdtr(freedom, -abs(shift) / math.sqrt(variance)))
    return Comparison(*map(math.exp, _around(shift, variance, freedom)), p_value)


def different(comparisons: Sequence[Comparison], level: float = LEVEL) -> list[bool]:
    """Which of them to call different, so that all of them together are right with probability level.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian J. of Statistics 6, 1979.
    """
    order = sorted(range(len(comparisons)), key=lambda i: comparisons[i].p_value)
    called = [False] * len(comparisons)
    for rank, index in enumerate(order):
        if comparisons[index].p_value > (1 - level) / (len(comparisons) - rank):
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
    """How many samples lie outside Tukey's fences; None for fewer than five. They are counted, never dropped."""
    if len(samples) < _FEW:
        return None
    low, high = percentile(samples, 25), percentile(samples, 75)
    reach = _FENCE * (high - low)
    return sum(not low - reach <= s <= high + reach for s in samples)


def drift(samples: Sequence[float]) -> float | None:
    """The change from first to last as a part of the median, where there is a trend; else 0. None for fewer than five.

    A trend is one by Kendall's test of the samples against their order (Mann, Econometrica 13, 1945); its
    size is the median of the slopes between all pairs (Sen, J. of the American Statistical Association 63, 1968).
    """
    if len(samples) < _FEW:
        return None
    if min(samples) == max(samples):
        return 0.0
    from scipy import stats

    order = range(len(samples))
    if stats.kendalltau(order, samples).pvalue > _DRIFT_P:
        return 0.0
    return float(stats.theilslopes(samples, order).slope * (len(samples) - 1) / percentile(samples, 50))


# -- when to stop --------------------------------------------------------------------------------


def agree(samples: Sequence[float], tolerance: float) -> bool:
    """Whether the last two differ by at most this part of the smaller."""
    return len(samples) > 1 and abs(samples[-1] - samples[-2]) <= tolerance * min(samples[-2:])


def enough(samples_s: Sequence[float], measurement: Mapping[str, Any]) -> bool:
    """Whether a process has repeated its call often enough: min_cycles and min_seconds, then until the
    interval's half width is under the target, or max_seconds are over."""
    elapsed_s = math.fsum(samples_s)
    if len(samples_s) < measurement["min_cycles"] or elapsed_s < measurement["min_seconds"]:
        return False
    return elapsed_s >= measurement["max_seconds"] or estimate([samples_s]).half_width <= target(measurement)


def target(measurement: Mapping[str, Any]) -> float:
    """The half width to reach, as a part of the mean."""
    return measurement["target_half_width_percent"] / 100


# -- the verdict ---------------------------------------------------------------------------------


def stability(warmups: Groups, groups: Groups, measurement: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a cell's end-to-end samples repeat well enough to be relied on, and why not.

    Returns stable, reasons (each a name and a message), outliers and drift (the largest of any process), for
    the record. The rules on spread are those of ``pyperf check``.
    """
    tolerance = measurement["warmup_tolerance_percent"] / 100
    found, everything = estimate(groups), [s for samples in groups for s in samples]
    reasons: dict[str, str] = {}
    if not all(agree(calls, tolerance) for calls in warmups):
        reasons["warm-up"] = (
            f"after {measurement['max_warmup_calls']} warm-up calls the last two still differed by more than "
            f"{tolerance:.0%}; raise max_warmup_calls"
        )
    if found.half_width is None or found.half_width > target(measurement):
        width = "unknown" if found.half_width is None else f"±{found.half_width:.1%}"
        reasons["interval"] = f"the 95 % interval is {width}, the target ±{target(measurement):.1%}; " + (
            "raise processes" if len(groups) > 1 else "raise max_seconds, or keep the machine quiet"
        )
    centre, deviation = mean(everything), standard_deviation(everything)
    if deviation is not None and deviation > SPREAD_LIMIT * centre:
        reasons["spread"] = f"the standard deviation is {deviation / centre:.0%} of the mean"
    furthest = max(everything, key=lambda s: abs(s - centre))
    if abs(furthest / centre - 1) > EXTREME_LIMIT:
        reasons["extreme"] = f"one call of {furthest:.4g} s is {abs(furthest / centre - 1):.0%} off the mean"
    drifts = [d for d in map(drift, groups) if d is not None]
    trend = max(drifts, key=abs, default=None)
    if trend is not None and abs(trend) > DRIFT_LIMIT:
        reasons["drift"] = f"calls became {abs(trend):.1%} {'slower' if trend > 0 else 'faster'} from first to last"
    if centre < SHORTEST_S:
        reasons["short"] = f"a call takes {centre:.2g} s, too short for a clock to tell; raise new_tokens"
    counts = [n for n in map(outliers, groups) if n is not None]
    return {
        "stable": not reasons,
        "reasons": [{"name": name, "message": message} for name, message in reasons.items()],
        "outliers": sum(counts) if counts else None,
        "drift": trend,
    }


# -- how t intervals are made --------------------------------------------------------------------


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
    from scipy.special import stdtrit

    half_width = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * math.sqrt(variance)
    return Estimate(value, value - half_width, value + half_width)
