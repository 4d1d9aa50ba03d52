"""The speed of the machine by its yardstick."""

from __future__ import annotations

import pytest
from made_up import make_yardstick

from inference_benchmark.analysis.yardstick import TOLERANCE, Speed, best, is_slower, typical, why_slower

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


def test_the_best_and_the_median_are_of_each_kernel():
    speeds = [Speed(1, 30), Speed(2, 20), Speed(6, 10)]
    assert best(speeds) == pytest.approx((5.6, 29))
    assert typical(speeds) == (2, 20)
    assert best([*[Speed(1, 1)] * 99, Speed(9, 9)]) == (1, 1), "one in a hundred is luck"


def test_a_machine_is_slower_beyond_the_tolerance_only():
    at_limit, beyond = 1 - TOLERANCE, 0.999 - TOLERANCE
    assert not is_slower(Speed(50e9 * at_limit, 400e9), FAST)
    assert is_slower(Speed(50e9 * beyond, 400e9), FAST)
    assert is_slower(Speed(50e9, 400e9 * beyond), FAST)
    assert why_slower({"before": FAST, "after": Speed(50e9 * (1 - 1.9 * TOLERANCE), 400e9)}, FAST) is None
    assert why_slower({"before": FAST, "after": Speed(50e9 * (1 - 2.1 * TOLERANCE), 400e9)}, FAST)
    assert why_slower({}, FAST) is None


def test_the_message_has_every_figure():
    message = why_slower({"before": FAST, "after": Speed(25e9, 380e9)}, FAST)
    assert message == (
        "the machine was slower than its best: memory 100% before, 50% after (50 GB/s); "
        "arithmetic 100% before, 95% after (400 Gflop/s)"
    )
    only = why_slower({"before": Speed(25e9, 380e9)}, FAST)
    assert only.endswith("memory 50% before (50 GB/s); arithmetic 95% before (400 Gflop/s)")
