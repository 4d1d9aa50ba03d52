"""The child process: load, warm up, time whole calls, time first tokens. Tells its parent each step as a JSON line.

One process per cell, because memory that one cell has taken is never quite given back.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import scipy.special  # noqa: F401  the stop rule needs it: under a tight memory limit, OpenBLAS cannot start

from inference_benchmark import energy, engines, statistics
from inference_benchmark.cells import Cell
from inference_benchmark.machine import Gpu, usable_cpus

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Tell = Callable[..., None]


class WrongOutputError(RuntimeError):
    """The engine did not generate what it was asked for, so its time says nothing."""


def run(cell: Cell, checkpoint: Path | None, gpu: Gpu | None, tell: Tell) -> None:
    """Measure a cell, telling each step as an event (see worker_process.Story), last ``end``.

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
        counter = energy.open_counter(gpu)
        if cell.memory_limit_bytes is not None:
            engine.limit_memory(cell.memory_limit_bytes)
        enter("load")
        began = engine.clock()
        engine.load(checkpoint, cell.precision)
        engine.synchronize()
        tell("load", seconds=engine.clock() - began)
        tell("describe", model=engine.describe())
        prompts, new_tokens = draw_prompts(cell, engine.vocab_size), cell.workload["new_tokens"]
        enter("warm-up")
        _warm_up(engine, prompts, new_tokens, cell.measurement, phase, tell)
        compiled = engine.compiled_graphs()
        engine.reset_peak_memory()
        # What the figures of a cell are about comes first; with it, its memory and its energy.
        with _metered(engine, counter, tell):
            enter("measure")
            _repeat(engine, prompts, new_tokens, cell.measurement, phase, tell)
        tell("memory", memory=engine.memory())
        if new_tokens > 1:
            timed_call(engine, engine.generate, prompts, 1)
            enter("first-token")
            _repeat(engine, prompts, 1, cell.measurement, phase, tell)
        compiled_late = engine.compiled_graphs() - compiled
        tell("describe", model={"compiled_graphs": compiled, "compiled_graphs_while_timed": compiled_late})
        tell("end", outcome="ok")
    except Exception as error:
        if engine is None or not engine.is_out_of_memory(error):
            raise
        tell("memory", memory=engine.memory())
        tell("end", outcome="oom", phase=phase, exception_type=_qualified(error), message=str(error))


@contextmanager
def _telling(phase: str, tell: Tell) -> Iterator[list[float]]:
    """A list for the seconds of calls, told when the block is left, however it is left: the parent sleeps till then."""
    calls_s: list[float] = []
    try:
        yield calls_s
    finally:
        tell("calls", phase=phase, seconds=calls_s)


def _warm_up(engine, prompts, new_tokens: int, measurement: Mapping[str, Any], phase: str, tell: Tell) -> None:
    """Untimed calls until the last two agree or their number is spent.

    The first is looked into as well: nothing may look into one that is timed.
    """

    def observe(prompts, new_tokens: int):
        output, facts = engine.observe(prompts, new_tokens)
        tell("describe", model=facts)
        return output

    tolerance = measurement["warmup_tolerance_percent"] / 100
    with _telling(phase, tell) as calls_s:
        calls_s.append(timed_call(engine, observe, prompts, new_tokens))
        while len(calls_s) < measurement["max_warmup_calls"] and not statistics.agree(calls_s, tolerance):
            calls_s.append(timed_call(engine, engine.generate, prompts, new_tokens))


def _repeat(engine, prompts, new_tokens: int, measurement: Mapping[str, Any], phase: str, tell: Tell) -> None:
    """Timed calls until there are enough."""
    with _telling(phase, tell) as samples_s:
        while not statistics.enough(samples_s, measurement):
            samples_s.append(timed_call(engine, engine.generate, prompts, new_tokens))


@contextmanager
def _metered(engine: engines.Engine, counter: energy.Counter | None, tell: Tell) -> Iterator[None]:
    """Tell the energy that the device took while in the block, where there is a counter.

    Read with the device idle, so that no work is still to be paid for (Zeus, arXiv:2208.06102).
    """
    if counter is None:
        yield
        return
    try:
        interval_s = counter.settle()
        began, began_j = time.perf_counter(), counter.read_j()
    except energy.EnergyError as error:
        tell("energy", error=str(error))
        yield
        return
    yield
    engine.synchronize()
    try:
        joules = counter.read_j() - began_j
        tell("energy", energy=energy.measured(counter, joules, time.perf_counter() - began, interval_s))
    except energy.EnergyError as error:
        tell("energy", error=str(error))


def draw_prompts(cell: Cell, vocab_size: int):
    """int64 (batch_size, prompt_tokens): the same ids for every engine and precision."""
    import numpy

    shape = (cell.batch_size, cell.workload["prompt_tokens"])
    return numpy.random.default_rng(cell.measurement["seed"]).integers(vocab_size, size=shape, dtype=numpy.int64)


def timed_call(engine: engines.Engine, generate: Callable, prompts, new_tokens: int) -> float:
    """Seconds of one generate call, host to host, the device idle on both sides.

    Raises WrongOutputError unless every row has exactly new_tokens tokens.
    """
    engine.synchronize()
    began = engine.clock()
    output = generate(prompts, new_tokens)
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
    """request: JSON with cell, checkpoint and gpu. pipe: descriptor the events are written to."""
    os.set_inheritable(pipe, False)
    _die_with_parent()
    order: dict[str, Any] = json.loads(request)
    with os.fdopen(pipe, "w", buffering=1) as stream:

        def tell(event: str, **facts: Any) -> None:
            stream.write(json.dumps({"event": event, **facts}) + "\n")

        checkpoint = Path(order["checkpoint"]) if order["checkpoint"] else None
        gpu = Gpu(**order["gpu"]) if order["gpu"] else None
        try:
            run(Cell.from_json(order["cell"]), checkpoint, gpu, tell)
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
