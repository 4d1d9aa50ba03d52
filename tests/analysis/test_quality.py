"""How well a text is predicted, worked out by hand."""

from __future__ import annotations

import math

import numpy
import pytest

from inference_benchmark.analysis import quality
from inference_benchmark.analysis.figures import BY_GROUP, BY_NAME, estimates


def window(nll: float, reference: float, kl: list[float], same_best: int = 0) -> dict:
    return {"nll_nats": nll, "reference_nll_nats": reference, "kl_nats": kl, "same_best": same_best}


def test_a_window_is_scored_as_worked_out_by_hand():
    # Two tokens of equal logits, and then the first three times as likely, against the reverse in the reference.
    logits = numpy.log(numpy.array([[1, 1], [3, 1]], dtype=numpy.float32))
    expected = numpy.log(numpy.array([[2, 2], [1, 3]], dtype=numpy.float32))
    found = quality.scores(numpy.array([1, 0]), expected, logits)
    assert found["nll_nats"] == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert found["reference_nll_nats"] == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert found["kl_nats"] == pytest.approx([0, math.log(3) / 2], abs=1e-6)
    assert found["same_best"] == 1


def test_logits_that_are_no_numbers_give_no_figure():
    logits = numpy.array([[1, math.nan]], dtype=numpy.float32)
    found = quality.scores(numpy.array([0]), numpy.zeros((1, 2), dtype=numpy.float32), logits)
    assert (found["nll_nats"], found["kl_nats"]) == (None, None)
    assert estimates("quality", [found, window(1, 1, [0.0])]) == {}


def test_figures_are_those_worked_out_by_hand():
    windows = [window(1.0, 0.9, [0.1, 0.3], 2), window(3.0, 2.8, [0.0, 0.2], 1)]
    found = estimates("quality", windows)
    t = 12.7062  # of one degree of freedom
    perplexity, ratio, kl, _, same = (found[figure.name] for figure in BY_GROUP["quality"])
    assert perplexity == pytest.approx([math.exp(2 + sign * t) for sign in (0, -1, 1)], rel=1e-4)
    # Each window differs from the reference by about the same, however hard it is.
    assert ratio == pytest.approx([math.exp(0.15 + sign * t * 0.05) for sign in (0, -1, 1)], rel=1e-4)
    assert kl == pytest.approx([0.15, 0, 0.15 + t * 0.05], rel=1e-4)
    assert same == pytest.approx([0.75, 0, 1])
    assert BY_NAME["text_perplexity_ratio"].text_of(ratio) == "1.162 (0.616 to 2.193)"


def test_the_reference_beside_itself_is_exactly_that():
    windows = [window(1.0, 1.0, [0.0] * 100, 100), window(3.0, 3.0, [0.0] * 100, 100)]
    _, ratio, kl, p99, same = (figure.estimate(windows) for figure in BY_GROUP["quality"])
    assert (ratio, kl, p99, same) == ((1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1))


def test_a_99th_percentile_that_may_be_the_largest_has_no_interval():
    random = numpy.random.default_rng(0)
    kl = [window(1, 1, list(random.exponential(size=255))) for _ in range(2)]
    assert quality.kl_p99_nats(kl).low is None
    assert BY_NAME["text_kl_p99_nats"].text_of(quality.kl_p99_nats(kl))


def test_a_perplexity_beyond_all_numbers_is_no_figure():
    assert quality.perplexity([window(800, 1, [1.0]), window(801, 1, [1.0])]) is None


def test_intervals_cover_the_truth():
    """Of 32 windows that differ: of the mean 95 %, of the 99th percentile a little less."""
    random, hits, tries = numpy.random.default_rng(1), {"mean": 0, "p99": 0}, 300

    def drawn(n_windows: int) -> numpy.ndarray:
        return numpy.exp(random.normal(0, 0.3, size=(n_windows, 1))) * random.exponential(size=(n_windows, 255))

    everything = drawn(4000)
    truth = {"mean": everything.mean(), "p99": numpy.percentile(everything, 99)}
    for _ in range(tries):
        windows = [window(1, 1, list(each)) for each in drawn(32)]
        for name, formula in (("mean", quality.kl_mean_nats), ("p99", quality.kl_p99_nats)):
            _, low, high = formula(windows)
            hits[name] += low is None or low <= truth[name] <= high
    assert 0.92 <= hits["mean"] / tries <= 0.98
    assert 0.89 <= hits["p99"] / tries <= 0.98
