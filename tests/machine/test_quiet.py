"""Waiting for other processes, on a fake /proc and a virtual clock."""

from __future__ import annotations

from functools import partial

import pytest
from fake_machine import proc_stat, process_stat

from inference_benchmark.machine import quiet
from inference_benchmark.machine.quiet import OtherLoad, wait, wait_after_look


class Neighbours:
    """Two CPUs, of whose time other processes take a part that depends on when. Time passes in sleeps alone."""

    def __init__(self, machine, share_at) -> None:
        self.machine, self.share_at, self.now_s, self.taken_s = machine, share_at, 0.0, 0.0
        self.write()

    def write(self) -> None:
        """The process itself has taken 3 s; the hypervisor withholds a fourth of what others take."""
        stolen_s = self.taken_s / 4
        busy = (3 + self.taken_s - stolen_s, 0, 0, 0, 0, 0, 0, stolen_s)
        self.machine.write({"proc/stat": proc_stat(busy, (0,) * 8), "proc/self/stat": process_stat(2, 1)})

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.taken_s += 2 * seconds * self.share_at(self.now_s)
        self.now_s += seconds
        self.write()


@pytest.fixture
def beside(machine, monkeypatch):
    def beside(share_at) -> tuple[Neighbours, OtherLoad]:
        neighbours = Neighbours(machine, share_at)
        monkeypatch.setattr(quiet, "time", neighbours)
        monkeypatch.setattr(quiet, "OtherLoad", partial(OtherLoad, machine.roots))
        return neighbours, OtherLoad(machine.roots)

    return beside


def test_the_share_of_others_is_that_of_the_cpus_since_the_last_look(beside):
    neighbours, load = beside(lambda now_s: 0.5 if now_s < 2 else 0.1)
    neighbours.sleep(2)
    assert load.share() == pytest.approx(0.5)
    neighbours.sleep(3)
    assert load.share() == pytest.approx(0.1)


def test_nobody_waits_who_was_not_disturbed(beside):
    neighbours, load = beside(lambda now_s: 0.04)
    neighbours.sleep(1)
    assert wait(30, load) == (0, True)


def test_a_wait_ends_when_others_have_left(beside):
    neighbours, load = beside(lambda now_s: 0.5 if now_s < 4.2 else 0.0)
    neighbours.sleep(1)
    seconds, is_quiet = wait(30, load)
    assert is_quiet
    assert 3.2 < seconds < 4.5


def test_a_wait_ends_when_patience_does(beside):
    neighbours, load = beside(lambda now_s: 0.5)
    neighbours.sleep(1)
    assert wait(7.2, load) == (pytest.approx(7.2), False)
    assert wait(0, load) == (0, True), "nothing is known of no time"


def test_one_who_asks_later_looks_first(beside):
    neighbours, _ = beside(lambda now_s: 0.5 if now_s < 1.2 else 0.0)
    assert wait_after_look(30).is_quiet
    assert neighbours.now_s > 1.2
    assert wait_after_look(0).is_quiet
    neighbours.share_at = lambda now_s: 1.0
    assert not wait_after_look(0).is_quiet


def test_a_machine_without_counters_is_quiet(tmp_path, machine):
    load = OtherLoad(machine.roots)
    assert load.share() == 0
    assert wait(30, load).is_quiet
