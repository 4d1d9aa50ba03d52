"""GPUs (through NVML) and CPU of this machine. Imports no torch."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference_benchmark.machine import cgroups

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Gpu:
    """One CUDA device as NVML lists it, in PCI bus order."""

    index: int
    uuid: str
    name: str
    memory_bytes: int


@contextmanager
def nvml():
    """The initialised pynvml module; None without an NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def gpus() -> list[Gpu]:
    """All GPUs of this machine, visible to this process or not."""
    with nvml() as lib:
        all_gpus = []
        for index in range(lib.nvmlDeviceGetCount() if lib else 0):
            handle = lib.nvmlDeviceGetHandleByIndex(index)
            memory_bytes = lib.nvmlDeviceGetMemoryInfo(handle).total
            all_gpus.append(Gpu(index, lib.nvmlDeviceGetUUID(handle), lib.nvmlDeviceGetName(handle), memory_bytes))
        return all_gpus


def free_memory_bytes(gpu: Gpu) -> int | None:
    """The memory of a GPU that no process holds; None where NVML does not say. Raises nothing."""
    with nvml() as lib:
        try:
            return lib.nvmlDeviceGetMemoryInfo(lib.nvmlDeviceGetHandleByUUID(gpu.uuid)).free if lib else None
        except lib.NVMLError:
            return None


def driver_version() -> str | None:
    """The version of the NVIDIA driver; None without one."""
    with nvml() as lib:
        return lib.nvmlSystemGetDriverVersion() if lib else None


def visible(all_gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that CUDA shows to a process with this environment; the first is device 0.

    CUDA_VISIBLE_DEVICES holds indices or (abbreviated) UUIDs. The first invalid entry hides itself and all entries
    after it (CUDA C++ Programming Guide, "CUDA Environment Variables").
    """
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return list(all_gpus)
    visible_gpus: list[Gpu] = []
    for entry in (part.strip() for part in value.split(",")):
        matches = [g for g in all_gpus if (entry == str(g.index) if entry.isdigit() else g.uuid.startswith(entry))]
        if not entry or len(matches) != 1 or matches[0] in visible_gpus:
            break
        visible_gpus.append(matches[0])
    return visible_gpus


def detect_device(environ: Mapping[str, str] = os.environ) -> str:
    """``cuda`` if a GPU is visible to this process, else ``cpu``."""
    return "cuda" if visible(gpus(), environ) else "cpu"


def label(device: str, environ: Mapping[str, str] = os.environ) -> str:
    """The machine label for paths: the slug of the first visible GPU's name, or of the CPU's.

    Raises LookupError if device is ``cuda`` and no GPU is visible.
    """
    if device == "cpu":
        return cpu_label()
    visible_gpus = visible(gpus(), environ)
    if not visible_gpus:
        raise LookupError("no CUDA GPU is visible here to name the machine after")
    return slug(visible_gpus[0].name)


def is_called(name: str, part: str | None) -> bool:
    """Whether a device's name contains a text, ignoring case; True for no text."""
    return not part or part.lower() in name.lower()


def slug(name: str) -> str:
    """Lower-case letters, digits and dashes: ``Intel(R) Xeon(R) CPU @ 2.30GHz`` -> ``intel-xeon``."""
    name = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|\b\d+-core\b|@.*$", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "unknown"


def cpu_label(cpuinfo: Path = CPUINFO) -> str:
    """The slug of the CPU's name; with family, model and the number of usable CPUs if the name is that of many CPUs.

    Such a name has no number, as ``AMD EPYC`` in a virtual machine, or is an architecture, as ``aarch64``.
    """
    name = slug(cpu_name(cpuinfo))
    if re.search(r"\d", name) and name != slug(platform.machine()):
        return name
    facts = [name]
    for key in ("cpu family", "model", "CPU implementer", "CPU part"):
        if match := re.search(rf"^{key}\s*:\s*(\S+)$", _read(cpuinfo), re.MULTILINE):
            facts.append(slug(f"{key.split()[-1]} {match[1]}"))
    return "-".join([*facts, str(usable_cpus()), "cpus"])


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """The CPU's name from the system, else the architecture (``aarch64``)."""
    if text := _read(cpuinfo):
        match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        return match[1].strip() if match else platform.machine()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def _read(cpuinfo: Path) -> str:
    """The text of a file; "" if there is none."""
    return cpuinfo.read_text() if cpuinfo.exists() else ""


def usable_cpu_ids() -> list[int]:
    """The CPUs that this process may run on: its affinity on Linux, else all. For CPU quotas see cgroups.cpu_limit."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def usable_cpus() -> int:
    """The number of CPUs that this process may run on."""
    return len(usable_cpu_ids())


def default_threads() -> int:
    """Threads of a measured process that no setting gives: what affinity and the CPU quota of a cgroup both allow.

    A quota stops all threads of a process at once, so more threads than it allows wait for each other. Part of a CPU
    is no thread; at least 1.
    """
    quota_cpus = cgroups.cpu_limit()
    return usable_cpus() if quota_cpus is None else max(1, min(usable_cpus(), int(quota_cpus)))
