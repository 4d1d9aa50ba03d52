"""Intervals, verdicts and comparisons: against scipy, against cases worked by hand, and against chance."""

from __future__ import annotations

import numpy
import pytest
from scipy import stats

from conftest import MEASUREMENT
from inference_benchmark.analysis import statistics
from inference_benchmark.analysis.statistics import Comparison, Estimate, compare, different, estimate

SAMPLES = [1.02, 0.98, 1.01, 1.05, 0.97, 1.00, 1.03]
OTHERS = [0.52, 0.55, 0.50, 0.53]


def reasons(groups, warmups=((1.0, 1.0),), **measurement) -> set[str]:
    found = statistics.stability(warmups, groups, {**MEASUREMENT, **measurement})
    names = {reason["name"] for reason in found["reasons"]}
    assert found["stable"] == (not names)
    return names


def test_one_process_has_the_t_interval_of_its_calls():
    found = estimate([SAMPLES])
    low, high = stats.t.interval(0.95, len(SAMPLES) - 1, numpy.mean(SAMPLES), stats.sem(SAMPLES))
    assert found == pytest.approx((numpy.mean(SAMPLES), low, high))
    assert statistics.standard_deviation(SAMPLES) == pytest.approx(numpy.std(SAMPLES, ddof=1))


def test_several_processes_have_the_t_interval_of_their_means():
    """Three processes that each repeat themselves well and agree badly: the width is that of the disagreement."""
    groups = [[1.00, 1.00, 1.00, 1.00], [1.10, 1.10], [1.05, 1.05, 1.05]]
    low, high = stats.t.interval(0.95, 2, 1.05, stats.sem([1.0, 1.1, 1.05]))
    assert estimate(groups) == pytest.approx((1.05, low, high))
    assert estimate([[call for calls in groups for call in calls]]).half_width < estimate(groups).half_width


def test_nothing_is_known_of_the_spread_of_one_value():
    assert estimate([[1.0]]) == Estimate(1.0)
    assert estimate([[1.0]]).half_width is None
    assert statistics.standard_deviation([1.0]) is None
    assert compare([[1.0]], [[1.0, 1.1]]) is None


def test_the_interval_of_a_difference_is_welchs():
    found = statistics.difference([SAMPLES], [OTHERS])
    wanted = stats.ttest_ind(SAMPLES, OTHERS, equal_var=False).confidence_interval(0.95)
    assert found == pytest.approx((numpy.mean(SAMPLES) - numpy.mean(OTHERS), wanted.low, wanted.high))
    assert statistics.difference([[2.0, 2.0]], [[0.5, 0.5]]) == Estimate(1.5, 1.5, 1.5)


def test_a_difference_over_several_processes_is_taken_process_by_process():
    found = statistics.difference([[2.0], [3.0], [4.0]], [[1.0], [2.1], [2.9]])
    assert found == pytest.approx(estimate([[1.0, 0.9, 1.1]]))


@pytest.mark.parametrize("processes", [1, 4])
def test_intervals_hold_the_truth_as_often_as_they_say(processes):
    """1,000 made-up cells: 95 % of the intervals must hold the true mean; three standard errors are 2.1 %."""
    random, held = numpy.random.default_rng(7), 0
    for _ in range(1000):
        paces = 1 + 0.1 * random.standard_normal(processes) if processes > 1 else [1.0]
        found = estimate([list(pace + 0.05 * random.standard_normal(6)) for pace in paces])
        held += found.low <= 1.0 <= found.high
    assert 0.929 <= held / 1000 <= 0.971


def test_a_comparison_is_welchs_on_the_logarithms():
    found = compare([SAMPLES], [OTHERS])
    wanted = stats.ttest_ind(numpy.log(OTHERS), numpy.log(SAMPLES), equal_var=False)
    assert found.p_value == pytest.approx(wanted.pvalue)
    interval = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((numpy.exp(interval.low), numpy.exp(interval.high)))
    assert found.ratio == pytest.approx(stats.gmean(OTHERS) / stats.gmean(SAMPLES))
    assert compare([[1.0, 1.0]], [[1.0, 1.0]]) == Comparison(1.0, 1.0, 1.0, 1.0)
    assert compare([[1.0, 1.0]], [[2.0, 2.0]]).p_value == 0.0


