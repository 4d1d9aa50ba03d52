"""GPUs (through NVML) and CPU of this machine. Imports no torch."""

import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from inference_benchmark.machine import cgroups

T = TypeVar("T")
CPUINFO = Path("/proc/cpuinfo")


class GpuError(RuntimeError):
    """A GPU cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Gpu:
    """One CUDA device. index: in PCI bus order among those that this process may use, as CUDA has it. mig: divided into
    parts (Multi-Instance GPU)."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    mig: bool = False


@contextmanager
def nvml():
    """The initialised pynvml module; None without an NVIDIA driver. Raises GpuError instead of NVML's errors, and
    ModuleNotFoundError: without the module nobody knows whether there is a GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        yield None
        return
    except pynvml.NVMLError as error:
        raise GpuError(f"the NVIDIA driver does not work: {error} (NVML); see nvidia-smi") from error
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        raise GpuError(f"the NVIDIA driver does not answer: {error} (NVML); see nvidia-smi") from error
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def gpus() -> list[Gpu]:
    """All GPUs that this process may use, visible to it or not. Raises GpuError if one does not answer, or if there are
    some and it may use none.

    NVML counts all GPUs of a node and refuses those that Slurm keeps for other jobs (ConstrainDevices). CUDA leaves
    them out, and so do the numbers in the CUDA_VISIBLE_DEVICES that Slurm sets.
    """
    found: list[Gpu] = []
    with nvml() as lib:
        count = lib.nvmlDeviceGetCount() if lib else 0
        for number in range(count):
            with suppress(lib.NVMLError_NoPermission):
                found.append(_gpu(lib, number, len(found)))
    if count and not found:
        remedy = "request one from Slurm, or see the permissions of /dev/nvidia*"
        raise GpuError(f"this process may not use any of the {count} GPUs here; {remedy}")
    return found


def _gpu(lib, number: int, index: int) -> Gpu:
    try:
        handle = lib.nvmlDeviceGetHandleByIndex(number)
        mig_mode = supported(lib, lib.nvmlDeviceGetMigMode, handle)  # most GPUs cannot be divided
        return Gpu(
            index,
            lib.nvmlDeviceGetUUID(handle),
            lib.nvmlDeviceGetName(handle),
            lib.nvmlDeviceGetMemoryInfo(handle).total,
            mig_mode is not None and mig_mode[0] == lib.NVML_DEVICE_MIG_ENABLE,
        )
    except lib.NVMLError_NoPermission:
        raise
    except lib.NVMLError as error:
        raise GpuError(f"GPU {number} does not answer: {error} (NVML); see nvidia-smi") from error


def supported(lib, query: Callable[..., T], *arguments: Any) -> T | None:
    """The answer to a query; None if device, driver or permissions do not allow it. Other NVML errors are raised."""
    try:
        return query(*arguments)
    except (lib.NVMLError_NotSupported, lib.NVMLError_FunctionNotFound, lib.NVMLError_NoPermission):
        return None
    except lib.NVMLLibraryMismatchError:
        return None


#: The ways between two GPUs, from near to far, as nvidia-smi topo -m names them, by NVML's level of what they share.
_WAYS = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}


def links(gpus: Sequence[Gpu]) -> list[str]:
    """The kinds of links between these GPUs, sorted: ``NVLink``, or what lies between them (PIX, PXB, PHB, NODE, SYS);
    empty if NVML does not say."""
    found = {_ask(partial(_link, *pair)) for pair in combinations(gpus, 2)}
    return sorted(found - {None})


def _link(one: Gpu, other: Gpu, lib) -> str | None:
    pair = [lib.nvmlDeviceGetHandleByUUID(gpu.uuid) for gpu in (one, other)]
    nvlink = supported(lib, lib.nvmlDeviceGetP2PStatus, *pair, lib.NVML_P2P_CAPS_INDEX_NVLINK)
    if nvlink == lib.NVML_P2P_STATUS_OK:
        return "NVLink"
    return _WAYS.get(supported(lib, lib.nvmlDeviceGetTopologyCommonAncestor, *pair))


def free_memory_bytes(gpu: Gpu) -> int | None:
    """The memory of a GPU that no process holds; None if NVML does not say."""
    return _ask(lambda lib: lib.nvmlDeviceGetMemoryInfo(lib.nvmlDeviceGetHandleByUUID(gpu.uuid)).free)


def driver_version() -> str | None:
    """The version of the NVIDIA driver; None without one that works."""
    return _ask(lambda lib: lib.nvmlSystemGetDriverVersion())


def driver_cuda_version() -> tuple[int, int] | None:
    """The newest version of CUDA that the driver knows, as (major, minor); None if it does not say."""
    number = _ask(lambda lib: lib.nvmlSystemGetCudaDriverVersion_v2())
    return number and (number // 1000, number % 1000 // 10)


def _ask(query: Callable[[Any], T]) -> T | None:
    with suppress(GpuError, ModuleNotFoundError), nvml() as lib:  # an environment may lack nvidia-ml-py
        return query(lib) if lib else None
    return None


def visible(all_gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that CUDA shows to a process with this environment; the first is device 0.

    CUDA_VISIBLE_DEVICES holds indices or (abbreviated) UUIDs. The first invalid entry hides itself and all entries
    after it (CUDA C++ Programming Guide, "CUDA Environment Variables"). Raises GpuError if CUDA would show a part of a
    GPU: NVML reports memory, power, processes and energy of whole GPUs only.
    """
    value = environ.get("CUDA_VISIBLE_DEVICES")
    visible_gpus = list(all_gpus) if value is None else []
    for entry in map(str.strip, (value or "").split(",")):
        if entry.startswith("MIG-"):
            part = f"CUDA_VISIBLE_DEVICES names {entry}, a part of a GPU (MIG)"
            raise GpuError(f"{part}; only whole GPUs can be measured: name one without MIG")
        matches = [g for g in all_gpus if (entry == str(g.index) if entry.isdigit() else g.uuid.startswith(entry))]
        if not entry or len(matches) != 1 or matches[0] in visible_gpus:
            break
        visible_gpus.append(matches[0])
    if divided := next((gpu for gpu in visible_gpus if gpu.mig), None):
        parts = f"GPU {divided.index} ({divided.name}, {divided.uuid}) is divided into parts (MIG)"
        remedy = "switch MIG off (nvidia-smi -mig 0), or name other GPUs in CUDA_VISIBLE_DEVICES"
        raise GpuError(f"{parts}; only whole GPUs can be measured: {remedy}")
    return visible_gpus


