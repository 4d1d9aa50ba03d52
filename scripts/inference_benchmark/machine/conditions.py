"""Condition of the device and the machine during timed calls. Imports no torch.

A figure from a throttled or shared machine looks normal. So the parent process samples gauges while the worker
measures, and reads counters at the start and the end of each timed phase. Unavailable values are left out: sampling
must never end a measurement.
"""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from inference_benchmark.machine import hardware, host_counters
from inference_benchmark.machine.host_counters import REAL_ROOTS, Roots, cpu_frequency_hz
from inference_benchmark.units import format_bytes

# Thresholds of the flags.
MAX_OTHER = 0.05  # of the usable CPUs' time; daemons, an editor and this process take less
_MAX_STEAL = 0.01  # of the usable CPUs' time; it may all come from one CPU, for which the others wait
_MAX_THROTTLED = 0.001  # of the usable CPUs' time, as the kernel adds CPUs up; without a quota this is exactly 0
_MAX_PRESSURE = 0.01  # of the window; calls scatter as much on an undisturbed machine
_MIN_CPU_S = 0.1  # CPU time is counted in ticks of 10 ms on each CPU, so a few ticks mean nothing
_MAX_IDLE_PERCENT = 5  # utilisation; a GPU that only draws a desktop stays below
_UTILISATION_WINDOW_S = 1.2  # NVML averages utilisation over at most one second

#: The flags that others or heat cause, so that waiting may help. A power cap or a CPU quota stays.
_PASSING = ("cpu-contended", "cpu-stolen", "cpu-thermal", "gpu-shared", "gpu-throttled-thermal")

GPU_GAUGES: dict[str, Callable[[Any, Any], float]] = {
    "gpu_sm_clock_hz": lambda lib, gpu: lib.nvmlDeviceGetClockInfo(gpu, lib.NVML_CLOCK_SM) * 10**6,
    "gpu_memory_clock_hz": lambda lib, gpu: lib.nvmlDeviceGetClockInfo(gpu, lib.NVML_CLOCK_MEM) * 10**6,
    "gpu_temperature_c": lambda lib, gpu: lib.nvmlDeviceGetTemperature(gpu, lib.NVML_TEMPERATURE_GPU),
    "gpu_power_w": lambda lib, gpu: lib.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "gpu_utilisation_percent": lambda lib, gpu: lib.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "gpu_memory_used_bytes": lambda lib, gpu: lib.nvmlDeviceGetMemoryInfo(gpu).used,
}
_POWER_REASONS = ("sw_power_cap", "hw_power_brake_slowdown", "hw_slowdown")
_THERMAL_REASONS = ("sw_thermal_slowdown", "hw_thermal_slowdown")


