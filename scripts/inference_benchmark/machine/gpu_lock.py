"""One measurement per GPU at a time: a file lock for each GPU, shared by this user's processes on this machine.

The kernel releases a lock when its holder ends for any reason, so no lock outlives a crash. Other users and other
programs do not use these locks. conditions.busy detects them; a scheduler keeps them away.
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

#: Seconds between attempts to lock a GPU; jobs last seconds to hours.
_PAUSE_S = 0.2


def folder() -> Path:
    """The folder of this user's locks on this machine."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir(), f"inference-benchmark-{user}")


@contextmanager
def hold(gpus: Sequence[Gpu]) -> Iterator[Gpu]:
    """Lock one of these GPUs until the block ends. Waits until one is free.

    gpus: the GPUs that this process may use. Raises OSError if locks cannot be created.
    """
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder().stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "belongs to another user; set TMPDIR to a folder of your own", str(folder()))
    with ExitStack() as stack:
        yield _lock_first_free(gpus, stack)


def _lock_first_free(gpus: Sequence[Gpu], stack: ExitStack) -> Gpu:
    is_reported = False
    while True:
        for gpu in gpus:
            try:
                stack.enter_context(filelock.FileLock(folder() / f"{gpu.uuid}.lock", timeout=0))
            except filelock.Timeout:
                continue
            return gpu
        if not is_reported:
            print(f"all of {', '.join(gpu.uuid for gpu in gpus)} are in use; waiting for one", file=sys.stderr)
            is_reported = True
        time.sleep(_PAUSE_S)
