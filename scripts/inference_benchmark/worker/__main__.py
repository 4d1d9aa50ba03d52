"""The child process: does one task and sends its parent each step as a JSON line. Only the task imports torch."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.worker.process import die_with_parent, qualified_name


def main(request: str, pipe: int) -> int:
    """request: JSON with task (a module of this package), order and gpu. pipe: descriptor the events are written to."""
    os.set_inheritable(pipe, False)
    die_with_parent()
    wanted: dict[str, Any] = json.loads(request)
    with os.fdopen(pipe, "w", buffering=1) as stream:

        def emit(event: str, **facts: Any) -> None:
            stream.write(json.dumps({"event": event, **facts}) + "\n")

        try:
            task = importlib.import_module(f"inference_benchmark.worker.{wanted['task']}")
            task.run(wanted["order"], Gpu(**wanted["gpu"]) if wanted["gpu"] else None, emit)
        except Exception as error:
            traceback.print_exc()
            facts = {"exception_type": qualified_name(error), "message": str(error)}
            emit("end", outcome="error", **facts, of_the_machine=of_the_machine(error))
            return 1
    return 0


def of_the_machine(error: Exception) -> bool:
    """Whether an error is one of files, network or GPU, so that another attempt may succeed.

    Torch's class for what CUDA reports is known by its name, as torch need not be imported.
    """
    return isinstance(error, OSError) or type(error).__name__ == "AcceleratorError"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
