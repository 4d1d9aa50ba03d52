"""What this machine is, found out without torch: GPUs through NVML, the CPU from the kernel."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """One CUDA device as NVML names it, in PCI bus order."""

    index: int
    uuid: str
    name: str
    memory_bytes: int


@contextmanager
def nvml():
    """The initialised pynvml module, or None where there is no NVIDIA driver."""
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
        found = []
        for index in range(lib.nvmlDeviceGetCount() if lib else 0):
            handle = lib.nvmlDeviceGetHandleByIndex(index)
            memory = lib.nvmlDeviceGetMemoryInfo(handle).total
            found.append(Gpu(index, lib.nvmlDeviceGetUUID(handle), lib.nvmlDeviceGetName(handle), memory))
        return found


def driver_version() -> str | None:
    with nvml() as lib:
        return lib.nvmlSystemGetDriverVersion() if lib else None


def visible(all_gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that CUDA would show a process with this environment, first is device 0.

    CUDA_VISIBLE_DEVICES holds indices or (abbreviated) UUIDs; the first entry that names no device
    hides itself and all after it (CUDA C++ Programming Guide, "CUDA Environment Variables").
    """
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return list(all_gpus)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in value.split(",")):
        matches = [g for g in all_gpus if (entry == str(g.index) if entry.isdigit() else g.uuid.startswith(entry))]
        if not entry or len(matches) != 1 or matches[0] in chosen:
            break
        chosen.append(matches[0])
    return chosen


def detect_device(environ: Mapping[str, str] = os.environ) -> str:
    """``cuda`` where a GPU is visible to this process, else ``cpu``."""
    return "cuda" if visible(gpus(), environ) else "cpu"


def label(device: str, environ: Mapping[str, str] = os.environ) -> str:
    """A machine label for paths: the slug of the first visible GPU's name, or of the CPU's.

    Raises LookupError where device is ``cuda`` and no GPU is visible.
    """
    if device == "cpu":
        return slug(cpu_name())
    shown = visible(gpus(), environ)
    if not shown:
        raise LookupError("no CUDA GPU is visible here to name the machine after")
    return slug(shown[0].name)


def is_called(name: str, part: str | None) -> bool:
    """Whether a device's name holds a text, in capitals or not; every name holds None."""
    return not part or part.lower() in name.lower()


def slug(name: str) -> str:
    """Lower-case letters, digits and dashes: ``Intel(R) Xeon(R) CPU @ 2.30GHz`` -> ``intel-xeon``."""
    name = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|\b\d+-core\b|@.*$", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "unknown"


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name as the system gives it, else the architecture (``aarch64``)."""
    if cpuinfo.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        return match[1].strip() if match else platform.machine()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def usable_cpu_ids() -> list[int]:
    """The CPUs this process may run on (affinity and, on Linux, nothing else: see evidence.py)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def usable_cpus() -> int:
    """How many they are."""
    return len(usable_cpu_ids())
