"""The machine's own speed over the records of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from made_up import make_cell, make_experiment, make_oom, make_record, make_yardstick

from inference_benchmark.records import machine_speed
from inference_benchmark.records.collect import provenance_of
from inference_benchmark.records.record import Record
from inference_benchmark.records.results import cell_results
from inference_benchmark.records.rounds import combined, measured_cells

QUICK = {"before": make_yardstick(0.2, 0.25), "after": make_yardstick(0.2, 0.25)}
SLOW_AFTER = {"before": make_yardstick(0.2, 0.25), "after": make_yardstick(0.4, 0.25)}
SLOW = {"before": make_yardstick(0.3, 0.3), "after": make_yardstick(0.3, 0.3)}


def record(batch_size, yardstick, round_=1, **changes):
    return make_record(make_cell(batch_size=batch_size, round=round_), yardstick=yardstick, **changes)


def test_cells_around_which_the_machine_was_slower_than_around_others_are_flagged_in_the_summary():
    """SLOW_AFTER lost half of its memory bandwidth in one of two yardsticks, SLOW a third in both."""
    records = [*(record(size, QUICK) for size in (1, 2, 4)), record(8, SLOW_AFTER), record(16, SLOW), record(32, None)]
    found = cell_results(records)
    assert [each.flags for each in found] == [(), (), (), ("machine-slower",), ("machine-slower",), ()]
    assert found[3].notes == (
        "the machine was slower than around the other cells: memory 75% of 50 GB/s, arithmetic 100% of 400 Gflop/s"
    )
    assert "memory 67% of 50 GB/s" in found[4].notes


def test_no_cell_is_slower_than_others_where_all_are_slow():
    assert machine_speed.slower([record(1, SLOW), record(2, SLOW)]) == {}


def test_other_machines_and_settings_are_no_measure_of_each_other():
    others = [
        record(2, SLOW, model={"threads": 1}),
        record(2, SLOW, device={"kind": "cpu", "name": "Other CPU"}),
        record(2, SLOW, software={"torch": "2.12.0"}),
        make_record(make_cell(machine="other", batch_size=2), yardstick=SLOW),
    ]
    quick = [record(size, QUICK, model={"threads": 2}) for size in (1, 4)]
    for other in others:
        assert machine_speed.slower([*quick, other]) == {}
    # A node of another name is one of the same machine.
    host = {"name": "node-2", "memory_bytes": 4 * 10**9, "memory_limit": None}
    assert len(machine_speed.slower([*quick, record(2, SLOW, model={"threads": 2}, host=host)])) == 1


def test_a_cell_that_did_not_fit_is_not_flagged_but_counts_for_the_median():
    slow_oom = [make_oom(make_cell(batch_size=size), yardstick=SLOW) for size in (8, 16, 32)]
    assert machine_speed.slower([record(1, QUICK), record(2, SLOW), *slow_oom]) == {}
    quick_oom = [make_oom(make_cell(batch_size=size), yardstick=QUICK) for size in (8, 16)]
    assert list(machine_speed.slower([*slow_oom[:1], record(2, SLOW), *quick_oom, record(1, QUICK)])) == [
        make_cell(batch_size=2).path
    ]


def test_rounds_of_a_cell_are_judged_together():
    """One round of three at half the memory bandwidth in one of six yardsticks is 8 %; in three rounds it is 25 %."""
    others = [record(size, QUICK) for size in (2, 4, 8)]
    once = [record(1, QUICK), record(1, SLOW_AFTER, 2), record(1, QUICK, 3)]
    assert cell_results([*others, *once])[3].flags == ()
    always = [record(1, SLOW_AFTER, number) for number in (1, 2, 3)]
    assert cell_results([*others, *always])[3].flags == ("machine-slower",)


def test_provenance_has_the_median_speed_its_variation_and_the_parts_of_it_over_time():
    times = [("2026-01-01T00:01", "2026-01-01T00:02"), ("2026-01-01T00:03", "2026-01-01T00:04")]
    records = [
        replace(each, started_at=start, ended_at=end)
        for each, (start, end) in zip([record(2, SLOW_AFTER), record(1, QUICK)], reversed(times), strict=True)
    ]
    speed = provenance_of(make_experiment(), records)["machine_speed"]
    assert speed["memory_bytes_per_s"] == pytest.approx(50e9)
    assert speed["arithmetic_flop_per_s"] == pytest.approx(400e9)
    assert speed["variation"] == pytest.approx({"memory": 2**0.5 - 1, "arithmetic": 0}, abs=1e-9)
    assert speed["over_time"] == [
        {"at": "2026-01-01T00:01", "memory": 1, "arithmetic": 1},
        {"at": "2026-01-01T00:02", "memory": 1, "arithmetic": 1},
        {"at": "2026-01-01T00:03", "memory": 1, "arithmetic": 1},
        {"at": "2026-01-01T00:04", "memory": 0.5, "arithmetic": 1},
    ]
    assert provenance_of(make_experiment(), [record(1, None)])["machine_speed"] == {}


def test_a_round_has_the_speed_around_it_as_a_part_of_what_is_usual():
    twice = [make_cell(batch_size=2, round=number) for number in (1, 2)]
    records = combined(
        [
            record(1, QUICK),
            record(4, QUICK),
            *(make_record(cell, yardstick=SLOW_AFTER) for cell in twice),
            record(8, None),
        ]
    )
    usual = [(0.0, 0.0)]
    assert machine_speed.around(records) == [usual, usual, [(pytest.approx(math.log(0.75)), 0.0)] * 2, ()]
    (partly,) = combined([make_record(twice[0], yardstick=QUICK), make_record(twice[1], yardstick=None)])
    assert machine_speed.around([partly]) == [()], "of one of its rounds nothing is known"


def test_rounds_that_missed_a_state_of_the_machine_make_an_interval_wider_and_ask_for_more():
    """Eight cells in three rounds. The machine was slow in the second, and around the last cell in none."""

    def records(yardsticks: Sequence[Mapping[str, Any] | None]) -> list[Record]:
        return [
            make_record(
                make_cell(batch_size=2**n, round=number + 1),
                samples_s=[(1.2 if n < 7 and number == 1 else 1) * (1 + n * number / 1000)] * 3,
                yardstick=yardsticks[number if n < 7 else 0],
            )
            for n in range(8)
            for number in range(3)
        ]

    seen, unknown = (
        list(measured_cells(combined(records(each))).values())[-1] for each in ([QUICK, SLOW, QUICK], [None] * 3)
    )
    assert seen.latency_s.value == unknown.latency_s.value
    assert seen.latency_s.half_width > 1.2 * unknown.latency_s.half_width
    most = 100
    assert unknown.rounds_to_reach(0.05, most) < seen.rounds_to_reach(0.05, most) < most
