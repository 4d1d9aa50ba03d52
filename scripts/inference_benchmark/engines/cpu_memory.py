"""CPU memory of this process: its peak, and a limit beyond which allocations fail."""

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

_M_MMAP_THRESHOLD = -3  # malloc.h
_MMAP_THRESHOLD_BYTES = 2**18


class GrowthLimit:
    """Limits how much more memory this process can allocate. Beyond the limit, allocations fail.

    RLIMIT_DATA counts private writable pages (setrlimit(2)), memory-mapped checkpoint files among them. By default
    glibc keeps more and more of the freed blocks, and the largest batch that fits would be random. Here they return to
    the system. This costs page faults: throughput is a few percent lower with a limit.
    """

    def __init__(self, n_bytes: int) -> None:
        """n_bytes: allowed growth from now on. Raises OSError if the system has no such limit."""
        if not sys.platform.startswith("linux"):
            raise OSError("memory_limit on the CPU needs Linux (RLIMIT_DATA counts no mappings elsewhere)")
        with suppress(AttributeError):  # the C library has no mallopt
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        self.limit_bytes = data_bytes() + n_bytes

    def hold(self, extra_bytes: int = 0) -> None:
        """Apply the limit plus extra_bytes. Raises MemoryError if the process is above it already: otherwise a thread
        that cannot start could end the process silently."""
        used_bytes = data_bytes()
        if used_bytes > self.limit_bytes + extra_bytes:
            raise MemoryError(f"{used_bytes - self.limit_bytes - extra_bytes} bytes more than the limit are taken")
        resource.setrlimit(resource.RLIMIT_DATA, (self.limit_bytes + extra_bytes, resource.RLIM_INFINITY))

    def lift(self) -> None:
        """Remove the limit."""
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def data_bytes() -> int:
    """Current size of the memory that RLIMIT_DATA counts; Linux only."""
    return _status_bytes("VmData")


def reset_peak_rss() -> None:
    """Restart the measurement of the peak resident set size, on Linux only (proc(5): clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def rss_bytes() -> dict[str, int]:
    """Resident set size now, and its peak since the last reset: {rss_bytes, peak_rss_bytes}."""
    if sys.platform.startswith("linux"):
        return {"rss_bytes": _status_bytes("VmRSS"), "peak_rss_bytes": _status_bytes("VmHWM")}
    import psutil

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on macOS in bytes, and since the start of the process
    return {"rss_bytes": psutil.Process().memory_info().rss, "peak_rss_bytes": peak}


def _status_bytes(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024
