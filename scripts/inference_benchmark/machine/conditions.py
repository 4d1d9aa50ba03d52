"""What the device and the machine were doing while a cell was timed. Imports no torch.

A figure from a throttled or shared machine looks like any other, so the parent looks on while the worker
measures: gauges are sampled now and then, counters are read where a timed phase begins and where it ends.
Whatever cannot be read is left out: looking on must never end a measurement.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from inference_benchmark.machine import hardware
from inference_benchmark.machine.host_counters import (
    REAL_ROOTS,
    Roots,
    cgroup_times_s,
    cpu_frequency_hz,
    cpu_times_s,
    process_cpu_s,
    thermal_throttle_events,
)
from inference_benchmark.units import format_bytes

# Shares from which on a figure is in doubt.
_CONTENDED = 0.05  # of the usable CPUs' time: daemons, an editor and this process take less
_STOLEN = 0.01  # of the usable CPUs' time: it may all be taken from the one CPU that the others wait for
_THROTTLED = 0.001  # of the window: a quota stops every thread at once, and without one this is exactly 0
_STALLED = 0.01  # of the window: as much as calls scatter on an undisturbed machine
_COUNTED_S = 0.1  # CPU time is counted in ticks of 10 ms on each CPU, so a few of them say nothing
_UTILISED_PERCENT = 5  # a GPU that only draws a desktop stays below
_UTILISATION_S = 1.2  # NVML's figure is one of the last second, at the most

_GPU_GAUGES: dict[str, Callable[[Any, Any], float]] = {
    "gpu_sm_clock_hz": lambda lib, gpu: lib.nvmlDeviceGetClockInfo(gpu, lib.NVML_CLOCK_SM) * 10**6,
    "gpu_memory_clock_hz": lambda lib, gpu: lib.nvmlDeviceGetClockInfo(gpu, lib.NVML_CLOCK_MEM) * 10**6,
    "gpu_temperature_c": lambda lib, gpu: lib.nvmlDeviceGetTemperature(gpu, lib.NVML_TEMPERATURE_GPU),
    "gpu_power_w": lambda lib, gpu: lib.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "gpu_utilisation_percent": lambda lib, gpu: lib.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "gpu_memory_used_bytes": lambda lib, gpu: lib.nvmlDeviceGetMemoryInfo(gpu).used,
}
_POWER_REASONS = ("sw_power_cap", "hw_power_brake_slowdown", "hw_slowdown")
_THERMAL_REASONS = ("sw_thermal_slowdown", "hw_thermal_slowdown")


class Sampler:
    """Looks on while a worker measures; gpu is None where it measures on the CPU. No method raises."""

    def __init__(self, gpu: hardware.Gpu | None, worker_pid: int, roots: Roots = REAL_ROOTS) -> None:
        self._worker_pid, self._roots, self._cpus = worker_pid, roots, hardware.usable_cpu_ids()
        self._worker_cpu_s: float | None = None
        self._errors: list[str] = []
        self._forget()
        self._is_open = False
        self._lib: Any = None
        if gpu is not None:
            self._start_nvml(gpu.uuid)

    def open(self) -> None:
        """A timed phase begins; what was seen before is forgotten."""
        self._forget()
        self._is_open = True
        self.sample()
        self._before, self._began_s = self._totals(), time.monotonic()

    def sample(self) -> None:
        if not self._is_open:
            return
        if frequency_hz := cpu_frequency_hz(self._roots, self._cpus):
            self._gauges["cpu_frequency_hz"].append(frequency_hz)
        self._look_at_worker()
        if self._lib is not None:
            self._sample_gpu()
        self._n_samples += 1

    def close(self) -> None:
        """The timed phase has ended."""
        if self._is_open:
            self._seconds = time.monotonic() - self._began_s
            self._counters = _grown(self._before, self._totals())
            self.sample()
            self._is_open = False

    def summary(self) -> dict[str, Any]:
        """What was seen in the last window, as JSON; a fact that could not be had is left out."""
        told: dict[str, Any] = {
            "n_samples": self._n_samples,
            "seconds": self._seconds,
            "usable_cpus": len(self._cpus),
            "gauges": {
                name: {"min": min(values), "median": statistics.median(values), "max": max(values)}
                for name, values in sorted(self._gauges.items())
            },
            "counters": dict(self._counters),
            "errors": list(self._errors),
        }
        if self._reasons is not None:
            told["gpu_throttle_reasons"] = dict(self._reasons)
        if self._processes is not None:
            told["other_gpu_processes"] = _others(self._processes, self._worker_pid)
        return told

    def stop(self) -> None:
        """Let go of NVML."""
        lib, self._lib = self._lib, None
        if lib is not None:
            try:
                lib.nvmlShutdown()
            except lib.NVMLError as error:
                self._errors.append(f"NVML: {error} at shutdown")

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _forget(self) -> None:
        self._n_samples, self._seconds = 0, 0.0
        self._gauges: dict[str, list[float]] = defaultdict(list)
        self._counters: dict[str, float] = {}
        self._reasons: Counter[str] | None = None
        self._processes: dict[int, int | None] | None = None

    def _look_at_worker(self) -> None:
        # It may be gone when the window closes; what it had used when it was last seen then stands.
        cpu_s = process_cpu_s(self._roots, self._worker_pid)
        self._worker_cpu_s = self._worker_cpu_s if cpu_s is None else cpu_s

    def _totals(self) -> dict[str, float]:
        """Everything that is counted, since whenever the kernel counts it."""
        self._look_at_worker()
        facts = {
            "worker_cpu_s": self._worker_cpu_s,
            "own_cpu_s": process_cpu_s(self._roots, "self"),
            "cpu_thermal_throttle_events": thermal_throttle_events(self._roots, self._cpus),
            **cpu_times_s(self._roots, self._cpus),
            **cgroup_times_s(self._roots),
        }
        return {name: value for name, value in facts.items() if value is not None}

    def _start_nvml(self, uuid: str) -> None:
        import pynvml

        try:
            pynvml.nvmlInit()
            self._lib = pynvml
            self._gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            self._errors.append(f"NVML: {error} at start")
            self.stop()

    def _sample_gpu(self) -> None:
        lib, gpu = self._lib, self._gpu
        try:
            for name, query in _GPU_GAUGES.items():
                if (value := _ask(lib, gpu, query)) is not None:
                    self._gauges[name].append(value)
            if (reasons := _ask(lib, gpu, _throttle_reasons)) is not None:
                self._reasons = (self._reasons or Counter()) + Counter(reasons)
            if (processes := _ask(lib, gpu, _processes)) is not None:
                self._processes = {**(self._processes or {}), **processes}
        except lib.NVMLError as error:
            self._errors.append(f"NVML: {error} after {self._n_samples} samples")
            self.stop()


def busy(gpu: hardware.Gpu) -> str | None:
    """Who uses this GPU now, in words; None where nobody does or NVML does not say."""
    with hardware.nvml() as lib:
        if lib is None:
            return None
        try:
            handle = lib.nvmlDeviceGetHandleByUUID(gpu.uuid)
            processes = _ask(lib, handle, _processes) or {}
            percent = _ask(lib, handle, _GPU_GAUGES["gpu_utilisation_percent"])
            if not processes and (percent or 0) > _UTILISED_PERCENT:
                # Perhaps the work of a process that has just ended, such as our own last cell.
                time.sleep(_UTILISATION_S)
                percent = _ask(lib, handle, _GPU_GAUGES["gpu_utilisation_percent"])
        except lib.NVMLError:
            return None
    if not processes and (percent or 0) <= _UTILISED_PERCENT:
        return None
    words = [_held(list(processes.values()))] if processes else []
    return ", ".join(words + ([] if percent is None else [f"utilisation {percent} %"]))


def flags(conditions: Mapping[str, Any], device: str) -> list[dict[str, str]]:
    """What puts a figure in doubt, each with its evidence in a sentence; device is ``cuda`` or ``cpu``."""
    found = [*(_gpu_flags(conditions) if device == "cuda" else ()), *_machine_flags(conditions)]
    if errors := conditions.get("errors"):
        found.append(("conditions-unknown", "; ".join(errors)))
    return [{"name": name, "message": message} for name, message in found]


def _gpu_flags(conditions: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    reasons = Counter(conditions.get("gpu_throttle_reasons", {}))
    # NVML tells hw_slowdown along with hw_thermal_slowdown; only what is left of it is for power.
    reasons["hw_slowdown"] -= reasons["hw_thermal_slowdown"]
    for name, causes in (("thermal", _THERMAL_REASONS), ("power", _POWER_REASONS)):
        if seen := [f"{cause} in {reasons[cause]}" for cause in causes if reasons[cause] > 0]:
            yield f"gpu-throttled-{name}", f"{', '.join(seen)} of {conditions.get('n_samples', 0)} samples"
    if others := conditions.get("other_gpu_processes"):
        yield "gpu-shared", f"besides the worker {_held([o.get('memory_bytes') for o in others])} of the GPU's memory"


def _machine_flags(conditions: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    counters = conditions.get("counters", {})
    window_s, n_cpus = conditions.get("seconds", 0.0), conditions.get("usable_cpus", 0)
    for name, counter, whole_s, share, least_s, message in (
        ("cpu-contended", "other_cpu_s", window_s * n_cpus, _CONTENDED, _COUNTED_S, "other processes used the CPUs"),
        ("cpu-stolen", "steal_cpu_s", window_s * n_cpus, _STOLEN, _COUNTED_S, "the hypervisor withheld the CPUs"),
        ("cpu-throttled", "cgroup_throttled_s", window_s, _THROTTLED, 0, "a cgroup's CPU quota held threads back"),
        ("memory-pressure", "memory_pressure_s", window_s, _STALLED, 0, "threads waited for memory"),
    ):
        spent_s = counters.get(counter, 0.0)
        if whole_s > 0 and spent_s > max(share * whole_s, least_s):
            cpus = f" of {n_cpus} CPUs" if whole_s != window_s else ""
            yield name, f"{message} for {spent_s:.3g} s of {whole_s:.3g} s{cpus} ({spent_s / whole_s:.1%})"
    if events := counters.get("cpu_thermal_throttle_events"):
        yield "cpu-thermal", f"the CPUs were slowed for heat {events:.0f} times"


def _held(sizes: Sequence[int | None]) -> str:
    """``2 processes hold 3.1 GB``."""
    known = [n_bytes for n_bytes in sizes if n_bytes is not None]
    amount = format_bytes(sum(known)) if known else "an unknown amount"
    return f"{len(sizes)} processes hold {amount}" if len(sizes) != 1 else f"1 process holds {amount}"


def _ask(lib: Any, gpu: Any, query: Callable[[Any, Any], Any]) -> Any:
    """The answer, or None where this device or driver has none to give; other NVML errors are raised."""
    try:
        return query(lib, gpu)
    except (lib.NVMLError_NotSupported, lib.NVMLError_FunctionNotFound, lib.NVMLLibraryMismatchError):
        return None


def _throttle_reasons(lib: Any, gpu: Any) -> list[str]:
    try:
        mask = lib.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except lib.NVMLError_FunctionNotFound:  # the name that drivers before 535 know
        mask = lib.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    names = (*_THERMAL_REASONS, *_POWER_REASONS)
    return [name for name in names if mask & getattr(lib, "nvmlClocksEventReason" + name.title().replace("_", ""))]


def _processes(lib: Any, gpu: Any) -> dict[int, int | None]:
    return {process.pid: process.usedGpuMemory for process in lib.nvmlDeviceGetComputeRunningProcesses(gpu)}


def _others(seen: Mapping[int, int | None], worker_pid: int) -> list[dict[str, int | None]]:
    # In a container NVML may tell the pids of the host, so that the worker is there under a pid unknown here.
    # One of those seen is the worker then, and how many others there are still holds.
    ours = worker_pid if worker_pid in seen else next(iter(seen), None)
    return [{"pid": pid, "memory_bytes": n_bytes} for pid, n_bytes in seen.items() if pid != ours]


def _grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The counters of a window from the totals at both its ends."""
    # Rounded to microseconds, which is as finely as any of them is counted.
    grown = {name: round(after[name] - value, 6) for name, value in before.items() if name in after}
    throttled = [grown.pop(name) for name in list(grown) if name.startswith("throttled ")]
    if throttled:
        grown["cgroup_throttled_s"] = max(throttled)
    busy_s, own_s = grown.pop("busy_cpu_s", None), grown.pop("own_cpu_s", None)
    if busy_s is not None and own_s is not None and "worker_cpu_s" in grown:
        grown["other_cpu_s"] = max(0.0, round(busy_s - own_s - grown["worker_cpu_s"], 6))
    return grown