def detect_device(environ: Mapping[str, str] = os.environ) -> str:
    """``cuda`` if a GPU is visible to this process, ``cpu`` if there is none or all are hidden on purpose. Raises
    GpuError if there is one that cannot be used."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    # Slurm sets the last where a job asked for none.
    if chosen is not None and chosen.strip().lower() in ("", "-1", "none", "nodevfiles"):
        return "cpu"
    all_gpus = gpus()
    if visible(all_gpus, environ):
        return "cuda"
    if all_gpus:
        names_none = f"CUDA_VISIBLE_DEVICES is {chosen!r} and names none of the {len(all_gpus)} GPUs here"
        raise GpuError(f"{names_none}; correct it")
    return "cpu"


def label(device: str, environ: Mapping[str, str] = os.environ) -> str:
    """The machine label for paths: the slug of the first visible GPU's name, or of the CPU's. Raises LookupError for
    ``cuda`` without a visible GPU, GpuError if one cannot be used."""
    if device == "cpu":
        return cpu_label()
    if visible_gpus := visible(gpus(), environ):
        return slug(visible_gpus[0].name)
    raise LookupError("no GPU is visible here")


def is_called(name: str, part: str | None) -> bool:
    """Whether a device's name contains a text, ignoring case; True for no text."""
    return not part or part.lower() in name.lower()


def slug(name: str) -> str:
    """Lower-case letters, digits and dashes: ``Intel(R) Xeon(R) CPU @ 2.30GHz`` -> ``intel-xeon``."""
    name = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|\b\d+-core\b|@.*$", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "unknown"


def cpu_label(cpuinfo: Path = CPUINFO) -> str:
    """The slug of the CPU's name. An ambiguous name has no number, as ``AMD EPYC`` in a virtual machine, or is an
    architecture, as ``aarch64``. It gets family, model and the number of usable CPUs."""
    name = slug(cpu_name(cpuinfo))
    if re.search(r"\d", name) and name != slug(platform.machine()):
        return name
    keys = ("cpu family", "model", "CPU implementer", "CPU part")
    matches = {key: re.search(rf"^{key}\s*:\s*(\S+)$", cgroups.read(cpuinfo), re.MULTILINE) for key in keys}
    facts = [slug(f"{key.split()[-1]} {match[1]}") for key, match in matches.items() if match]
    return "-".join([name, *facts, str(usable_cpus()), "cpus"])


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """The CPU's name from the system, else the architecture (``aarch64``)."""
    if text := cgroups.read(cpuinfo):
        match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        return match[1].strip() if match else platform.machine()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, encoding="utf-8").stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def usable_cpu_ids() -> list[int]:
    """The CPUs that this process may run on: its affinity on Linux, else all. For CPU quotas see cgroups.cpu_limit."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def usable_cpus() -> int:
    return len(usable_cpu_ids())


def default_threads() -> int:
    """Threads of a worker if no setting gives them: as many as affinity and the CPU quota of a cgroup both allow, as a
    quota stops all threads of a process at once. At least 1."""
    quota_cpus = cgroups.cpu_limit()
    return usable_cpus() if quota_cpus is None else max(1, min(usable_cpus(), int(quota_cpus)))
