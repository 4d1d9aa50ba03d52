"""The floor of a call, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

from inference_benchmark.analysis import roofline
from inference_benchmark.analysis.roofline import Floor, Matrix, Peaks, Shapes

SIMPLE = Shapes((Matrix("m", 2, 10, 10, 100, "float32"),), 0, 0, 4, 5, "float32", 0)


def test_a_floor_is_the_sum_over_steps_of_the_slower_of_memory_and_arithmetic():
    steps = roofline.decode(SIMPLE, 1, 3, 5)
    # Bytes 200 + 4 + 3 x 4 and 4 more each step; operations 400 + 4 x 5 x 4 and 20 more each step.
    moved = [216 + 4 * i for i in range(4)]
    flop = [480 + 20 * i for i in range(4)]
    # At 10 bytes/s and 22 flop/s: 21.6 22.0 22.4 22.8 s against 21.8 22.7 23.6 24.5 s.
    floor = roofline.floor(steps, Peaks([(1, 10.0)], {"float32": 22.0}))
    assert floor.seconds == pytest.approx(sum(max(b / 10, f / 22) for b, f in zip(moved, flop, strict=True)))
    assert floor.bound_by == "arithmetic"
    slow_memory = roofline.floor(steps, Peaks([(1, 1.0)], {"float32": 22.0}))
    assert slow_memory == Floor(pytest.approx(sum(moved)), 0)
    assert slow_memory.bound_by == "memory"


def test_weights_that_come_over_links_take_the_time_of_the_slowest():
    elsewhere = replace(SIMPLE, link_bytes={"disk": 60, "host": 100})
    steps = roofline.decode(elsewhere, 1, 3, 5)
    peaks = Peaks([(1, 10.0)], {"float32": 22.0}, {"disk": 3.0, "host": 4.0})
    # 60 / 3 s and 100 / 4 s in each of 4 steps, which take 24.5 s at the most without them.
    assert roofline.floor(steps, peaks) == Floor(0, 0, pytest.approx(4 * 25))
    assert roofline.floor(steps, peaks).bound_by == "link"
    # 23.3 s, longer than the arithmetic of the first two steps.
    quick = peaks._replace(link_bytes_per_s={"disk": 3.0, "host": 4.3})
    assert roofline.floor(steps, quick) == Floor(0, pytest.approx((520 + 540) / 22), pytest.approx(2 * 100 / 4.3))
    assert roofline.prefill(elsewhere, 1, 3).link_bytes == {"disk": 60, "host": 100}
    assert peaks.have(steps)
    assert not peaks._replace(link_bytes_per_s={"disk": 3.0}).have(steps)
    assert not peaks._replace(flop_per_s={}).have(steps)


def test_devices_that_split_each_matrix_read_and_compute_at_the_same_time():
    steps, peaks = roofline.decode(SIMPLE, 1, 3, 5), Peaks([(1, 10.0), (110, 8.0)], {"float32": 22.0})
    # 216 to 228 bytes: of two devices each has at least 108, of which the last two steps have 110 and more.
    two = roofline.floor(steps, peaks.times(2)._replace(flop_per_s={"float32": 1e9}))
    assert two == Floor(pytest.approx(216 / 20 + (220 + 224 + 228) / 16), 0)
    computing = roofline.floor(steps, peaks.times(4)._replace(bandwidth=[(1, 1e9)]))
    assert computing == Floor(0, pytest.approx(sum(480 + 20 * i for i in range(4)) / 88))
    assert peaks.times(1) == peaks


def test_a_quantised_cache_moves_less_with_each_window_that_is_quantised():
    quantised = replace(SIMPLE, quantised_kv_bytes=1, residual_tokens=3)
    prefill = roofline.prefill(quantised, 2, 5)
    assert prefill.moved_bytes == (200 + 2 * 5 * 1, 0)
    decode = roofline.decode(quantised, 2, 5, 9)
    # Weights and the new token; 5 tokens of the prompt in 1 byte; new ones in 4 bytes, and every 3 of them then in 1.
    in_the_window = [0, 1, 2, 0, 1, 2, 0, 1]
    quantised_tokens = [5, 5, 5, 8, 8, 8, 11, 11]
    moved = [200 + 2 * (4 + n + 4 * w) for n, w in zip(quantised_tokens, in_the_window, strict=True)]
    assert decode.moved_bytes_of(numpy.arange(decode.count)).tolist() == moved
    floor = roofline.floor(decode, Peaks([(1, 1.0)], {"float32": 1e9}))
    assert floor == Floor(pytest.approx(sum(moved)), 0)
    assert decode.flop == roofline.decode(SIMPLE, 2, 5, 9).flop


def test_a_small_working_set_is_held_against_the_cache_it_fits_into():
    peaks = Peaks([(100, 50.0), (1000, 20.0), (10_000, 10.0)], {})
    asked = numpy.array([1, 100, 999, 1000, 5000, 10_000, 10**9])
    assert peaks.bytes_per_s(asked).tolist() == [50, 50, 50, 20, 20, 10, 10]
