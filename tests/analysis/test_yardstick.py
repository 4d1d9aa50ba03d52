"""The speed of the machine by its yardstick."""

from __future__ import annotations

import pytest
from made_up import make_yardstick

from inference_benchmark.analysis.yardstick import TOLERANCE, Speed, typical, variation, why_slower

FAST = Speed(50e9, 400e9)


def speed(*passes_ms: float) -> float:
    """Bytes per second of passes of 1 byte."""
    times = {"memory_s": [ms / 1000 for ms in passes_ms], "moved_bytes": 1, "arithmetic_s": [1.0], "flop": 1}
    return Speed.of(times).memory_bytes_per_s


def test_a_speed_is_that_of_the_fastest_ten_milliseconds():
    assert speed(4, 4, 4, 8, 4, 3, 4) == pytest.approx(3 / 0.011)
    # A time slice of another thread that comes once does not count; one in every stretch does.
    assert speed(*[2] * 3, 6, *[2] * 6) == pytest.approx(500)
    assert speed(*[2, 2, 6] * 3) == pytest.approx(3 / 0.010)
    # Passes that are longer count by themselves; together they may be shorter than that.
    assert speed(30, 20, 40) == pytest.approx(50)
    assert speed(1, 3) == pytest.approx(500)


def test_both_kernels_have_their_own_work():
    times = {"memory_s": [2.0, 1.0], "moved_bytes": 10, "arithmetic_s": [4.0, 3.0], "flop": 6}
    assert Speed.of(times) == pytest.approx((10, 2))
    assert Speed.of(make_yardstick(0.2, 0.25)).texts == ("50 GB/s", "400 Gflop/s")


def test_the_median_and_the_variation_are_of_each_kernel():
    speeds = [Speed(1, 20), Speed(2, 20), Speed(4, 20)]
    assert typical(speeds) == (2, 20)
    assert variation(speeds) == pytest.approx((1, 0)), "a factor of 2 up or down"
    assert variation(speeds[:1]) == (0, 0)


def test_a_machine_is_slower_beyond_the_tolerance_only():
    """By the mean around a cell."""
    at_limit, beyond = 1 - TOLERANCE, 0.999 - TOLERANCE
    assert why_slower([Speed(50e9 * at_limit, 400e9)], FAST) is None
    assert why_slower([Speed(50e9 * beyond, 400e9)], FAST)
    assert why_slower([Speed(50e9, 400e9 * beyond)], FAST)
    assert why_slower([FAST, Speed(50e9 * (1 - 1.9 * TOLERANCE), 400e9)], FAST) is None
    assert why_slower([FAST, Speed(50e9 * (1 - 2.1 * TOLERANCE), 400e9)], FAST)
    assert why_slower([], FAST) is None


def test_the_message_has_every_figure():
    message = "the machine was slower than around the other cells: memory 75% of 50 GB/s, arithmetic 98% of 400 Gflop/s"
    assert why_slower([FAST, Speed(25e9, 380e9)], FAST) == message
