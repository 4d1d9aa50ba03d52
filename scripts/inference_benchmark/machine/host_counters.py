"""Kernel counters of CPUs, processes and cgroups. Reading them is cheap; unavailable values are None or left out."""

import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from inference_benchmark.machine.cgroups import cgroups, numbers, read

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Roots:
    """The folders of the kernel's proc and sys file systems."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


REAL_ROOTS = Roots()


def cpu_frequency_hz(roots: Roots, cpus: Sequence[int]) -> float | None:
    """The mean over these CPUs, or over a sample if there are many."""
    # Reading all frequencies of a large server takes milliseconds and interrupts the CPUs being measured: 16 at most.
    sampled_cpus = cpus[:: -(-len(cpus) // 16)]
    paths = (roots.sys / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in sampled_cpus)
    frequencies_hz = [khz * 1e3 for _, khz in numbers(paths, r"^(\d+)$")]
    if not frequencies_hz:
        pattern = r"^processor\s*: (\d+)$(?:\n.+)*?\ncpu MHz\s*: ([\d.]+)$"
        blocks = re.finditer(pattern, read(roots.proc / "cpuinfo", max_characters=2**16), re.MULTILINE)
        frequencies_hz = [float(block[2]) * 1e6 for block in blocks if int(block[1]) in cpus]
    return statistics.fmean(frequencies_hz) if frequencies_hz else None


def process_cpu_s(roots: Roots, pid: int | str) -> float | None:
    """User and system time of a process, summed over its threads."""
    # The process name can contain anything and ends at the last parenthesis; utime and stime are fields 14 and 15.
    numbers = read(roots.proc / f"{pid}/stat").rpartition(")")[2]
    match = re.match(r" \S(?: -?\d+){10} (\d+) (\d+)", numbers)
    return (int(match[1]) + int(match[2])) * _TICK_S if match else None


def tree_cpu_s(roots: Roots, pid: int | str) -> float | None:
    """The same of a process and those that it has started and not waited for yet."""
    children = read(roots.proc / f"{pid}/task/{os.getpid() if pid == 'self' else pid}/children").split()
    own_s = process_cpu_s(roots, pid)
    return own_s if own_s is None else own_s + sum(tree_cpu_s(roots, int(child)) or 0 for child in children)


def cpu_times_s(roots: Roots, cpus: Sequence[int]) -> dict[str, float]:
    """``busy_cpu_s`` and ``steal_cpu_s``, summed over these CPUs."""
    lines = re.findall(r"^cpu(\d+)((?: \d+){8})", read(roots.proc / "stat"), re.MULTILINE)
    rows = [list(map(int, numbers.split())) for cpu, numbers in lines if int(cpu) in cpus]
    if not rows:
        return {}
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(sum, zip(*rows, strict=True))
    busy = user + nice + system + irq + softirq  # user includes the time of guests
    return {"busy_cpu_s": busy * _TICK_S, "steal_cpu_s": steal * _TICK_S}


def thermal_throttle_events(roots: Roots, cpus: Sequence[int]) -> int | None:
    """The sum over these CPUs; each CPU of a package counts the events of the whole package."""
    folders = [roots.sys / f"devices/system/cpu/cpu{cpu}/thermal_throttle" for cpu in cpus]
    paths = (folder / f"{part}_throttle_count" for folder in folders for part in ("core", "package"))
    counts = [count for _, count in numbers(paths, r"^(\d+)$")]
    return sum(counts) if counts else None


def cgroup_times_s(roots: Roots) -> dict[str, float]:
    """``KIND_pressure_s`` of the nearest cgroup that has it, else of the machine; ``throttled PATH`` per cgroup."""
    groups = list(cgroups("cpu", roots.proc / "self/cgroup", roots.sys / "fs/cgroup"))
    times_s = {}
    for pattern, unit_s in ((r"^throttled_usec (\d+)$", 1e-6), (r"^throttled_time (\d+)$", 1e-9)):  # cgroup v2, v1
        for path, count in numbers((group / "cpu.stat" for group in groups), pattern):
            times_s[f"throttled {path.parent}"] = count * unit_s
    for kind in ("cpu", "memory", "io"):
        paths = (*(group / f"{kind}.pressure" for group in groups), roots.proc / f"pressure/{kind}")
        for _, microseconds in islice(numbers(paths, r"^some .*\btotal=(\d+)"), 1):
            times_s[f"{kind}_pressure_s"] = microseconds * 1e-6
    return times_s
