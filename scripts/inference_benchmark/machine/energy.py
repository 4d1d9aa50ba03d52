"""Energy used by the device, from its hardware counter; nothing is estimated. Imports no torch."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from inference_benchmark.machine import hardware

# No package draws more for long. At higher power, a RAPL counter could wrap twice, unnoticed, between two readings.
_MAX_PACKAGE_W = 500.0


class EnergyError(RuntimeError):
    """The counter cannot be read, or its reading is implausible."""


@dataclass
class Counter:
    """Energy in joules since the first reading.

    source: ``nvml`` or ``rapl``. scope: what it covers, in words. read_raw: returns one reading per zone, in units of
    unit_j; raises EnergyError. ranges: per zone, the value at which the counter wraps to 0; None if it never wraps.
    """

    source: str
    scope: str
    read_raw: Callable[[], Sequence[int]]
    unit_j: float
    ranges: Sequence[int | None]
    _last: tuple[float, Sequence[int]] | None = None
    _total: int = 0

    def begin(self) -> tuple[float, float, float]:
        """Begin a window just after an update of the counter: the arguments of its end(). The device has to be idle.
        Raises EnergyError."""
        return self.settle(), time.perf_counter(), self.read_j()

    def end(self, update_interval_s: float, began_s: float, began_j: float) -> dict[str, str | float]:
        """The energy of a window, as measured() has it. The device has to be idle. Raises EnergyError.
        The counter is read just after an update, so that all work of the window is counted (Zeus, arXiv:2208.06102)."""
        self.settle_after(update_interval_s)
        joules = self.read_j() - began_j
        return measured(self, joules, time.perf_counter() - began_s, update_interval_s)

    def read_j(self) -> float:
        """Joules since the first reading. Raises EnergyError if the counter cannot be read, went backwards, or may have
        wrapped more than once."""
        raw, now_s = self.read_raw(), time.monotonic()
        if self._last is not None:
            last_s, last = self._last
            zones = zip(raw, last, self.ranges, strict=True)
            self._total += sum(self._increase(new, old, wraps_at, now_s - last_s) for new, old, wraps_at in zones)
        self._last = now_s, raw
        return self._total * self.unit_j

    def _increase(self, new: int, old: int, wraps_at: int | None, elapsed_s: float) -> int:
        if wraps_at is not None and elapsed_s * _MAX_PACKAGE_W > wraps_at * self.unit_j:
            raise EnergyError(f"{self.source}: the counter may have wrapped twice in {elapsed_s:.0f} s")
        increase = new - old if new >= old or wraps_at is None else new - old + wraps_at
        if increase < 0:
            raise EnergyError(f"{self.source}: the counter went back from {old} to {new}")
        return increase

    def settle(self, max_s: float = 0.5) -> float:
        """Wait until just after a counter update; return the seconds between the last two updates, max_s if there were
        fewer in that time. Raises EnergyError."""
        deadline_s = time.monotonic() + max_s
        first_s = self._next_update_s(deadline_s)
        second_s = first_s and self._next_update_s(deadline_s)
        return second_s - first_s if second_s else max_s

    def settle_after(self, update_interval_s: float) -> None:
        """Wait until just after the next counter update, at most two intervals. Raises EnergyError."""
        self._next_update_s(time.monotonic() + 2 * update_interval_s)

    def _next_update_s(self, deadline_s: float) -> float | None:
        """When the counter changed next; None if it did not until the deadline."""
        before_j = self.read_j()
        while (now_s := time.monotonic()) < deadline_s:
            if self.read_j() != before_j:
                return now_s
            time.sleep(0.0002)  # shorter than RAPL's update interval of 1 ms
        return None


def open_counter(gpus: Sequence[hardware.Gpu], powercap: Path = Path("/sys/class/powercap")) -> Counter | None:
    """The energy counter of these GPUs, or of the CPU packages if there are none; None if it cannot be read."""
    try:
        counter = _open_nvml([gpu.uuid for gpu in gpus]) if gpus else _open_rapl(powercap)
        counter.read_raw()
    except (EnergyError, ModuleNotFoundError):  # an environment may lack nvidia-ml-py
        return None
    return counter


def measured(counter: Counter, joules: float, seconds: float, update_interval_s: float) -> dict[str, str | float]:
    """Energy of a window for the record, with the counter's resolution. Raises EnergyError if it is not positive: a
    device that is switched on always uses energy."""
    if not (joules > 0 and seconds > 0):
        raise EnergyError(f"{counter.source}: the counter grew by {joules:.6g} J in {seconds:.6g} s")
    return {
        "source": counter.source,
        "scope": counter.scope,
        "joules": joules,
        "resolution_j": joules / seconds * update_interval_s,
        "seconds": seconds,
        "update_interval_s": update_interval_s,
    }


@contextmanager
def _errors_of(source: str, *kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise EnergyError(f"{source}: {error}") from error


def _open_nvml(uuids: Sequence[str]) -> Counter:
    import pynvml

    errors = partial(_errors_of, "nvml", pynvml.NVMLError)
    with errors():
        pynvml.nvmlInit()  # no shutdown: NVML is used until this process ends
        gpus = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
    read_raw = errors()(lambda: [pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) for gpu in gpus])
    scope = "GPU board" if len(gpus) == 1 else f"{len(gpus)} GPU boards"
    return Counter("nvml", scope, read_raw, 1e-3, [None] * len(gpus))


def _open_rapl(powercap: Path) -> Counter:
    errors = partial(_errors_of, "rapl", OSError, ValueError)
    # Subzones (intel-rapl:0:1) are parts of a package. The zone psys is the whole platform and includes the packages.
    zones = [zone for zone in sorted(powercap.glob("*")) if re.fullmatch(r"intel-rapl:\d+", zone.name)]
    with errors():
        packages = [zone for zone in zones if (zone / "name").read_text(encoding="utf-8").startswith("package")]
        ranges = [int((zone / "max_energy_range_uj").read_text(encoding="utf-8")) for zone in packages]
    if not packages:
        raise EnergyError("rapl: no CPU package is counted here")
    read_raw = errors()(lambda: [int((zone / "energy_uj").read_text(encoding="utf-8")) for zone in packages])
    return Counter("rapl", "CPU packages, everything that ran on them", read_raw, 1e-6, ranges)
