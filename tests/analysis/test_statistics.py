"""Intervals, tests, outliers and trends, against scipy and by hand."""

from __future__ import annotations

import numpy
import pytest
from scipy import stats

from inference_benchmark.analysis import statistics
from inference_benchmark.analysis.statistics import Estimate, RatioTest, estimate, ratio_test, significant

SAMPLES = [1.02, 0.98, 1.01, 1.05, 0.97, 1.00, 1.03]


OTHERS = [0.52, 0.55, 0.50, 0.53]


def test_one_process_has_the_t_interval_of_its_calls():
    result = estimate([SAMPLES])
    low, high = stats.t.interval(0.95, len(SAMPLES) - 1, numpy.mean(SAMPLES), stats.sem(SAMPLES))
    assert result == pytest.approx((numpy.mean(SAMPLES), low, high))
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
    assert ratio_test([[1.0]], [[1.0, 1.1]]) is None


def test_the_interval_of_a_difference_is_welchs():
    result = statistics.mean_difference([SAMPLES], [OTHERS])
    wanted = stats.ttest_ind(SAMPLES, OTHERS, equal_var=False).confidence_interval(0.95)
    assert result == pytest.approx((numpy.mean(SAMPLES) - numpy.mean(OTHERS), wanted.low, wanted.high))
    assert statistics.mean_difference([[2.0, 2.0]], [[0.5, 0.5]]) == Estimate(1.5, 1.5, 1.5)


def test_a_difference_over_several_processes_is_taken_process_by_process():
    result = statistics.mean_difference([[2.0], [3.0], [4.0]], [[1.0], [2.1], [2.9]])
    assert result == pytest.approx(estimate([[1.0, 0.9, 1.1]]))


@pytest.mark.parametrize("processes", [1, 4])
def test_intervals_hold_the_truth_as_often_as_they_say(processes):
    """1,000 made-up cells: 95 % of the intervals must hold the true mean; three standard errors are 2.1 %."""
    random, held = numpy.random.default_rng(7), 0
    for _ in range(1000):
        paces = 1 + 0.1 * random.standard_normal(processes) if processes > 1 else [1.0]
        result = estimate([list(pace + 0.05 * random.standard_normal(6)) for pace in paces])
        held += result.low <= 1.0 <= result.high
    assert 0.929 <= held / 1000 <= 0.971


def test_a_test_of_two_means_is_welchs_on_the_logarithms():
    result = ratio_test([SAMPLES], [OTHERS])
    wanted = stats.ttest_ind(numpy.log(OTHERS), numpy.log(SAMPLES), equal_var=False)
    assert result.p_value == pytest.approx(wanted.pvalue)
    interval = wanted.confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((numpy.exp(interval.low), numpy.exp(interval.high)))
    assert result.ratio == pytest.approx(stats.gmean(OTHERS) / stats.gmean(SAMPLES))
    assert ratio_test([[1.0, 1.0]], [[1.0, 1.0]]) == RatioTest(1.0, 1.0, 1.0, 1.0)
    assert ratio_test([[1.0, 1.0]], [[2.0, 2.0]]).p_value == 0.0


def test_several_tests_are_corrected_by_holms_procedure():
    def cases(*p_values):
        return [RatioTest(1.0, 1.0, 1.0, p) for p in p_values]

    assert significant(cases(0.04)) == [True]
    assert significant(cases(0.04, 0.9)) == [False, False]
    assert significant(cases(0.9, 0.02, 0.04)) == [False, False, False]
    assert significant(cases(0.04, 0.01, 0.02)) == [True, True, True]
    assert significant([]) == []


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


@pytest.mark.parametrize("freedom", [1, 1.01, 1.3, 2, 2.7, 3, 4, 9, 30.5, 1000, 1e5])
def test_quantiles_of_t_are_those_of_scipy(freedom):
    assert statistics.t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-6)


@pytest.mark.parametrize("digits", [12, 1], ids=["all different", "with ties"])
def test_trends_are_those_of_scipy(digits):
    """Its test is exact for few samples without ties. Of samples near the bound either verdict is right."""
    draw = numpy.random.default_rng(0)
    found = 0
    for n in [5, 6, 7, 8, 12, 30] * 60:
        samples = numpy.round(draw.normal(10, 1, n) + draw.uniform(-0.5, 0.5) * numpy.arange(n), digits).tolist()
        p_value = stats.kendalltau(range(n), samples).pvalue
        if abs(p_value - 0.05) < 0.015:
            continue
        is_trend, found = p_value < 0.05, found + (p_value < 0.05)
        slope = stats.theilslopes(samples, range(n)).slope
        expected = slope * (n - 1) / numpy.median(samples) if is_trend else 0
        assert statistics.drift(samples) == pytest.approx(expected), (n, p_value)
    assert 50 < found < 310


def test_agreement_is_relative_to_the_smaller():
    assert statistics.agree([9.0, 1.00, 1.04], 0.05)
    assert not statistics.agree([1.00, 1.06], 0.05)
    assert not statistics.agree([1.0], 0.05)
