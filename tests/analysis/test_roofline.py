"""The floor of a call, worked out by hand."""

from __future__ import annotations

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


def test_a_small_working_set_is_held_against_the_cache_it_fits_into():
    peaks = Peaks([(100, 50.0), (1000, 20.0), (10_000, 10.0)], {})
    asked = numpy.array([1, 100, 999, 1000, 5000, 10_000, 10**9])
    assert peaks.bytes_per_s(asked).tolist() == [50, 50, 50, 20, 20, 10, 10]
