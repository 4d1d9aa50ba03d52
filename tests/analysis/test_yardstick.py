"""The speed of the machine by its yardstick."""

from __future__ import annotations

import pytest
from made_up import make_yardstick

from inference_benchmark.analysis.yardstick import TOLERANCE, Speed, best, is_slower, typical, why_slower

FAST = Speed(50e9, 400e9)


def test_a_speed_is_the_work_of_all_passes_over_their_time():
    """Three passes, of which one was held back: 3 x 10 bytes in 1 s, 2 x 6 flop in 4 s."""
    times = {"memory_s": [0.2, 0.2, 0.6], "moved_bytes": 10, "arithmetic_s": [1.0, 3.0], "flop": 6}
    assert Speed.of(times) == pytest.approx((30, 3))
    assert Speed.of(make_yardstick(0.2, 0.25)).texts == ("50 GB/s", "400 Gflop/s")


def test_the_best_and_the_median_are_of_each_kernel():
    speeds = [Speed(1, 30), Speed(2, 20), Speed(6, 10)]
    assert best(speeds) == (6, 30)
    assert typical(speeds) == (2, 20)


def test_a_machine_is_slower_beyond_the_tolerance_only():
    at_limit, beyond = 1 - TOLERANCE, 0.999 - TOLERANCE
    assert not is_slower(Speed(50e9 * at_limit, 400e9), FAST)
    assert is_slower(Speed(50e9 * beyond, 400e9), FAST)
    assert is_slower(Speed(50e9, 400e9 * beyond), FAST)
    assert why_slower({"before": FAST, "after": Speed(50e9 * at_limit, 400e9)}, FAST) is None
    assert why_slower({}, FAST) is None


def test_the_message_has_every_figure():
    message = why_slower({"before": FAST, "after": Speed(25e9, 380e9)}, FAST)
    assert message == (
        "the machine was slower than its best: memory 100% before, 50% after (50 GB/s); "
        "arithmetic 100% before, 95% after (400 Gflop/s)"
    )
    only = why_slower({"before": Speed(25e9, 380e9)}, FAST)
    assert only.endswith("memory 50% before (50 GB/s); arithmetic 95% before (400 Gflop/s)")
