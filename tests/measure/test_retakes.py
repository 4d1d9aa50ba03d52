"""A disturbed round is measured again: when, and which of several takes counts."""

from __future__ import annotations

import os

import pytest
from made_up import make_cell, make_yardstick

from inference_benchmark.analysis.ceilings import peaks
from inference_benchmark.experiment.studies import CeilingsStudy
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import conditions
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.machine.quiet import Wait
from inference_benchmark.measure import held_device, retakes, warm_start
from inference_benchmark.measure.outcome import CellFailure
from inference_benchmark.measure.run import measure_cell, run_study
from inference_benchmark.measure.run_notes import notes_of_run
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.records.record import Record

WATCH = Supervision(patience_s=30, max_retakes=2)
CELL = make_cell()


def take(others: float = 0.0, outcome: str = "ok", slower: float = 1.0, samples_s=(0.1, 0.1, 0.1)):
    """Calls of 10 s on two CPUs of which others took this part, on a machine that was so many times slower."""
    report = WorkerReport(
        conditions={"seconds": 10.0, "usable_cpus": 2, "counters": {"other_cpu_s": 20 * others}},
        yardstick={"before": make_yardstick(0.2 * slower, 0.25), "after": make_yardstick(0.2 * slower, 0.25)},
        calls_s={"measure": list(samples_s)},
    )
    return report, outcome, None


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """least_disturbed of these takes, in a run of Snakemake whose machine is quiet as often as is said; also how many
    it took, and how long each might wait."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv(warm_start.OWNER, str(os.getpid()))

    def measure(*takes, watch=WATCH, quiet=(True,) * 9):
        left, waits, asked = list(takes), list(quiet), []
        monkeypatch.setattr(retakes.quiet, "wait_after_look", lambda patience_s: Wait(0.0, waits.pop(0)))

        def worker(patience_s):
            asked.append(patience_s)
            next_one = left.pop(0)
            if isinstance(next_one, Exception):
                raise next_one
            return next_one

        return *retakes.least_disturbed(worker, "cpu", watch, "cpu hf"), asked

    return measure


def test_an_undisturbed_round_is_measured_once(measure):
    quiet = take(others=0.04)
    assert measure(quiet) == (quiet, [], [30])


def test_a_disturbed_round_is_measured_again_and_kept_with_its_reason(measure):
    disturbed, quiet = take(others=0.5, samples_s=[6.4] * 3), take()
    chosen, (aside,), asked = measure(disturbed, quiet)
    assert chosen is quiet
    assert aside.report.run().samples_s == (6.4,) * 3
    assert aside.reason == "other processes used the CPUs for 10 s of 20 s of 2 CPUs (50.0%)"
    assert asked == [30, 30]


def test_the_least_disturbed_take_counts_whatever_its_times(measure):
    """The quickest take is not that of the fewest others."""
    takes = [take(0.5, samples_s=[0.3] * 3), take(0.2, samples_s=[0.2] * 3), take(0.4, samples_s=[0.1] * 3)]
    chosen, set_aside, asked = measure(*takes)
    assert chosen is takes[1]
    assert [aside.report.run().samples_s[0] for aside in set_aside] == [0.3, 0.1]
    assert len(asked) == 3, "two retakes at most"


def test_a_machine_that_does_not_become_quiet_gets_no_retake(measure):
    disturbed = take(0.5)
    assert measure(disturbed, quiet=[False])[:2] == (disturbed, [])
    assert measure(disturbed, watch=Supervision(patience_s=30))[:2] == (disturbed, []), "max_retakes is 0"


def test_a_slow_yardstick_disturbs_once_the_speed_of_the_machine_is_known(measure):
    slow = take(slower=2.0)
    assert measure(slow)[:2] == (slow, []), "nothing is known yet"
    for _ in range(4):
        assert len(measure(take())[2]) == 1
    chosen, (aside,), _ = measure(slow, take(slower=1.5))
    assert chosen[0].yardstick["before"] == make_yardstick(0.2 * 1.5, 0.25)
    assert aside.reason == (
        "the machine was slower than around the other cells: memory 50% of 50 GB/s, arithmetic 100% of 400 Gflop/s"
    )


def test_efforts_in_vain_become_fewer_until_a_round_is_quiet(measure):
    """So a machine that is never quiet costs a run two waits and not one for each cell."""
    assert measure(take(0.5), quiet=[False])[2] == [30]
    assert measure(take(0.5), take(0.5))[2] == [15, 15], "one retake of two"
    assert measure(take(0.5))[2] == [7.5]
    assert measure(take())[2] == [3.75]
    assert measure(take(0.5), take(0.5), take())[2] == [30, 30, 30]


def test_a_wait_is_at_most_half_of_the_time_limit(measure):
    assert measure(take(), watch=Supervision(timeout_s=10, patience_s=30))[2] == [5]


def test_a_retake_without_figures_decides(measure):
    oom = take(outcome="oom")
    chosen, set_aside, _ = measure(take(0.5), oom)
    assert chosen is oom
    assert len(set_aside) == 1


def test_a_retake_that_fails_leaves_what_was_measured(measure):
    disturbed = take(0.5)
    assert measure(disturbed, CellFailure("no end"))[:2] == (disturbed, [])
    with pytest.raises(CellFailure):
        measure(CellFailure("no end"))


def test_a_cell_by_hand_knows_nothing_of_others(monkeypatch):
    monkeypatch.delenv(warm_start.OWNER, raising=False)
    for _ in range(2):
        with notes_of_run() as notes:
            assert (notes.vain, notes.speeds) == (0, {})
            notes.escaped(False)


def test_the_record_has_what_was_set_aside(measure, monkeypatch):
    """With real workers: the first take counts as disturbed, by word."""
    said = iter([["a neighbour"], [], []])
    monkeypatch.setattr(conditions, "disturbances", lambda *_: next(said))
    monkeypatch.setattr(retakes.quiet, "wait_after_look", lambda _: Wait(0.0, True))
    monkeypatch.delenv(warm_start.OWNER)
    record = measure_cell(CELL, Supervision(max_retakes=2))
    (aside,) = record.set_aside
    assert (aside.reason, len(aside.run.samples_s), len(record.runs)) == ("a neighbour", 3, 1)
    assert Record.from_document(record.to_document()) == record
    assert "set_aside" not in measure_cell(CELL, Supervision()).to_document()


def test_disturbed_ceilings_are_measured_again_and_all_samples_count(monkeypatch, tmp_path):
    """A neighbour makes no sample faster."""
    takes = [take(0.5)[0], take()[0]]
    for report, seconds in zip(takes, (0.1, 0.2), strict=True):
        sample = {
            "kind": "bandwidth",
            "kernel": "sum",
            "working_set_bytes": 1,
            "moved_bytes": 10,
            "samples_s": [seconds],
        }
        report.results.append(sample)
    left = iter(takes)
    monkeypatch.setattr(held_device.HeldDevice, "run_worker", lambda *_, **__: (next(left), "ok", None))
    monkeypatch.setattr(retakes.quiet, "wait_after_look", lambda _: Wait(0.0, True))
    monkeypatch.delenv(warm_start.OWNER, raising=False)
    record = run_study(CeilingsStudy("box", "cpu", None), Supervision(max_retakes=2), tmp_path / "ceilings.json")
    assert peaks(record.results).bandwidth == [(1, 100.0)]
    assert record.flags == (), "those of the least disturbed"


@pytest.mark.parametrize(("busy", "users"), [(2, None), (99, "2 processes")])
def test_a_cell_waits_for_others_to_leave_the_gpu(busy, users, monkeypatch):
    now_s, asked = [0.0], []

    def look(gpu):
        asked.append(gpu)
        return "2 processes" if len(asked) <= busy else None

    monkeypatch.setattr(held_device.conditions, "busy", look)
    monkeypatch.setattr(held_device.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(held_device.time, "sleep", lambda seconds: now_s.__setitem__(0, now_s[0] + seconds))
    monkeypatch.delenv(warm_start.OWNER, raising=False)
    gpu = Gpu(0, "GPU-a", "x", 1)
    assert held_device._users_after_wait([gpu], 30) == ({} if users is None else {"GPU-a": users})
    assert set(asked) == {gpu}
    assert held_device._users_after_wait([], 30) == {}
    assert now_s[0] == (2 if users is None else 30)
