"""One measurement per GPU at a time: a file lock for each GPU, shared by this user's processes on this machine.

The kernel releases a lock when its holder ends for any reason, so no lock outlives a crash. Other users and other
programs do not use these locks. conditions.busy detects them; a scheduler keeps them away.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import filelock

from inference_benchmark import files
from inference_benchmark.machine.hardware import Gpu


@contextmanager
def hold(gpus: Sequence[Gpu]) -> Iterator[Gpu]:
    """Lock one of these GPUs until the block ends. Waits until one is free. Raises OSError if it cannot be locked."""
    with ExitStack() as stack:
        yield _lock_first_free(gpus, stack)


def _lock_first_free(gpus: Sequence[Gpu], stack: ExitStack) -> Gpu:
    folder, is_reported = files.private_folder(), False
    while True:
        for gpu in gpus:
            with suppress(filelock.Timeout):
                stack.enter_context(filelock.FileLock(folder / f"{gpu.uuid}.lock", timeout=0))
                return gpu
        if not is_reported:
            print(f"all of {', '.join(gpu.uuid for gpu in gpus)} are in use; waiting for one", file=sys.stderr)
            is_reported = True
        time.sleep(0.2)  # jobs last seconds to hours
