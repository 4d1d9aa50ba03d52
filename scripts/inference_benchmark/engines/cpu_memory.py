"""Memory of this process on the CPU: its peak, and a limit that its allocators run into."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

_M_MMAP_THRESHOLD = -3  # malloc.h
_MMAP_THRESHOLD_BYTES = 2**18


class GrowthLimit:
    """Lets this process allocate at most so much beyond what it has now; more fails in the allocator.

    RLIMIT_DATA counts private writable pages (setrlimit(2)), and with them the mapping that a
    checkpoint file is read through; while loading, that is allowed on top. Blocks that are freed are to be
    gone, as on a device: glibc would keep more and more of them for later, and how many batches fit would be
    a matter of chance. It costs page faults, so that figures under a limit are a few percent lower.
    """

    def __init__(self, n_bytes: int) -> None:
        """Raises OSError where the system has no such limit."""
        if not sys.platform.startswith("linux"):
            raise OSError("memory_limit on the CPU needs Linux (RLIMIT_DATA counts no mappings elsewhere)")
        with suppress(AttributeError):  # a C library without mallopt decides for itself
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        self.ceiling = data_bytes() + n_bytes

    def hold(self, extra_bytes: int = 0) -> None:
        """From now on, allocations that would exceed the limit and extra_bytes fail.

        Raises MemoryError where they have already: a thread that cannot be started may end the process silently.
        """
        taken_bytes = data_bytes()
        if taken_bytes > self.ceiling + extra_bytes:
            raise MemoryError(f"{taken_bytes - self.ceiling - extra_bytes} bytes more than the limit are taken")
        resource.setrlimit(resource.RLIMIT_DATA, (self.ceiling + extra_bytes, resource.RLIM_INFINITY))

    def lift(self) -> None:
        """From now on, nothing fails for this limit."""
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def data_bytes() -> int:
    """What RLIMIT_DATA counts, as it is now; Linux only."""
    return _status_bytes("VmData")


def reset_peak_rss() -> None:
    """Let the peak count from here on, where the system can do that (Linux, proc(5): clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def rss_bytes() -> dict[str, int]:
    """The resident set now and at its peak since the last reset: {rss_bytes, peak_rss_bytes}."""
    if sys.platform.startswith("linux"):
        return {"rss_bytes": _status_bytes("VmRSS"), "peak_rss_bytes": _status_bytes("VmHWM")}
    import psutil

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, of the whole process there
    return {"rss_bytes": psutil.Process().memory_info().rss, "peak_rss_bytes": peak}


def _status_bytes(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024
