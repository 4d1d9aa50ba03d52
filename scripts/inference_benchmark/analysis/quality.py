"""How well a model predicts a text, and how far its predictions are from the reference's. Pure functions.

A text is cut into windows of WINDOW_TOKENS that do not overlap; what is left at its end is not used. A model predicts
the tokens of the second half of each window, each from all tokens of the window before it. This is the definition of
llama.cpp's perplexity tool (tools/perplexity/perplexity.cpp, with its default context), which gives the same perplexity
for the same tokens.

Intervals are Student's, of the means of windows. A difference from the reference is taken window by window, so that a
window that is hard for both does not widen its interval.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inference_benchmark.analysis.descriptive import mean, percentile, standard_deviation
from inference_benchmark.analysis.scatter import t_quantile
from inference_benchmark.analysis.statistics import Estimate

if TYPE_CHECKING:
    import numpy

WINDOW_TOKENS = 512
#: The first scored token is predicted from so many, more than half of the window.
PROMPT_TOKENS = WINDOW_TOKENS // 2 + 1
SCORED_TOKENS = WINDOW_TOKENS - PROMPT_TOKENS
#: Fewer have no interval.
FEWEST_WINDOWS = 2

#: The results of a quality study: a mapping for each window, as ``scores`` makes it.
Windows = Sequence[Mapping[str, Any]]


def scores(tokens: numpy.ndarray, expected_logits: numpy.ndarray, logits: numpy.ndarray) -> dict[str, Any]:
    """One window. tokens: int64 (scored tokens,). expected_logits: of the reference; both float32 (scored tokens,
    vocabulary).

    nll_nats, reference_nll_nats: mean negative log likelihood of the tokens. kl_nats: Kullback-Leibler divergence from
    the reference for each. same_best: for how many both have the same best token. All but the last are None if a logit
    is not finite.
    """
    import numpy  # here, because Snakemake's process imports the catalogue of figures

    from inference_benchmark.analysis.divergence import kl_nats, log_probabilities

    nll, reference_nll, divergences, same_best = [], [], [], 0
    for token, *pair in zip(tokens, expected_logits, logits, strict=True):  # one at a time: float64 of all is large
        log_p, log_q = (log_probabilities(each.astype(numpy.float64)) for each in pair)
        reference_nll.append(-log_p[token])
        nll.append(-log_q[token])
        divergences.append(kl_nats(log_p, log_q))
        same_best += int(log_p.argmax() == log_q.argmax())
    found = {"nll_nats": None, "reference_nll_nats": None, "kl_nats": None, "same_best": same_best}
    if numpy.isfinite([nll, reference_nll, divergences]).all():
        found |= {"nll_nats": mean(nll), "reference_nll_nats": mean(reference_nll)}
        found["kl_nats"] = [max(float(f"{each:.6g}"), 0.0) for each in divergences]  # rounding
    return found


def perplexity(windows: Windows) -> Estimate | None:
    """exp of the mean negative log likelihood of a token."""
    return _exp(_mean([each["nll_nats"] for each in _finite(windows)]))


def perplexity_ratio(windows: Windows) -> Estimate | None:
    """The perplexity as a multiple of the reference's."""
    return _exp(_mean([each["nll_nats"] - each["reference_nll_nats"] for each in _finite(windows)]))


def kl_mean_nats(windows: Windows) -> Estimate | None:
    """The mean divergence from the reference over all tokens."""
    return _mean([mean(each["kl_nats"]) for each in _finite(windows)], least=0)


def kl_p99_nats(windows: Windows) -> Estimate | None:
    """Its 99th percentile over all tokens. The interval is between the percentiles that the share of tokens below it
    may be (Woodruff, "Confidence intervals for medians and other position measures", JASA 47, 1952); unknown where that
    may be all."""
    if not (windows := _finite(windows)):
        return None
    every = [value for each in windows for value in each["kl_nats"]]
    found = percentile(every, 99)
    share = _mean([mean([value <= found for value in each["kl_nats"]]) for each in windows])
    reach = 100 * (share.high - share.value)
    return Estimate(found, *(percentile(every, end) for end in (99 - reach, 99 + reach) if reach < 1))


def same_best(windows: Windows) -> Estimate | None:
    """The share of tokens in whose place the model and the reference have the same best token."""
    return _mean([each["same_best"] / len(each["kl_nats"]) for each in _finite(windows)], least=0, most=1)


def _finite(windows: Windows) -> Windows:
    """None of them where a logit of any is not finite."""
    return windows if all(each["kl_nats"] for each in windows) else ()


def _mean(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Estimate | None:
    """Of the values of windows, with its interval within what is possible; None without any."""
    if not values:
        return None
    value, reach = mean(values), t_quantile(len(values) - 1) * standard_deviation(values) / math.sqrt(len(values))
    return Estimate(value, max(value - reach, least), min(value + reach, most))


def _exp(estimate: Estimate | None) -> Estimate | None:
    """None also where a perplexity would be more than a float can be."""
    is_known = estimate is not None and estimate.high < math.log(sys.float_info.max)
    return Estimate(*map(math.exp, estimate)) if is_known else None
