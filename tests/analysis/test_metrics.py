"""Every formula on a case worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from inference_benchmark.analysis import metrics, statistics
from inference_benchmark.analysis.ceilings import Ceilings
from inference_benchmark.analysis.metrics import MeasuredCell
from inference_benchmark.analysis.roofline import Matrix, Peaks, Shapes
from inference_benchmark.analysis.scatter import Prior
from inference_benchmark.analysis.statistics import Estimate

#: 4 rows x 10 tokens in 10/3 s on average, of which a first token takes 1/3 s: 3 s for 9 more.
BY_HAND = MeasuredCell(
    batch_size=4, prompt_tokens=4, new_tokens=10, whole_s=[[3.0, 3.3, 3.7]], first_token_s=[[0.2, 0.3, 0.5]]
)


def test_formulas_on_a_case_worked_by_hand():
    latency, throughput = BY_HAND.latency_s, metrics.throughput_tok_per_s(BY_HAND)
    assert latency.value == pytest.approx(10 / 3)
    assert throughput.value == pytest.approx(12.0)
    assert metrics.time_per_token_ms(BY_HAND).value == pytest.approx(83.3333, abs=1e-4)
    assert BY_HAND.first_token_latency_s.value == pytest.approx(1 / 3)
    assert metrics.prompt_tok_per_s(BY_HAND).value == pytest.approx(4 * 4 / (1 / 3))
    assert metrics.time_per_output_token_s(BY_HAND).value == pytest.approx(1 / 3)
    assert metrics.decode_tok_per_s(BY_HAND).value == pytest.approx(4 * 9 / 3)
    # t(0.975, 2) = 4.302653; s = sqrt(0.37/3); 4.302653 x s / sqrt(3) / (10/3) = 0.261720; exp of that is 1.299162.
    assert latency.high == pytest.approx(10 / 3 * 1.299162, abs=1e-5)
    assert (throughput.low, throughput.high) == pytest.approx((12 / 1.299162, 12 * 1.299162), rel=1e-6)
    assert Estimate(2.0, 1.6, 2.5).per(40) == Estimate(20.0, 16.0, 25.0)
    assert Estimate(20.0, 16.0, 25.0).half_width == pytest.approx(0.225)


def test_of_one_token_there_is_no_decode():
    one = MeasuredCell(batch_size=4, prompt_tokens=4, new_tokens=1, whole_s=[[2.0, 2.0]])
    assert (metrics.throughput_tok_per_s(one).value, one.first_token_latency_s.value) == (2.0, 2.0)
    assert metrics.decode_tok_per_s(one) is None


@pytest.mark.parametrize(
    ("whole_s", "first_token_s"),
    [
        ([[2.0, 2.0]], [[3.0, 3.0]]),
        ([[2.0, 3.0, 5.0]], [[0.2, 0.3, 0.5]]),
        # 0.1 ms between two means that scatter by more: 4 x 9 / 0.1 ms would be 360,000 tokens/s.
        ([[0.0101, 0.0104, 0.0107]], [[0.0100, 0.0103, 0.0106]]),
        ([[2.0, 2.0], [2.3, 2.3]], [[1.0, 1.0], [1.9, 1.9]]),
    ],
    ids=["slower first token", "wide calls", "short answer", "processes that differ"],
)
def test_decode_within_noise_has_no_figure_and_no_limit(whole_s, first_token_s):
    peaks = Peaks([(1, 10.0)], {"float32": 100.0})
    cell = replace(BY_HAND, whole_s=whole_s, first_token_s=first_token_s, shapes=SIMPLE, ceilings=Ceilings(peaks))
    assert metrics.decode_tok_per_s(cell) is None
    assert metrics.time_per_output_token_s(cell) is None
    assert set(cell.limits) == {"prefill", "whole"}, "the floor of the whole call needs no measured decode"
    assert cell.limits["whole"].floor_s > cell.limits["prefill"].floor_s


def test_several_processes_count_alike_whatever_their_number_of_calls():
    """The geometric means of 1 and 2 s, and of their differences, 0.5 and 0.8 s."""
    cell = replace(BY_HAND, whole_s=[[1.0] * 9, [2.0] * 3], first_token_s=[[0.5] * 3, [1.2] * 3])
    assert cell.latency_s.value == pytest.approx(2**0.5)
    assert cell.decode_s is None, "two such differences are no more than noise"
    assert replace(cell, priors=PRIORS).decode_s.value == pytest.approx(0.4**0.5)


#: Of cells that scatter by 5 %.
PRIORS = metrics.Priors(*[Prior(0.05**2, 1000)] * 3)


def test_the_scatter_of_all_cells_says_what_that_of_one_cannot():
    cell = replace(BY_HAND, whole_s=[[3.0], [3.3], [3.6]], first_token_s=[[0.3], [0.31], [0.32]])
    moderated = replace(cell, priors=PRIORS)
    for name in ("latency_s", "first_token_latency_s", "decode_s"):
        alone, by_all = getattr(cell, name), getattr(moderated, name)
        assert alone.value == by_all.value
        assert by_all.high / by_all.value == pytest.approx(2.718281828 ** (1.962 * 0.05 / 3**0.5), rel=2e-3)


def test_the_priors_of_a_run_are_those_of_its_times():
    cells = [
        replace(BY_HAND, whole_s=[[3.0], [3.0 + i / 100]], first_token_s=[[0.3], [0.3 - i / 1000]])
        for i in range(1, 10)
    ]
    one_token = replace(BY_HAND, new_tokens=1, whole_s=[[0.3], [0.4]], first_token_s=[[], []])
    around = [[(0.1 * i, 0.0), (0.0, 0.1 * i)] for i in range(9)]
    whole, first_token, decode = zip(*metrics.priors(cells, around), strict=True)
    assert list(whole) == statistics.priors_of_processes([cell.whole_s for cell in cells], around)
    assert list(first_token) == statistics.priors_of_processes([cell.first_token_s for cell in cells], around)
    both = [(cell.whole_s, cell.first_token_s) for cell in cells]
    assert list(decode) == statistics.priors_of_differences(both, around) != list(whole)
    assert min(each.unseen for each in whole[:4]) > 0
    *of_long, of_one = metrics.priors([*cells, one_token])
    assert of_long[0][1:] == metrics.priors(cells)[0][1:], "a cell of one token has no calls but its whole ones"
    assert of_one.whole == of_long[0].whole != metrics.priors(cells)[0].whole


def test_energy_per_token_is_all_joules_over_all_tokens():
    cell = replace(BY_HAND, whole_s=[[1.0, 1.0], [1.0, 1.0]])
    assert metrics.energy_per_token_j(cell) is None
    # 800 J for 2 x 2 calls of 40 tokens, each reading sure to 4 J.
    counted = replace(cell, energy_j=[(400.0, 4.0), (400.0, 4.0)])
    assert metrics.energy_per_token_j(counted) == pytest.approx((5.0, 4.95, 5.05))


def test_memory_is_that_of_the_process_that_held_the_most():
    assert metrics.peak_memory_bytes(replace(BY_HAND, memory_bytes=[(60, 80), (250, None)])).value == 250
    assert metrics.peak_memory_bytes(BY_HAND) is None
    assert metrics.memory_share([(60, 80), (250, 1000)]) == 0.75
    assert metrics.memory_share([(250, None)]) is None


SIMPLE = Shapes((Matrix("m", 2, 10, 10, 100, "float32"),), 0, 0, 4, 5, "float32", 0)


def test_limits_of_prefill_decode_and_whole_follow_from_floors_and_measured_times():
    peaks = Peaks([(1, 10.0)], {"float32": 100.0})
    cell = MeasuredCell(
        batch_size=1,
        prompt_tokens=3,
        new_tokens=5,
        whole_s=[[200.0] * 3],
        first_token_s=[[50.0] * 3],
        shapes=SIMPLE,
        ceilings=Ceilings(peaks),
    )
    prefill_s = (200 + 3 * 4) / 10
    decode_s = sum(216 + 4 * i for i in range(4)) / 10
    assert cell.limits["prefill"].floor_s == pytest.approx(prefill_s)
    assert cell.limits["prefill"].share.value == pytest.approx(prefill_s / 50)
    assert cell.limits["decode"].share.value == pytest.approx(decode_s / 150)
    assert metrics.limit_share(cell, "whole").value == pytest.approx((prefill_s + decode_s) / 200)
    assert {limit.bound_by for limit in cell.limits.values()} == {"memory"}
    assert not any(limit.is_exceeded for limit in cell.limits.values())
    assert replace(cell, ceilings=None).limits == {}
    assert replace(cell, shapes=None).limits == {}
    assert replace(cell, ceilings=Ceilings(Peaks([(1, 10.0)], {}))).limits == {}
    assert replace(cell, shapes=replace(SIMPLE, link_bytes={"disk": 9})).limits == {}
    linked = replace(cell, shapes=replace(SIMPLE, link_bytes={"disk": 300}))
    linked = replace(linked, ceilings=Ceilings(peaks._replace(link_bytes_per_s={"disk": 10.0})))
    assert metrics.limit_share(linked, "whole").value == pytest.approx((30 + 4 * 30) / 200)
    assert {limit.bound_by for limit in linked.limits.values()} == {"link"}
    scattered = replace(cell, whole_s=[[190.0, 200.0, 210.0]])
    low, high = metrics.limit_share(scattered, "whole")[1:]
    assert low < metrics.limit_share(scattered, "whole").value < high


@given(latency_s=some.floats(1e-6, 1e6), part=some.floats(1e-3, 0.999), speed=some.floats(1e-3, 1e6))
def test_no_figure_is_above_its_limit(latency_s, part, speed):
    cell = MeasuredCell(
        batch_size=1,
        prompt_tokens=3,
        new_tokens=5,
        whole_s=[[latency_s] * 3],
        first_token_s=[[latency_s * part] * 3],
        shapes=SIMPLE,
        ceilings=Ceilings(Peaks([(1, 10.0)], {"float32": speed})),
    )
    for phase, limit in cell.limits.items():
        share = metrics.limit_share(cell, phase)
        assert (share is None) == limit.is_exceeded == (limit.measured_s.value < limit.floor_s)
        assert share is None or 0 < share.value <= 1
