"""The child process: load, warm up, time. Tells its parent each step as one JSON line.

One process per cell, because memory that one cell has taken is never quite given back.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference_benchmark import engines
from inference_benchmark.cells import Cell
from inference_benchmark.machine import usable_cpus

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Tell = Callable[..., None]


class WrongOutputError(RuntimeError):
    """The engine did not generate what it was asked for, so its time says nothing."""


def run(cell: Cell, checkpoint: Path | None, tell: Tell) -> None:
    """Measure a cell, telling ``phase``, ``load``, ``call`` and ``describe`` events, last ``end``.

    Out of memory and unsupported precisions end it early as events; any other exception is raised.
    """
    phase = "start"

    def enter(name: str) -> None:
        nonlocal phase
        phase = name
        tell("phase", phase=name)

    engine = None
    try:
        enter("start")
        engine = engines.create(cell.engine)
        engine.start(cell.device, cell.measurement["threads"] or usable_cpus(), checkpoint)
        if reason := engine.unsupported(cell.precision):
            tell("end", outcome="unsupported", message=reason)
            return
        if cell.memory_limit_bytes is not None:
            engine.limit_memory(cell.memory_limit_bytes)
        enter("load")
        began = engine.clock()
        engine.load(checkpoint, cell.precision)
        engine.synchronize()
        tell("load", seconds=engine.clock() - began)
        tell("describe", model=engine.describe())
        prompts = draw_prompts(cell, engine.vocab_size)
        for phase_name, n_calls in (("warm-up", "warmup_calls"), ("measure", "cycles")):
            enter(phase_name)
            for _ in range(cell.measurement[n_calls]):
                tell("call", phase=phase_name, seconds=timed_call(engine, prompts, cell.workload["new_tokens"]))
        tell("memory", memory=engine.memory())
        tell("end", outcome="ok")
    except Exception as error:
        if engine is None or not engine.is_out_of_memory(error):
            raise
        tell("memory", memory=engine.memory())
        tell("end", outcome="oom", phase=phase, exception_type=_qualified(error), message=str(error))


def draw_prompts(cell: Cell, vocab_size: int):
    """int64 (batch_size, prompt_tokens): the same ids for every engine and precision."""
    import numpy

    shape = (cell.batch_size, cell.workload["prompt_tokens"])
    return numpy.random.default_rng(cell.measurement["seed"]).integers(vocab_size, size=shape, dtype=numpy.int64)


def timed_call(engine: engines.Engine, prompts, new_tokens: int) -> float:
    """Seconds of one generate call, host to host, the device idle on both sides.

    Raises WrongOutputError unless every row has exactly new_tokens tokens.
    """
    engine.synchronize()
    began = engine.clock()
    output = engine.generate(prompts, new_tokens)
    engine.synchronize()
    seconds = engine.clock() - began
    wanted = (len(prompts), new_tokens)
    if output.shape != wanted:
        raise WrongOutputError(f"asked for {wanted} (rows, new tokens), got {output.shape}")
    ended = ((output < 0) | (output >= engine.vocab_size)).any(axis=1)
    if ended.any():
        raise WrongOutputError(f"{int(ended.sum())} of {len(prompts)} rows ended before {new_tokens} new tokens")
    if not seconds > 0:
        raise WrongOutputError(f"the clock went {seconds} s forward during a call")
    return seconds


def main(request: str, pipe: int) -> int:
    """request: JSON with cell and checkpoint. pipe: descriptor the events are written to."""
    os.set_inheritable(pipe, False)
    _die_with_parent()
    order: dict[str, Any] = json.loads(request)
    with os.fdopen(pipe, "w", buffering=1) as stream:

        def tell(event: str, **facts: Any) -> None:
            stream.write(json.dumps({"event": event, **facts}) + "\n")

        try:
            run(Cell.from_json(order["cell"]), Path(order["checkpoint"]) if order["checkpoint"] else None, tell)
        except Exception as error:
            traceback.print_exc()
            tell("end", outcome="error", exception_type=_qualified(error), message=str(error))
            return 1
    return 0


def _die_with_parent() -> None:
    """Ctrl-C is the parent's to handle, and nothing is measured for a parent that is gone.

    Where memory runs out the kernel is to kill this process, not the one that writes the record.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000")


def _qualified(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
