"""Intervals, tests, outliers and trends, against scipy and by hand."""

from __future__ import annotations

import math

import numpy
import pytest
from scipy import stats

from inference_benchmark.analysis import descriptive, scatter, statistics
from inference_benchmark.analysis.scatter import NO_PRIOR, Prior, Scatter
from inference_benchmark.analysis.statistics import (
    Estimate,
    RatioTest,
    estimate,
    ratio_test,
    rounds_to_reach,
    significant,
)

SAMPLES = [1.02, 0.98, 1.01, 1.05, 0.97, 1.00, 1.03]


OTHERS = [0.52, 0.55, 0.50, 0.53]


def t_interval(logs) -> tuple[float, float]:
    low, high = stats.t.interval(0.95, len(logs) - 1, numpy.mean(logs), stats.sem(logs))
    return numpy.exp(low), numpy.exp(high)


def test_one_process_has_the_t_interval_of_its_calls():
    """As a factor: the relative standard error is nearly that of the logarithm."""
    centre = numpy.mean(SAMPLES)
    factor = numpy.exp(stats.t.ppf(0.975, len(SAMPLES) - 1) * stats.sem(SAMPLES) / centre)
    assert estimate([SAMPLES]) == pytest.approx((centre, centre / factor, centre * factor))
    assert estimate([SAMPLES])[1:] == pytest.approx(t_interval(numpy.log(SAMPLES)), rel=1e-3)
    assert descriptive.standard_deviation(SAMPLES) == pytest.approx(numpy.std(SAMPLES, ddof=1))


def test_several_processes_have_the_t_interval_of_their_means():
    """Three processes that each repeat themselves well and agree badly: the width is that of the disagreement."""
    groups = [[1.00, 1.00, 1.00, 1.00], [1.10, 1.10], [1.05, 1.05, 1.05]]
    means = [1.0, 1.1, 1.05]
    assert estimate(groups) == pytest.approx((stats.gmean(means), *t_interval(numpy.log(means))))
    assert estimate([[call for calls in groups for call in calls]]).half_width < estimate(groups).half_width


def test_no_interval_reaches_zero():
    """Rounds of 0.28, 0.29 and 6.4 s, as a neighbour makes them: 3.4 +- 15 s would say that a call may take less than
    nothing."""
    assert 0 < estimate([[0.28], [0.29], [6.4]]).low < estimate([[0.28, 0.29, 6.4]]).low < 2.3


def test_nothing_is_known_of_the_spread_of_one_value():
    assert estimate([[1.0]]) == Estimate(1.0)
    assert estimate([[1.0]]).half_width is None
    assert descriptive.standard_deviation([1.0]) is None
    assert ratio_test([[1.0]], [[1.0, 1.1]]) is None


def test_the_interval_of_a_difference_is_welchs():
    """As a factor."""
    result = statistics.difference([SAMPLES], [OTHERS])
    value = numpy.mean(SAMPLES) - numpy.mean(OTHERS)
    high = stats.ttest_ind(SAMPLES, OTHERS, equal_var=False).confidence_interval(0.95).high
    factor = numpy.exp(high / value - 1)
    assert result == pytest.approx((value, value / factor, value * factor))
    assert statistics.difference([[2.0, 2.0]], [[0.5, 0.5]]) == Estimate(1.5, 1.5, 1.5)


def test_a_difference_over_several_processes_is_taken_process_by_process():
    result = statistics.difference([[2.0], [3.0], [4.0]], [[1.0], [2.1], [2.9]])
    assert result == pytest.approx(estimate([[1.0], [0.9], [1.1]]))


@pytest.mark.parametrize(
    ("groups", "others"),
    [
        ([[1.0, 1.2, 0.8]], [[1.0, 0.9, 1.0]]),
        ([[1.0], [1.2], [0.8]], [[0.9], [1.1], [1.0]]),
        ([[1.0, 1.1]], [[1.2, 1.3]]),
        ([[1.0]], [[0.5]]),
    ],
)
def test_a_difference_that_is_no_more_than_noise_is_unknown(groups, others):
    assert statistics.difference(groups, others) is None


