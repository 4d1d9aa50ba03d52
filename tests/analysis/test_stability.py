"""Whether samples repeat well enough, and why not."""

from __future__ import annotations

import pytest

from inference_benchmark.analysis.descriptive import settled
from inference_benchmark.analysis.metrics import Priors
from inference_benchmark.analysis.scatter import Prior
from inference_benchmark.analysis.stability import stability

STEADY = [1.000, 1.001, 0.999, 1.000, 1.001]
SETTINGS = {"warmup_tolerance": 0.05, "target_half_width": 0.01, "max_warmup_calls": 5}


def verdict(groups, warmups=((1.0, 1.0),), **settings):
    return stability([settled(calls, 0, 0.05) for calls in warmups], groups, **SETTINGS | settings)


def of_first_tokens(groups, **settings) -> set[str]:
    return set(stability([True], [STEADY], groups, **SETTINGS | settings).reasons)


def reasons(*arguments, **settings) -> set[str]:
    return set(verdict(*arguments, **settings).reasons)


def test_every_reason_to_doubt_is_given_and_no_other():
    steady = STEADY
    assert reasons([steady]) == set()
    assert reasons([steady], warmups=[[2.0, 1.5, 1.2]]) == {"warm-up"}
    assert reasons([steady], warmups=[[1.0, 1.0], [2.0, 1.5]]) == {"warm-up"}, "each process must settle"
    assert reasons([[1.0, 1.05, 0.95, 1.02, 0.98]]) == {"interval"}
    assert reasons([[1.0, 1.05, 0.95, 1.02, 0.98]], target_half_width=0.1) == set()
    assert reasons([[1.0, 1.4, 0.7, 1.2, 0.8]], target_half_width=0.5) == {"spread"}
    assert reasons([[1.0] * 40 + [1.6]], target_half_width=0.1) == {"extreme"}
    assert reasons([[1.0, 1.01, 1.02, 1.03, 1.04]], target_half_width=0.05) == {"drift"}
    assert reasons([[s * 1e-4 for s in steady]]) == {"short"}
    assert reasons([steady, [s * 1.1 for s in steady]]) == {"interval"}, "processes disagree"
    noisy = [[1.0, 1.4, 0.7, 1.2, 0.8], [0.8, 1.0, 1.4, 1.2, 0.7]]
    assert reasons(noisy, target_half_width=0.1) == set(), "their means agree, so that calls need not"


def test_calls_drift_where_they_do_in_most_processes():
    slower, faster = [1.0, 1.01, 1.02, 1.03, 1.04], [1.04, 1.03, 1.02, 1.01, 1.0]
    assert reasons([slower, STEADY, faster], target_half_width=0.5) == set(), "the machine does"
    assert reasons([slower, STEADY, slower], target_half_width=0.5) == {"drift"}
    assert verdict([slower, STEADY, slower]).drift == pytest.approx(0.0392, abs=1e-4)
    assert reasons([slower, [1.0] * 3, [1.0] * 3], target_half_width=0.5) == {"drift"}, "as far as it is known"
    assert of_first_tokens([slower, STEADY, faster], target_half_width=0.5) == set()
    assert of_first_tokens([slower, slower, faster], target_half_width=0.5) == {"first-token-drift"}


def test_the_scatter_of_all_cells_narrows_the_interval_of_one():
    processes = [[1.0, 1.0], [1.02, 1.02], [0.98, 0.98]]
    assert reasons(processes, target_half_width=0.04) == {"interval"}
    of_others = Prior(0.02**2, 40)
    assert reasons(processes, target_half_width=0.04, priors=Priors(whole=of_others)) == set()
    assert of_first_tokens(processes, target_half_width=0.03) == {"first-token-interval"}
    assert of_first_tokens(processes, target_half_width=0.03, priors=Priors(first_token=of_others)) == set()
    assert of_first_tokens(processes, target_half_width=0.04) == set(), "0.05 is allowed them"


def test_calls_for_one_token_are_judged_as_whole_calls_are():
    assert of_first_tokens([[s / 5 for s in STEADY]]) == set()
    one_of_10_s = [[0.2] * 11 + [10.2]]
    assert of_first_tokens(one_of_10_s) == {"first-token-interval", "first-token-spread", "first-token-extreme"}
    assert of_first_tokens([[0.2, 0.202, 0.204, 0.206, 0.208]], target_half_width=0.05) == {"first-token-drift"}
    assert of_first_tokens([[s * 1e-4 for s in STEADY]]) == {"first-token-short"}
    assert of_first_tokens([STEADY, [s * 1.1 for s in STEADY]]) == {"first-token-interval"}


def test_a_verdict_gives_its_evidence():
    result = verdict([[1.0, 1.01, 1.02, 1.03, 1.04]])
    assert result.reasons["drift"] == "calls became 3.9% slower from first to last"
    assert result.reasons["interval"].startswith("the 95 % interval is ±1.9%, the target ±1.0%; raise max_seconds")
    first_token = stability([[1.0, 1.0]], [STEADY], [[0.2] * 3 + [1.2]], **SETTINGS)
    assert first_token.reasons["first-token-extreme"] == "first token: one call of 1.2 s is 167% off the mean"
    assert (result.outliers, result.drift) == (0, pytest.approx(0.0392, abs=1e-4))
