"""How far one set of answers is from another, worked out by hand."""

from __future__ import annotations

import math

import numpy
import pytest

from inference_benchmark.analysis import divergence


def test_equal_answers_differ_in_nothing():
    tokens, logits = numpy.array([[1, 2], [0, 1]]), numpy.random.default_rng(0).normal(size=(2, 2, 3))
    result = divergence.divergence(tokens, tokens, logits, logits + 5)  # a constant changes no probability
    assert (result["token_agreement"], result["first_difference"]) == (1.0, [None, None])
    assert result["logits_error"]["max"] == pytest.approx(0, abs=1e-12)
    assert result["kl_nats"]["max"] == pytest.approx(0, abs=1e-12)


def test_differing_answers_differ_as_worked_out_by_hand():
    wanted, tokens = numpy.array([[0, 1, 1]]), numpy.array([[0, 0, 1]])
    # Two tokens: wanted logits (1, -1), (-1, 1), (0, 2); found (1, -1), (1, -1), (0, 2).
    wanted_logits = numpy.array([[[1.0, -1.0], [-1.0, 1.0], [0.0, 2.0]]])
    logits = numpy.array([[[1.0, -1.0], [1.0, -1.0], [0.0, 2.0]]])
    result = divergence.divergence(wanted, tokens, wanted_logits, logits)
    assert result["token_agreement"] == pytest.approx(2 / 3)
    assert result["first_difference"] == [1]
    assert result["next_token_agreement"] == pytest.approx(2 / 3)
    assert result["logits_error"] == {"mean": pytest.approx(2 / 3), "max": pytest.approx(2)}
    # p = 1 / (1 + e^-2) for the likelier token; both swapped: KL = (2p - 1) x 2.
    p = 1 / (1 + math.exp(-2))
    assert result["kl_nats"] == {"mean": pytest.approx((2 * p - 1) * 2 / 3), "max": pytest.approx((2 * p - 1) * 2)}


def test_logits_that_are_no_numbers_give_no_figure():
    tokens, logits = numpy.array([[0]]), numpy.array([[[1.0, 2.0]]])
    result = divergence.divergence(tokens, tokens, logits, numpy.array([[[1.0, float("nan")]]]))
    assert result["logits_error"] == result["kl_nats"] == {"mean": None, "max": None}


def test_a_gap_is_in_standard_deviations_of_all_logits():
    assert divergence.gap(numpy.array([1.0, 3.0, 5.0, 7.0]), 3, 1) == pytest.approx(4 / 5**0.5)
    assert math.isnan(divergence.gap(numpy.array([1.0, float("nan")]), 0, 1))