#: (degrees of freedom, by how much the scatters of cells differ, an effect common to the cells of a round).
WORLDS = {"alike": (1.0, 0.0), "by 1.6": (1.6, 0.0), "by 2.7": (2.7, 0.0), "common": (1.0, 0.1)}


@pytest.mark.parametrize("world", WORLDS)
def test_intervals_with_the_scatter_of_all_cells_are_narrower_and_hold_the_truth_as_often(world):
    """Runs of 25 cells and three rounds, which scatter by 10 %, or by a factor more or less of it."""
    factor, common = WORLDS[world]
    random = numpy.random.default_rng(3)
    runs, held, widths, widths_alone = 120, 0, [], []
    for _ in range(runs):
        deviations = 0.1 * numpy.exp(numpy.log(factor) * random.standard_normal(25))
        logs = deviations[:, None] * random.standard_normal((25, 3)) + common * random.standard_normal(3)
        cells = [[[seconds] for seconds in numpy.exp(each)] for each in logs]
        prior = statistics.priors_of_processes(cells)[0]
        for groups in cells:
            moderated = estimate(groups, prior)
            held += moderated.low <= 1 <= moderated.high
            widths.append(numpy.log(moderated.high / moderated.value))
            widths_alone.append(numpy.log((alone := estimate(groups)).high / alone.value))
    assert 0.92 <= held / runs / 25 <= 0.97
    assert numpy.median(widths) < 0.72 * numpy.median(widths_alone)


def test_a_prior_is_found_again():
    """Variances drawn from an inverse chi-squared distribution with 8 degrees of freedom around 0.04."""
    random = numpy.random.default_rng(5)
    true = 8 * 0.04 / random.chisquare(8, 4000)
    cells = [Scatter(variance * random.chisquare(6) / 6, 6) for variance in true]
    assert scatter.prior(cells) == pytest.approx((0.04, 8, 0), rel=0.15)
    assert Scatter(0.07, 2).moderated(Prior(0.04, 8)) == pytest.approx((0.046, 10))
    # Of three rounds, so that the variance of their mean is larger by what they did not see.
    assert Scatter(0.07, 2).moderated(Prior(0.04, 8, unseen=0.01)) == pytest.approx((0.076, 10))


def test_there_is_a_prior_only_where_cells_show_their_scatter():
    alike = [Scatter(0.01, 2)] * 8
    assert scatter.prior(alike).freedom == 16, "worth no more than all cells together"
    assert scatter.prior(alike[1:]) == scatter.prior([Scatter(0.0, 2)] * 9) == NO_PRIOR
    assert scatter.prior([*alike, Scatter(0.0, 2)]).variance > 0
    assert statistics.priors_of_processes([[[1.0, 1.1]]] * 20) == [NO_PRIOR] * 20, (
        "calls of one process scatter otherwise"
    )


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
    assert ratio_test([[1.0, 1.0]], [[1.0, 1.0]]) == RatioTest(1.0, 1.0, 1.0, 1.0, 2)
    assert ratio_test([[1.0, 1.0]], [[2.0, 2.0]]).p_value == 0.0


def test_several_tests_are_corrected_by_holms_procedure():
    def cases(*p_values):
        return [RatioTest(1.0, 1.0, 1.0, p, 2) for p in p_values]

    assert significant(cases(0.04)) == [True]
    assert significant(cases(0.04, 0.9)) == [False, False]
    assert significant(cases(0.9, 0.02, 0.04)) == [False, False, False]
    assert significant(cases(0.04, 0.01, 0.02)) == [True, True, True]
    assert significant([]) == []


@pytest.mark.parametrize("percent", [0, 25, 50, 95, 100])
def test_percentiles_are_numpys(percent):
    for samples in (SAMPLES, OTHERS, [1.0], [1.0, 3.0]):
        assert descriptive.percentile(samples, percent) == pytest.approx(numpy.percentile(samples, percent))


def test_outliers_are_counted_by_tukeys_fences():
    assert descriptive.outliers([1.0, 1.01, 0.99, 1.0, 5.0, 1.02]) == 1
    assert descriptive.outliers([1.0] * 5) == 0
    assert descriptive.outliers([1.0, 1.0, 9.0, 1.0]) is None, "four samples have no quartiles worth the name"


