"""A fake pynvml, child processes that use CPU time, and fake /proc and /sys trees."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from running import REPO

from inference_benchmark.machine import conditions
from inference_benchmark.machine.conditions import Roots, Sampler
from inference_benchmark.machine.hardware import Gpu

FAKE = REPO / "tests/fake_nvml/pynvml.py"
GPU = Gpu(0, "GPU-a", "NVIDIA Fake A", 80 * 2**30)
WORKER = 4711
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def load_fake():
    spec = importlib.util.spec_from_file_location("pynvml", FAKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Child:
    """A process that is idle until begin(cpu_s) makes it use CPU time."""

    CODE = """
import sys, time
for line in sys.stdin:
    end_s = time.process_time() + float(line)
    while time.process_time() < end_s:
        pass
    print(flush=True)
"""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.begin(0.0)
        self.finish()

    def begin(self, cpu_s: float) -> None:
        self.process.stdin.write(f"{cpu_s}\n")

    def finish(self) -> None:
        """Wait until the CPU time is used."""
        self.process.stdout.readline()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class FakeMachine:
    """Fake /proc and /sys trees; this process may use CPUs 0 and 1 of 3."""

    def __init__(self, folder: Path) -> None:
        self.roots = Roots(folder / "proc", folder / "sys")
        self.roots.proc.mkdir()
        self.roots.sys.mkdir()

    def write(self, files: dict[str, object]) -> None:
        for name, text in files.items():
            path = self.roots.proc.parent / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    def window_counters(self, before: dict[str, object], after: dict[str, object]) -> dict[str, float]:
        """The counters of a window during which the files change from before to after."""
        self.write(before)
        sampler = Sampler((), WORKER, self.roots)
        sampler.open()
        self.write(after)
        sampler.close()
        return sampler.summary()["counters"]

    def frequency_hz(self, files: dict[str, object]) -> float | None:
        self.write(files)
        return conditions.cpu_frequency_hz(self.roots, sorted(os.sched_getaffinity(0)))


def process_stat(user_s: float, system_s: float, name: str = "python") -> str:
    return f"1 ({name}) R 1 1 1 0 -1 4194304 10 20 30 40 {user_s * TICKS_PER_S:.0f} {system_s * TICKS_PER_S:.0f} 7 8 20"


def proc_stat(*cpus_s: tuple[float, ...]) -> str:
    """/proc/stat; per CPU: user, nice, system, idle, iowait, irq, softirq, steal. The kernel adds two guest times."""
    rows = [" ".join(f"{s * TICKS_PER_S:.0f}" for s in (*cpu_s, 0, 0)) for cpu_s in cpus_s]
    return "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *(f"cpu{i} {row}" for i, row in enumerate(rows)), "intr 1 2 3"])
