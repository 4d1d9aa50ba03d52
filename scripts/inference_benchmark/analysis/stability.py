"""Whether the samples of a cell repeat well enough to rely on their means."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from inference_benchmark.analysis import descriptive
from inference_benchmark.analysis.descriptive import mean, outliers, percentile, standard_deviation
from inference_benchmark.analysis.metrics import FIRST_TOKEN_ALLOWANCE, NO_PRIORS, Priors
from inference_benchmark.analysis.scatter import Prior
from inference_benchmark.analysis.statistics import Groups, estimate
from inference_benchmark.units import format_half_width

#: pyperf check: a standard deviation over 10 % of the mean, a sample 50 % off, values under 1 ms.
SPREAD_LIMIT, EXTREME_LIMIT, SHORTEST_S = 0.10, 0.50, 1e-3
#: Begins the names of reasons about the calls for one token. The others are about the whole calls.
FIRST_TOKEN = "first-token-"
#: A trend of more than this from first to last call is flagged.
DRIFT_LIMIT = 0.02


class Verdict(NamedTuple):
    """reasons: the rules that a cell breaks, each with its evidence; none for a stable cell. outliers: among the whole
    calls of all processes. drift: of the whole calls. Both are None below five samples."""

    reasons: dict[str, str]
    outliers: int | None
    drift: float | None


def stability(
    settled: Iterable[bool],
    whole_s: Groups,
    first_token_s: Groups = (),
    priors: Priors = NO_PRIORS,
    *,
    warmup_tolerance: float,
    target_half_width: float,
    max_warmup_calls: int,
) -> Verdict:
    """The stability of a cell's calls, each of its timed parts by itself. settled: whether each warm-up has. whole_s,
    first_token_s: seconds of its calls by process; the latter empty where only one token is generated. priors: of all
    cells of its run."""
    reasons: dict[str, str] = {}
    if not all(settled):
        reasons["warm-up"] = (
            f"after {max_warmup_calls} warm-up calls the last two still differed by more than "
            f"{warmup_tolerance:.0%}; raise max_warmup_calls"
        )
    reasons |= _broken(whole_s, priors.whole, target_half_width, "new_tokens")
    if first_token_s:
        target = target_half_width * FIRST_TOKEN_ALLOWANCE
        of_first_token = _broken(first_token_s, priors.first_token, target, "prompt_tokens")
        reasons |= {f"{FIRST_TOKEN}{name}": f"first token: {message}" for name, message in of_first_token}
    counts = [n for n in map(outliers, whole_s) if n is not None]
    return Verdict(reasons, sum(counts) if counts else None, _drift(whole_s))


def _drift(samples_s: Groups) -> float | None:
    """The median over the processes. The speed of the machine drifts in one process or another; that of a cell does in
    most of them. None where all have fewer than five samples."""
    drifts = [each for each in map(descriptive.drift, samples_s) if each is not None]
    return percentile(drifts, 50) if drifts else None


def _broken(samples_s: Groups, prior: Prior, target_half_width: float, length: str) -> Iterator[tuple[str, str]]:
    """The rules that the calls of one part break, each with its evidence. prior: as of estimate. length: the setting
    that makes a call longer.

    The rules on spread are those of ``pyperf check``. They are for a single process; of several the interval says how
    much their calls matter.
    """
    interval, everything = estimate(samples_s, prior), [s for samples in samples_s for s in samples]
    if interval.half_width is None or interval.half_width > target_half_width:
        width = "unknown" if interval.half_width is None else f"±{format_half_width(interval.half_width)}"
        remedy = "raise rounds" if len(samples_s) > 1 else "raise max_seconds, or keep the machine quiet"
        yield "interval", f"the 95 % interval is {width}, the target ±{format_half_width(target_half_width)}; {remedy}"
    centre, deviation, is_single = mean(everything), standard_deviation(everything), len(samples_s) == 1
    if is_single and deviation is not None and deviation > SPREAD_LIMIT * centre:
        yield "spread", f"the standard deviation is {deviation / centre:.0%} of the mean"
    furthest = max(everything, key=lambda s: abs(s - centre))
    if is_single and abs(furthest / centre - 1) > EXTREME_LIMIT:
        yield "extreme", f"one call of {furthest:.4g} s is {abs(furthest / centre - 1):.0%} off the mean"
    trend = _drift(samples_s) or 0
    if abs(trend) > DRIFT_LIMIT:
        yield "drift", f"calls became {abs(trend):.1%} {'slower' if trend > 0 else 'faster'} from first to last"
    if centre < SHORTEST_S:
        yield "short", f"a call takes {centre:.2g} s, too short for a clock to tell; raise {length}"
