"""Measure one cell: load, warm up, time whole calls, time first tokens.

One process per cell, because memory that one cell has taken is never quite given back.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import scipy.special  # noqa: F401  the stop rule needs it: under a tight memory limit, OpenBLAS cannot start

from inference_benchmark import engines
from inference_benchmark.analysis import statistics
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.machine import energy
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.worker.stage import Stage, Tell, draw_prompts, timed_call


def run(order: Mapping[str, Any], gpu: Gpu | None, tell: Tell) -> None:
    """order: ``cell``, as JSON text, and ``checkpoint``. Tells each step as an event (see worker_process.Story)."""
    cell = Cell.from_json(order["cell"])
    wanted, new_tokens = cell.measurement, cell.workload["new_tokens"]
    counter = energy.open_counter(gpu)
    with Stage(tell) as stage:
        engine = stage.load(
            cell.engine, cell.device, wanted["threads"], order["checkpoint"], cell.precision, cell.memory_limit_bytes
        )
        if engine is None:
            return
        prompts = draw_prompts(cell.batch_size, cell.workload["prompt_tokens"], wanted["seed"], engine.vocab_size)
        stage.enter("warm-up")
        with _telling(stage) as calls:
            _warm_up(engine, prompts, new_tokens, wanted, calls, tell)
        compiled = engine.compilation()
        tell("describe", model={"compilation": compiled})
        engine.reset_peak_memory()
        # What the figures of a cell are about comes first; with it, its memory and its energy.
        with _metered(engine, counter, tell):
            stage.enter("measure")
            with _telling(stage) as calls:
                _repeat(engine, prompts, new_tokens, wanted, calls)
        tell("memory", memory=engine.memory())
        if new_tokens > 1:
            timed_call(engine, engine.generate, prompts, 1)
            stage.enter("first-token")
            with _telling(stage) as calls:
                _repeat(engine, prompts, 1, wanted, calls)
        tell("describe", model={"graphs_while_timed": engine.compilation()["graphs"] - compiled["graphs"]})
        tell("end", outcome="ok")


class _Calls:
    """Calls of one phase: their seconds, and every different answer that they gave, as digests."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.answers: dict[str, None] = {}

    def add(self, engine: engines.Engine, generate, prompts, new_tokens: int) -> None:
        seconds, tokens = timed_call(engine, generate, prompts, new_tokens)
        self.seconds.append(seconds)
        self.answers[hashlib.sha256(tokens.astype("<i8").tobytes()).hexdigest()] = None


@contextmanager
def _telling(stage: Stage) -> Iterator[_Calls]:
    """Calls, told when the block is left, however it is left: the parent sleeps till then."""
    calls = _Calls()
    try:
        yield calls
    finally:
        stage.tell("calls", phase=stage.phase, seconds=calls.seconds, tokens_sha256=list(calls.answers))


def _warm_up(engine, prompts, new_tokens: int, wanted: Mapping[str, Any], calls: _Calls, tell: Tell) -> None:
    """Untimed calls until the last two agree or their number is spent.

    The first is looked into as well: nothing may look into one that is timed.
    """

    def observe(prompts, new_tokens: int):
        output, facts = engine.observe(prompts, new_tokens)
        tell("describe", model=facts)
        return output

    tolerance = wanted["warmup_tolerance_percent"] / 100
    calls.add(engine, observe, prompts, new_tokens)
    while len(calls.seconds) < wanted["max_warmup_calls"] and not statistics.agree(calls.seconds, tolerance):
        calls.add(engine, engine.generate, prompts, new_tokens)


def _repeat(engine, prompts, new_tokens: int, wanted: Mapping[str, Any], calls: _Calls) -> None:
    """Timed calls until there are enough."""
    while not statistics.enough(calls.seconds, wanted):
        calls.add(engine, engine.generate, prompts, new_tokens)


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
