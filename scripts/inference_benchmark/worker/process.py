"""What all worker processes have in common: they send facts to their parent, and end when it ends."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Sends facts to the parent: ``emit(phase="load")``. Their names are those of the fields of WorkerReport.
Emit = Callable[..., None]


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends. Ctrl-C is left to the parent.
    If memory runs out, the kernel should kill this process, not the one that writes the record."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the parent has blocked some while it started this process
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG in linux/prctl.h
        with suppress(OSError):  # /proc may be read-only, as in a hardened container
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")


def qualified_name(error: BaseException) -> str:
    """The class of an exception, with its module."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
