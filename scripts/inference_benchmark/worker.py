"""The child process: does one task and tells its parent each step as a JSON line. Only what it runs imports torch."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from inference_benchmark.machine import Gpu

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(request: str, pipe: int) -> int:
    """request: JSON with task (a module of tasks), order and gpu. pipe: descriptor the events are written to."""
    os.set_inheritable(pipe, False)
    die_with_parent()
    wanted: dict[str, Any] = json.loads(request)
    with os.fdopen(pipe, "w", buffering=1) as stream:

        def tell(event: str, **facts: Any) -> None:
            stream.write(json.dumps({"event": event, **facts}) + "\n")

        try:
            task = importlib.import_module(f"inference_benchmark.tasks.{wanted['task']}")
            task.run(wanted["order"], Gpu(**wanted["gpu"]) if wanted["gpu"] else None, tell)
        except Exception as error:
            from inference_benchmark.tasks.common import qualified

            traceback.print_exc()
            tell("end", outcome="error", exception_type=qualified(error), message=str(error))
            return 1
    return 0


def die_with_parent() -> None:
    """Ctrl-C is the parent's to handle, and nothing is measured for a parent that is gone.

    Where memory runs out the kernel is to kill this process, not the one that writes the record.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