def test_several_comparisons_are_corrected_by_holms_procedure():
    def cases(*p_values):
        return [Comparison(1.0, 1.0, 1.0, p) for p in p_values]

    assert different(cases(0.04)) == [True]
    assert different(cases(0.04, 0.9)) == [False, False]
    assert different(cases(0.9, 0.02, 0.04)) == [False, False, False]
    assert different(cases(0.04, 0.01, 0.02)) == [True, True, True]
    assert different([]) == []


@pytest.mark.parametrize("percent", [0, 25, 50, 95, 100])
def test_percentiles_are_numpys(percent):
    for samples in (SAMPLES, OTHERS, [1.0], [1.0, 3.0]):
        assert statistics.percentile(samples, percent) == pytest.approx(numpy.percentile(samples, percent))


def test_outliers_are_counted_by_tukeys_fences():
    assert statistics.outliers([1.0, 1.01, 0.99, 1.0, 5.0, 1.02]) == 1
    assert statistics.outliers([1.0] * 5) == 0
    assert statistics.outliers([1.0, 1.0, 9.0, 1.0]) is None, "four samples have no quartiles worth the name"


def test_a_trend_is_found_and_sized():
    assert statistics.drift([1.00, 1.01, 1.02, 1.03, 1.04]) == pytest.approx(0.04 / 1.02)
    assert statistics.drift([1.04, 1.03, 1.02, 1.01, 1.00]) == pytest.approx(-0.04 / 1.02)
    assert statistics.drift([1.00, 1.04, 1.01, 1.03, 1.02]) == 0.0
    assert statistics.drift([1.0] * 6) == 0.0
    assert statistics.drift([1.0, 2.0, 3.0, 4.0]) is None


def test_every_reason_to_doubt_is_given_and_no_other():
    steady = [1.000, 1.001, 0.999, 1.000, 1.001]
    assert reasons([steady]) == set()
    assert reasons([steady], warmups=[[2.0, 1.5, 1.2]]) == {"warm-up"}
    assert reasons([steady], warmups=[[1.0, 1.0], [2.0, 1.5]]) == {"warm-up"}, "each process must settle"
    assert reasons([[1.0, 1.05, 0.95, 1.02, 0.98]]) == {"interval"}
    assert reasons([[1.0, 1.05, 0.95, 1.02, 0.98]], target_half_width_percent=10) == set()
    assert reasons([[1.0, 1.4, 0.7, 1.2, 0.8]], target_half_width_percent=50) == {"spread"}
    assert reasons([[1.0] * 40 + [1.6]], target_half_width_percent=10) == {"extreme"}
    assert reasons([[1.0, 1.01, 1.02, 1.03, 1.04]], target_half_width_percent=5) == {"drift"}
    assert reasons([[s * 1e-4 for s in steady]]) == {"short"}
    assert reasons([steady, [s * 1.1 for s in steady]]) == {"interval"}, "processes disagree"


def test_a_verdict_says_what_was_found():
    found = statistics.stability([[1.0, 1.0]], [[1.0, 1.01, 1.02, 1.03, 1.04]], MEASUREMENT)
    messages = {reason["name"]: reason["message"] for reason in found["reasons"]}
    assert messages["drift"] == "calls became 3.9% slower from first to last"
    assert messages["interval"].startswith("the 95 % interval is ±1.9%, the target ±1.0%; raise max_seconds")
    assert (found["outliers"], found["drift"]) == (0, pytest.approx(0.0392, abs=1e-4))


def test_when_it_is_enough():
    def enough(samples, **changes):
        return statistics.enough(samples, {**MEASUREMENT, "min_seconds": 2, "max_seconds": 10, **changes})

    assert not enough([])
    assert not enough([5.0, 5.0]), "fewer than min_cycles, however long"
    assert enough([1.0, 1.0, 1.0])
    assert not enough([0.1, 0.1, 0.1]), "less than min_seconds, however exact"
    assert not enough([1.0, 1.1, 0.9, 1.0]), "not exact, and time left"
    assert enough([1.0, 1.1, 0.9] * 4), "not exact, and no time left"


def test_agreement_is_relative_to_the_smaller():
    assert statistics.agree([9.0, 1.00, 1.04], 0.05)
    assert not statistics.agree([1.00, 1.06], 0.05)
    assert not statistics.agree([1.0], 0.05)
