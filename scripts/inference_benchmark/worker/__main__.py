"""The child process: does one task and sends its parent each step as a line of JSON. Only the task imports torch."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from functools import partial
from typing import Any

from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.worker.engine_session import EngineSession
from inference_benchmark.worker.process import die_with_parent, qualified_name


def main(request: str, pipe: int) -> int:
    """request: JSON with task (a module of this package), its inputs, and gpus. pipe: the descriptor to write to."""
    os.set_inheritable(pipe, False)
    die_with_parent()
    parsed: dict[str, Any] = json.loads(request)
    with os.fdopen(pipe, "w", buffering=1, encoding="utf-8") as stream:

        def emit(**facts: Any) -> None:
            stream.write(json.dumps(facts) + "\n")

        session = EngineSession(emit, [Gpu(**gpu) for gpu in parsed["gpus"]])
        try:
            task = importlib.import_module(f"inference_benchmark.worker.{parsed['task']}")
            end = session.end_of(partial(task.run, session, **parsed["inputs"]))
        except Exception as error:
            traceback.print_exc()
            facts = {"exception_type": qualified_name(error), "message": str(error)}
            end = {"outcome": "error", **facts, "of_the_machine": of_the_machine(error)}
        emit(end=end)
    status = int(end["outcome"] == "error")
    if session.engine is not None and session.engine.group is not None:
        sys.stdout.flush()
        os._exit(status)  # connections to other processes wait for these when they are closed in order
    return status


def of_the_machine(error: Exception) -> bool:
    """Whether an error is one of files, network or GPU, so that another attempt may succeed."""
    # The second is torch's for errors of CUDA. torch need not be imported, so it is known by its name.
    return isinstance(error, OSError) or type(error).__name__ == "AcceleratorError"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
