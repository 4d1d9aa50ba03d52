"""Whether the samples of a cell repeat well enough to rely on their mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from inference_benchmark.analysis.descriptive import drift, mean, outliers, standard_deviation
from inference_benchmark.analysis.scatter import NO_PRIOR, Scatter
from inference_benchmark.analysis.statistics import Groups, estimate
from inference_benchmark.units import format_half_width

#: pyperf check: a standard deviation over 10 % of the mean, a sample 50 % off, values under 1 ms.
SPREAD_LIMIT, EXTREME_LIMIT, SHORTEST_S = 0.10, 0.50, 1e-3
#: A trend of more than this from first to last call is flagged.
DRIFT_LIMIT = 0.02


class Verdict(NamedTuple):
    """reasons: the rules that a cell breaks, each with its evidence; none for a stable cell. outliers: of all
    processes. drift: the largest of any process. Both are None below five samples."""

    reasons: dict[str, str]
    outliers: int | None
    drift: float | None


def stability(
    settled: Iterable[bool],
    samples_s: Groups,
    prior: Scatter = NO_PRIOR,
    *,
    warmup_tolerance: float,
    target_half_width: float,
    max_warmup_calls: int,
) -> Verdict:
    """The stability of a cell's end-to-end samples. settled: whether each warm-up has. prior: as of estimate.

    The rules on spread are those of ``pyperf check``. They are for a single process; of several the interval says how
    much their calls matter.
    """
    interval, everything = estimate(samples_s, prior), [s for samples in samples_s for s in samples]
    reasons: dict[str, str] = {}
    if not all(settled):
        reasons["warm-up"] = (
            f"after {max_warmup_calls} warm-up calls the last two still differed by more than "
            f"{warmup_tolerance:.0%}; raise max_warmup_calls"
        )
    if interval.half_width is None or interval.half_width > target_half_width:
        width = "unknown" if interval.half_width is None else f"±{format_half_width(interval.half_width)}"
        reasons["interval"] = f"the 95 % interval is {width}, the target ±{format_half_width(target_half_width)}; " + (
            "raise rounds" if len(samples_s) > 1 else "raise max_seconds, or keep the machine quiet"
        )
    centre, deviation, is_single = mean(everything), standard_deviation(everything), len(samples_s) == 1
    if is_single and deviation is not None and deviation > SPREAD_LIMIT * centre:
        reasons["spread"] = f"the standard deviation is {deviation / centre:.0%} of the mean"
    furthest = max(everything, key=lambda s: abs(s - centre))
    if is_single and abs(furthest / centre - 1) > EXTREME_LIMIT:
        reasons["extreme"] = f"one call of {furthest:.4g} s is {abs(furthest / centre - 1):.0%} off the mean"
    drifts = [d for d in map(drift, samples_s) if d is not None]
    trend = max(drifts, key=abs, default=None)
    if trend is not None and abs(trend) > DRIFT_LIMIT:
        reasons["drift"] = f"calls became {abs(trend):.1%} {'slower' if trend > 0 else 'faster'} from first to last"
    if centre < SHORTEST_S:
        reasons["short"] = f"a call takes {centre:.2g} s, too short for a clock to tell; raise new_tokens"
    counts = [n for n in map(outliers, samples_s) if n is not None]
    return Verdict(reasons, sum(counts) if counts else None, trend)