class Sampler(AbstractContextManager):
    """Samples the device and the machine while a worker measures. No method raises."""

    def __init__(self, gpus: Sequence[hardware.Gpu], worker_pid: int, roots: Roots = REAL_ROOTS) -> None:
        self._worker_pid, self._roots, self._cpus = worker_pid, roots, hardware.usable_cpu_ids()
        self._worker_cpu_s: float | None = None
        self._errors: list[str] = []
        self._reset()
        self._is_open, self._lib = False, None
        if gpus:
            import pynvml

            try:
                pynvml.nvmlInit()
                self._lib = pynvml
                self._gpus = [pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid) for gpu in gpus]
            except pynvml.NVMLError as error:
                self._errors.append(f"NVML: {error} at start")
                self._stop_nvml()

    def open(self) -> None:
        """Begin a timed phase and discard the samples of the last one."""
        self._reset()
        self._is_open = True
        self.sample()
        self._totals_before, self._began_s = self._counter_totals(), time.monotonic()

    def sample(self) -> None:
        if not self._is_open:
            return
        if frequency_hz := cpu_frequency_hz(self._roots, self._cpus):
            self._gauges["cpu_frequency_hz"].append(frequency_hz)
        self._update_worker_cpu_s()
        if self._lib is not None:
            self._sample_gpu()
        self._n_samples += 1

    def close(self) -> None:
        """End the timed phase."""
        if self._is_open:
            self._seconds = time.monotonic() - self._began_s
            self._counters = _increases(self._totals_before, self._counter_totals())
            self.sample()
            self._is_open = False

    def summary(self) -> dict[str, Any]:
        """Gauges and counters of the last timed phase, as JSON; unavailable values are left out."""
        gauges = {
            name: {"min": min(values), "median": statistics.median(values), "max": max(values)}
            for name, values in sorted(self._gauges.items())
        }
        result = {
            "n_samples": self._n_samples,
            "seconds": self._seconds,
            "usable_cpus": len(self._cpus),
            "gauges": gauges,
            "counters": self._counters,
            "errors": list(self._errors),
        }
        if self._throttle_counts is not None:
            result["gpu_throttle_reasons"] = dict(self._throttle_counts)
        if self._processes is not None:
            # In a container NVML may report the pids of the host, where the worker has another pid. Then the first
            # process is taken for the worker, so that the number of other processes is still right.
            result["other_gpu_processes"] = []
            for listed in self._processes.values():
                worker = self._worker_pid if self._worker_pid in listed else next(iter(listed), None)
                others = [{"pid": pid, "memory_bytes": n_bytes} for pid, n_bytes in listed.items() if pid != worker]
                result["other_gpu_processes"] += others
        return result

    def __exit__(self, *_: object) -> None:
        self._stop_nvml()

    def _reset(self) -> None:
        self._n_samples, self._seconds = 0, 0.0
        self._gauges: dict[str, list[float]] = defaultdict(list)
        self._counters: dict[str, float] = {}
        self._throttle_counts: Counter[str] | None = None
        self._processes: dict[int, dict[int, int | None]] | None = None

    def _update_worker_cpu_s(self) -> None:
        # The worker may have exited before the window closes. Then its last reading counts.
        cpu_s = host_counters.tree_cpu_s(self._roots, self._worker_pid)
        self._worker_cpu_s = self._worker_cpu_s if cpu_s is None else cpu_s

    def _counter_totals(self) -> dict[str, float]:
        """All counters, each from a start that the kernel chose."""
        self._update_worker_cpu_s()
        totals = {
            "worker_cpu_s": self._worker_cpu_s,
            "own_cpu_s": host_counters.process_cpu_s(self._roots, "self"),
            "cpu_thermal_throttle_events": host_counters.thermal_throttle_events(self._roots, self._cpus),
            **host_counters.cpu_times_s(self._roots, self._cpus),
            **host_counters.cgroup_times_s(self._roots),
        }
        return {name: value for name, value in totals.items() if value is not None}

    def _sample_gpu(self) -> None:
        lib, slowed = self._lib, None
        try:
            for number, gpu in enumerate(self._gpus):
                for name, query in GPU_GAUGES.items():
                    if (value := hardware.supported(lib, query, lib, gpu)) is not None:
                        self._gauges[name if number == 0 else f"{name}_{number}"].append(value)
                if (reasons := hardware.supported(lib, _throttle_reasons, lib, gpu)) is not None:
                    slowed = {*(slowed or ()), *reasons}
                if (processes := hardware.supported(lib, _processes, lib, gpu)) is not None:
                    self._processes = self._processes or {}
                    self._processes[number] = {**self._processes.get(number, {}), **processes}
            if slowed is not None:  # a sample counts once, however many GPUs were slowed in it
                self._throttle_counts = (self._throttle_counts or Counter()) + Counter(slowed)
        except lib.NVMLError as error:
            self._errors.append(f"NVML: {error} after {self._n_samples} samples")
            self._stop_nvml()

    def _stop_nvml(self) -> None:
        lib, self._lib = self._lib, None
        if lib is not None:
            try:
                lib.nvmlShutdown()
            except lib.NVMLError as error:
                self._errors.append(f"NVML: {error} at shutdown")


def busy(gpu: hardware.Gpu) -> str | None:
    """Who uses this GPU now, for a message; None if nobody does or NVML does not say."""
    try:
        with hardware.nvml() as lib:
            if lib is None:
                return None
            handle = lib.nvmlDeviceGetHandleByUUID(gpu.uuid)
            utilisation = GPU_GAUGES["gpu_utilisation_percent"]
            processes = hardware.supported(lib, _processes, lib, handle) or {}
            percent = hardware.supported(lib, utilisation, lib, handle)
            if not processes and (percent or 0) > _MAX_IDLE_PERCENT:
                # This may come from a process that has just ended, such as the worker of the last cell.
                time.sleep(_UTILISATION_WINDOW_S)
                percent = hardware.supported(lib, utilisation, lib, handle)
    except hardware.GpuError:
        return None
    if not processes and (percent or 0) <= _MAX_IDLE_PERCENT:
        return None
    held = _memory_held(processes.values()) if processes else ""
    return ", ".join(filter(None, (held, "" if percent is None else f"utilisation {percent} %")))


def flags(conditions: Mapping[str, Any], device: str) -> list[dict[str, str]]:
    """Warnings about the figures, as {name, message} with the evidence; device: ``cuda`` or ``cpu``."""
    warnings = [*(_gpu_flags(conditions) if device == "cuda" else ()), *_host_flags(conditions)]
    if errors := conditions.get("errors"):
        warnings.append(("conditions-unknown", "; ".join(errors)))
    return [{"name": name, "message": message} for name, message in warnings]


def disturbances(conditions: Mapping[str, Any], device: str) -> list[str]:
    """What disturbed a measurement and may pass, each with its evidence."""
    return [flag["message"] for flag in flags(conditions, device) if flag["name"] in _PASSING]


