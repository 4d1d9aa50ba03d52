"""Waiting until other processes leave the CPUs alone. In the process of a cell and in its parent; imports no torch."""

import time
from typing import NamedTuple

from inference_benchmark.machine import hardware, host_counters
from inference_benchmark.machine.conditions import MAX_OTHER
from inference_benchmark.machine.host_counters import REAL_ROOTS, Roots

#: How long a look at the CPUs takes: their time is counted in ticks of 10 ms.
_LOOK_S = 0.5


class OtherLoad:
    """The time that other processes and the hypervisor take of the CPUs that this process may use."""

    def __init__(self, roots: Roots = REAL_ROOTS) -> None:
        self._roots, self._cpus = roots, hardware.usable_cpu_ids()
        self._since_s, self._taken_s = time.monotonic(), self._total_s()

    def share(self) -> float:
        """The part of the CPUs' time that they took since this was last called, or made; 0 where nothing is known."""
        now_s, taken_s = time.monotonic(), self._total_s()
        took_s, window_s = taken_s - self._taken_s, now_s - self._since_s
        self._since_s, self._taken_s = now_s, taken_s
        return max(0.0, took_s / window_s / len(self._cpus)) if window_s > 0 else 0.0

    def _total_s(self) -> float:
        times_s = host_counters.cpu_times_s(self._roots, self._cpus)
        own_s = host_counters.tree_cpu_s(self._roots, "self")
        return sum(times_s.values()) - own_s if times_s and own_s is not None else 0.0


class Wait(NamedTuple):
    """seconds: that it took. is_quiet: whether others left the CPUs alone at its end."""

    seconds: float
    is_quiet: bool


def wait(patience_s: float, load: OtherLoad) -> Wait:
    """Sleep while others use the CPUs, at most for so long; not at all if they did not since the last look."""
    began_s, is_quiet = time.monotonic(), load.share() <= MAX_OTHER
    while not is_quiet and (left_s := began_s + patience_s - time.monotonic()) > 0:
        time.sleep(min(_LOOK_S, left_s))
        is_quiet = load.share() <= MAX_OTHER
    return Wait(time.monotonic() - began_s, is_quiet)


def wait_after_look(patience_s: float) -> Wait:
    """The same, of what others do from now on."""
    load = OtherLoad()
    time.sleep(_LOOK_S)
    return wait(patience_s, load)
