"""The machine's own speed over the records of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up import make_cell, make_experiment, make_oom, make_record, make_yardstick

from inference_benchmark.records import machine_speed
from inference_benchmark.records.collect import provenance_of
from inference_benchmark.records.results import cell_results

QUICK = {"before": make_yardstick(0.2, 0.25), "after": make_yardstick(0.2, 0.25)}
SLOW_AFTER = {"before": make_yardstick(0.2, 0.25), "after": make_yardstick(0.4, 0.25)}
SLOW = {"before": make_yardstick(0.3, 0.3), "after": make_yardstick(0.3, 0.3)}


def record(batch_size, yardstick, round_=1, **changes):
    return make_record(make_cell(batch_size=batch_size, round=round_), yardstick=yardstick, **changes)


def test_cells_in_which_the_machine_was_slower_than_its_best_are_flagged_in_the_summary():
    records = [record(1, QUICK), record(2, SLOW_AFTER), record(4, SLOW), record(8, None)]
    found = cell_results(records)
    assert [each.flags for each in found] == [(), ("machine-slower",), ("machine-slower",), ()]
    assert found[1].notes == (
        "the machine was slower than its best: memory 100% before, 50% after (50 GB/s); "
        "arithmetic 100% before, 100% after (400 Gflop/s)"
    )
    assert "memory 67% before, 67% after" in found[2].notes


def test_what_is_slow_from_beginning_to_end_is_the_best_of_its_machine():
    assert machine_speed.slower([record(1, SLOW), record(2, SLOW)]) == {}


def test_other_machines_and_settings_are_no_measure_of_each_other():
    others = [
        record(2, SLOW, model={"threads": 1}),
        record(2, SLOW, device={"kind": "cpu", "name": "Other CPU"}),
        record(2, SLOW, software={"torch": "2.12.0"}),
        make_record(make_cell(machine="other", batch_size=2), yardstick=SLOW),
    ]
    for other in others:
        assert machine_speed.slower([record(1, QUICK, model={"threads": 2}), other]) == {}
    # A node of another name is one of the same machine.
    host = {"name": "node-2", "memory_bytes": 4 * 10**9, "memory_limit": None}
    assert len(machine_speed.slower([record(1, QUICK), record(2, SLOW, host=host)])) == 1


def test_a_cell_that_did_not_fit_is_not_flagged_but_counts_for_the_best():
    fast = {"before": make_yardstick(0.1, 0.125)}
    oom = make_oom(make_cell(batch_size=8), yardstick=fast)
    slower = machine_speed.slower([record(1, QUICK), oom])
    assert list(slower) == [make_cell(batch_size=1).path]
    assert machine_speed.slower([record(1, QUICK), make_oom(make_cell(batch_size=8), yardstick=SLOW)]) == {}


def test_rounds_of_a_cell_are_judged_one_by_one():
    records = [record(1, QUICK), record(1, SLOW_AFTER, 2), record(1, QUICK, 3)]
    (found,) = cell_results(records)
    assert found.flags == ("machine-slower",)
    assert found.notes.endswith("(400 Gflop/s) (in 1 of 3 processes)")


def test_provenance_has_the_median_speed_and_the_parts_of_the_best_over_time():
    times = [("2026-01-01T00:01", "2026-01-01T00:02"), ("2026-01-01T00:03", "2026-01-01T00:04")]
    records = [
        replace(each, started_at=start, ended_at=end)
        for each, (start, end) in zip([record(2, SLOW_AFTER), record(1, QUICK)], reversed(times), strict=True)
    ]
    speed = provenance_of(make_experiment(), records)["machine_speed"]
    assert speed["memory_bytes_per_s"] == pytest.approx(50e9)
    assert speed["arithmetic_flop_per_s"] == pytest.approx(400e9)
    assert speed["over_time"] == [
        {"at": "2026-01-01T00:01", "memory": 1, "arithmetic": 1},
        {"at": "2026-01-01T00:02", "memory": 1, "arithmetic": 1},
        {"at": "2026-01-01T00:03", "memory": 1, "arithmetic": 1},
        {"at": "2026-01-01T00:04", "memory": 0.5, "arithmetic": 1},
    ]
    assert provenance_of(make_experiment(), [record(1, None)])["machine_speed"] == {}
