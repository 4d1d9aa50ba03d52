"""One GPU to each measurement: a lease per device, held through a file lock of this user on this machine.

The kernel gives a lock back when its holder ends, however it ends, so that no lease outlives a crash.
Other users and other programs know nothing of it: against them helps the look at who is busy
(conditions.busy) and a scheduler.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock

from inference_benchmark.machine.hardware import Gpu

#: How long to wait before asking for a device again; jobs last seconds to hours.
_PAUSE_S = 0.2


def folder() -> Path:
    """Where this user's locks on this machine are."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir(), f"inference-benchmark-{user}")


@contextmanager
def hold(gpus: Sequence[Gpu]) -> Iterator[Gpu]:
    """One of these GPUs, held by nobody else until the block is left. Waits until one is free.

    gpus: those that this process may use. Raises OSError where locks cannot be made.
    """
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder().stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "belongs to another user; set TMPDIR to a folder of your own", str(folder()))
    with ExitStack() as stack:
        yield _first_free(gpus, stack)


def _first_free(gpus: Sequence[Gpu], stack: ExitStack) -> Gpu:
    told = False
    while True:
        for gpu in gpus:
            try:
                stack.enter_context(filelock.FileLock(folder() / f"{gpu.uuid}.lock", timeout=0))
            except filelock.Timeout:
                continue
            return gpu
        if not told:
            print(f"all of {', '.join(gpu.uuid for gpu in gpus)} are in use; waiting for one", file=sys.stderr)
            told = True
        time.sleep(_PAUSE_S)