def lost_share(conditions: Mapping[str, Any]) -> float:
    """The part of the time of the CPUs that others and the hypervisor took, and of the samples in which the GPU was
    slowed by heat or shared."""
    counters = conditions.get("counters", {})
    cpus_s = conditions.get("seconds", 0.0) * conditions.get("usable_cpus", 0)
    taken_s = counters.get("other_cpu_s", 0.0) + counters.get("steal_cpu_s", 0.0)
    hot = max((conditions.get("gpu_throttle_reasons", {}).get(cause, 0) for cause in _THERMAL_REASONS), default=0)
    return (
        (taken_s / cpus_s if cpus_s else 0.0)
        + hot / max(1, conditions.get("n_samples", 0))
        + bool(conditions.get("other_gpu_processes"))
    )


def _gpu_flags(conditions: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    reasons = Counter(conditions.get("gpu_throttle_reasons", {}))
    # NVML reports hw_slowdown together with hw_thermal_slowdown. Only its remaining samples are due to power.
    reasons["hw_slowdown"] -= reasons["hw_thermal_slowdown"]
    for name, causes in (("thermal", _THERMAL_REASONS), ("power", _POWER_REASONS)):
        if counts := [f"{cause} in {reasons[cause]}" for cause in causes if reasons[cause] > 0]:
            yield f"gpu-throttled-{name}", f"{', '.join(counts)} of {conditions.get('n_samples', 0)} samples"
    if others := conditions.get("other_gpu_processes"):
        held = _memory_held([process.get("memory_bytes") for process in others])
        yield "gpu-shared", f"besides the worker {held} of the GPU's memory"


def _host_flags(conditions: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    counters = conditions.get("counters", {})
    window_s, n_cpus = conditions.get("seconds", 0.0), conditions.get("usable_cpus", 0)
    cpus_s = window_s * n_cpus
    for name, counter, total_s, max_share, min_s, message in (
        ("cpu-contended", "other_cpu_s", cpus_s, MAX_OTHER, _MIN_CPU_S, "other processes used the CPUs"),
        ("cpu-stolen", "steal_cpu_s", cpus_s, _MAX_STEAL, _MIN_CPU_S, "the hypervisor withheld the CPUs"),
        ("cpu-throttled", "cgroup_throttled_s", cpus_s, _MAX_THROTTLED, 0, "a cgroup's CPU quota held threads back"),
        ("memory-pressure", "memory_pressure_s", window_s, _MAX_PRESSURE, 0, "threads waited for memory"),
    ):
        spent_s = counters.get(counter, 0.0)
        if total_s > 0 and spent_s > max(max_share * total_s, min_s):
            cpus = f" of {n_cpus} CPUs" if total_s != window_s else ""
            yield name, f"{message} for {spent_s:.3g} s of {total_s:.3g} s{cpus} ({spent_s / total_s:.1%})"
    if events := counters.get("cpu_thermal_throttle_events"):
        yield "cpu-thermal", f"the CPUs were slowed for heat {events:.0f} times"


def _memory_held(sizes: Collection[int | None]) -> str:
    """``2 processes hold 3.1 GB``."""
    known_sizes = [n_bytes for n_bytes in sizes if n_bytes is not None]
    amount = format_bytes(sum(known_sizes)) if known_sizes else "an unknown amount"
    return f"{len(sizes)} processes hold {amount}" if len(sizes) != 1 else f"1 process holds {amount}"


def _throttle_reasons(lib: Any, gpu: Any) -> list[str]:
    try:
        mask = lib.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except lib.NVMLError_FunctionNotFound:  # drivers before 535 have the old name only
        mask = lib.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    names = (*_THERMAL_REASONS, *_POWER_REASONS)
    return [name for name in names if mask & getattr(lib, "nvmlClocksEventReason" + name.title().replace("_", ""))]


def _processes(lib: Any, gpu: Any) -> dict[int, int | None]:
    return {process.pid: process.usedGpuMemory for process in lib.nvmlDeviceGetComputeRunningProcesses(gpu)}


def _increases(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The counters of a window, from the totals at its start and end. Rounded to microseconds: no counter is finer."""
    increases = {name: round(after[name] - value, 6) for name, value in before.items() if name in after}
    throttled = [increases.pop(name) for name in list(increases) if name.startswith("throttled ")]
    if throttled:
        increases["cgroup_throttled_s"] = max(throttled)
    busy_s, own_s = increases.pop("busy_cpu_s", None), increases.pop("own_cpu_s", None)
    if busy_s is not None and own_s is not None and "worker_cpu_s" in increases:
        increases["other_cpu_s"] = max(0.0, round(busy_s - own_s - increases["worker_cpu_s"], 6))
    return increases
