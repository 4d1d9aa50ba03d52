"""Memory of this process on the CPU: its peak, and a limit that its allocators run into."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


class GrowthLimit:
    """Lets this process allocate at most so much beyond what it has now; more fails in the allocator.

    RLIMIT_DATA counts private writable pages (setrlimit(2)), and with them the mapping that a
    checkpoint file is read through; while loading, that is allowed on top.
    """

    def __init__(self, n_bytes: int) -> None:
        """Raises OSError where the system has no such limit."""
        if not sys.platform.startswith("linux"):
            raise OSError("memory_limit on the CPU needs Linux (RLIMIT_DATA counts no mappings elsewhere)")
        status = Path("/proc/self/status").read_text()
        in_use = int(re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024
        self.ceiling = in_use + n_bytes

    def hold(self, extra_bytes: int = 0) -> None:
        """From now on, allocations that would exceed the limit and extra_bytes fail."""
        resource.setrlimit(resource.RLIMIT_DATA, (self.ceiling + extra_bytes, resource.RLIM_INFINITY))


def peak_rss_bytes() -> int:
    """The largest resident set this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