def test_a_trend_is_found_and_sized():
    assert descriptive.drift([1.00, 1.01, 1.02, 1.03, 1.04]) == pytest.approx(0.04 / 1.02)
    assert descriptive.drift([1.04, 1.03, 1.02, 1.01, 1.00]) == pytest.approx(-0.04 / 1.02)
    assert descriptive.drift([1.00, 1.04, 1.01, 1.03, 1.02]) == 0.0
    assert descriptive.drift([1.0] * 6) == 0.0
    assert descriptive.drift([1.0, 2.0, 3.0, 4.0]) is None


@pytest.mark.parametrize("freedom", [1, 1.01, 1.3, 2, 2.7, 3, 4, 9, 30.5, 1000, 1e5])
def test_quantiles_of_t_are_those_of_scipy(freedom):
    assert scatter.t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-6)


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
        assert descriptive.drift(samples) == pytest.approx(expected), (n, p_value)
    assert 50 < found < 310


def test_agreement_is_relative_to_the_smaller():
    assert descriptive.agree([9.0, 1.00, 1.04], 0.05)
    assert not descriptive.agree([1.00, 1.06], 0.05)
    assert not descriptive.agree([1.0], 0.05)


def test_so_many_rounds_bring_an_interval_within_the_target():
    """By hand: logarithms that scatter by 0.1, so that the interval of n rounds reaches from exp(-h) to exp(h) with
    h = t * 0.1 / sqrt(n). Where three are not enough, nine tenths of the target are planned for."""
    rounds = [[math.exp(shift)] * 2 for shift in (-0.1, 0.0, 0.1)]
    assert rounds_to_reach(0.26, rounds, most=10) == 3, "4.303 * 0.1 / sqrt(3) = 0.248"
    assert rounds_to_reach(0.20, rounds, most=10) == 4, "3.182 * 0.1 / sqrt(4) = 0.159"
    assert rounds_to_reach(0.17, rounds, most=10) == 5, "0.9 * 0.17 = 0.153; 2.776 * 0.1 / sqrt(5) = 0.124"
    assert rounds_to_reach(0.11, rounds, most=10) == 7, "2.571 * 0.1 / sqrt(6) = 0.105, 2.447 * 0.1 / sqrt(7) = 0.092"
    assert rounds_to_reach(0.01, rounds, most=10) == 10
    assert rounds_to_reach(0.01, rounds, most=3) == 3
    assert rounds_to_reach(0.01, [[0.5] * 3] * 3, most=10) == 3, "no scatter"


def test_a_single_round_asks_for_three_where_its_own_calls_miss_the_target():
    assert rounds_to_reach(0.01, [[1.0, 1.001, 0.999]], most=5) == 1
    assert rounds_to_reach(0.01, [[1.0, 1.1, 0.9]], most=5) == 3
    assert rounds_to_reach(0.01, [[1.0, 1.1, 0.9]], most=2) == 2
    assert rounds_to_reach(0.01, [[1.0]], most=5) == 3, "nothing is known of its scatter"


def test_intervals_hold_the_truth_where_the_scatter_decides_the_rounds():
    """25 cells that scatter by 10 %, each in 3 to 10 rounds until its interval is within 10 %."""
    rng = numpy.random.default_rng(0)
    holds, within, rounds = [], [], []
    for _ in range(60):
        cells = [[[each] for each in numpy.exp(0.1 * rng.standard_normal(10)).tolist()] for _ in range(25)]
        priors = statistics.priors_of_processes([cell[:3] for cell in cells])
        measured = [
            cell[: rounds_to_reach(0.1, cell[:3], 10, prior)] for cell, prior in zip(cells, priors, strict=True)
        ]
        found = list(map(estimate, measured, statistics.priors_of_processes(measured)))
        holds += [each.low <= 1 <= each.high for each in found]
        within += [each.half_width < 0.1 for each in found]
        rounds += map(len, measured)
    assert 0.92 < numpy.mean(holds) < 0.96
    assert numpy.mean(within) > 0.9
    assert 4 < numpy.mean(rounds) < 6
