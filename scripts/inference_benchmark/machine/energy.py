"""How much energy the device took, from a counter of its own; nothing is estimated. Imports no torch."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from inference_benchmark.machine import hardware

# No package draws more for long. Were one to, a RAPL counter could wrap twice unseen between two readings.
_MAX_PACKAGE_W = 500.0
_POLL_S = 0.0002  # often enough for RAPL, which counts every millisecond


class EnergyError(RuntimeError):
    """The counter gave no reading that can be believed."""


class Counter:
    """Joules since its first reading. Read at both ends of a call, with the device idle.

    source: ``nvml`` or ``rapl``. scope: whose energy, in words.
    read_raw: the readings of the zones that are added up, in units of unit_j; each starts again from 0 at
    its entry in ranges, None where it never does. It raises EnergyError where it cannot read.
    """

    def __init__(
        self,
        source: str,
        scope: str,
        read_raw: Callable[[], Sequence[int]],
        unit_j: float,
        ranges: Sequence[int | None],
    ) -> None:
        self.source, self.scope = source, scope
        self.read_raw, self._unit_j, self._ranges = read_raw, unit_j, ranges
        self._last: Sequence[int] | None = None
        self._last_s, self._total = 0.0, 0

    def read_j(self) -> float:
        """Raises EnergyError where it cannot be read, went backwards, or may have wrapped more than once."""
        raw, now_s = self.read_raw(), time.monotonic()
        if self._last is not None:
            zones = zip(raw, self._last, self._ranges, strict=True)
            self._total += sum(self._grown(new, old, full, now_s - self._last_s) for new, old, full in zones)
        self._last, self._last_s = raw, now_s
        return self._total * self._unit_j

    def _grown(self, new: int, old: int, full: int | None, elapsed_s: float) -> int:
        if full is not None and elapsed_s * _MAX_PACKAGE_W > full * self._unit_j:
            raise EnergyError(f"{self.source}: the counter may have wrapped twice in {elapsed_s:.0f} s")
        grown = new - old if new >= old or full is None else new - old + full
        if grown < 0:
            raise EnergyError(f"{self.source}: the counter went back from {old} to {new}")
        return grown

    def settle(self, max_s: float = 0.5) -> float:
        """Wait until the counter has just changed; return the seconds between its last two changes.

        That is max_s where it did not change twice in that time.
        """
        deadline_s = time.monotonic() + max_s
        joules, changes_s = self.read_j(), []
        while (now_s := time.monotonic()) < deadline_s:
            before_j, joules = joules, self.read_j()
            if joules != before_j:
                changes_s.append(now_s)
            if len(changes_s) == 2:
                return changes_s[1] - changes_s[0]
            time.sleep(_POLL_S)
        return max_s


def open_counter(gpu: hardware.Gpu | None, powercap: Path = Path("/sys/class/powercap")) -> Counter | None:
    """The counter of that GPU, or of the CPU packages where gpu is None; None where none can be read."""
    try:
        counter = _rapl(powercap) if gpu is None else _nvml(gpu.uuid)
        counter.read_raw()
    except EnergyError:
        return None
    return counter


def measured(counter: Counter, joules: float, seconds: float, update_interval_s: float) -> dict[str, str | float]:
    """For the record: what the counter grew by in so many seconds, and how finely it can tell.

    Raises EnergyError where it did not grow, which a device that is switched on never does.
    """
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


def _nvml(uuid: str) -> Counter:
    import pynvml

    try:
        pynvml.nvmlInit()  # for as long as this process lives
        gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError as error:
        raise EnergyError(f"nvml: {error}") from error

    def read_raw() -> list[int]:
        try:
            return [pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)]
        except pynvml.NVMLError as error:
            raise EnergyError(f"nvml: {error}") from error

    return Counter("nvml", "GPU board", read_raw, 1e-3, [None])


def _rapl(powercap: Path) -> Counter:
    # Subzones (intel-rapl:0:1) are parts of a package; psys is the whole platform, packages included.
    zones = [zone for zone in sorted(powercap.glob("*")) if re.fullmatch(r"intel-rapl:\d+", zone.name)]
    try:
        packages = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
        ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in packages]
    except (OSError, ValueError) as error:
        raise EnergyError(f"rapl: {error}") from error
    if not packages:
        raise EnergyError("rapl: no CPU package is counted here")

    def read_raw() -> list[int]:
        try:
            return [int((zone / "energy_uj").read_text()) for zone in packages]
        except (OSError, ValueError) as error:
            raise EnergyError(f"rapl: {error}") from error

    return Counter("rapl", "CPU packages, everything that ran on them", read_raw, 1e-6, ranges)
