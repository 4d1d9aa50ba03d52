"""One measurement per GPU at a time: a file lock for each GPU, shared by this user's processes on this machine.

The kernel releases a lock when its holder ends for any reason, so no lock outlives a crash. Other users and other
programs do not use these locks. conditions.busy detects them; a scheduler keeps them away.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress

import filelock

from inference_benchmark import files
from inference_benchmark.machine.hardware import Gpu


@contextmanager
def hold(gpus: Sequence[Gpu], count: int = 1) -> Iterator[list[Gpu]]:
    """Lock so many of these GPUs until the block ends; yields them in their order. Waits until they are free. Raises
    OSError if they cannot be locked."""
    with ExitStack() as stack:
        yield _lock_free(gpus, count, stack)


def _lock_free(gpus: Sequence[Gpu], count: int, stack: ExitStack) -> list[Gpu]:
    folder, held, is_reported = files.private_folder(), [], False
    # Who waits for several keeps those that are free, else it might wait for ever. Two that did would wait for each
    # other, so that only one may.
    with filelock.FileLock(folder / "several.lock") if count > 1 else nullcontext():
        while True:
            for gpu in (each for each in gpus if each not in held):
                with suppress(filelock.Timeout):
                    stack.enter_context(filelock.FileLock(folder / f"{gpu.uuid}.lock", timeout=0))
                    held.append(gpu)
                if len(held) == count:
                    return [each for each in gpus if each in held]
            if not is_reported:
                taken = [gpu.uuid for gpu in gpus if gpu not in held]
                wanted = "one" if count == 1 else f"{count - len(held)} of them"
                print(f"all of {', '.join(taken)} are in use; waiting for {wanted}", file=sys.stderr)
                is_reported = True
            time.sleep(0.2)  # jobs last seconds to hours
