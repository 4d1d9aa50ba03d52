"""Measure one cell: load, warm up, time whole calls, time first tokens.

One process per cell, because a process never gives back all the memory that it has taken.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis import statistics
from inference_benchmark.experiment.cells import Cell, Measurement
from inference_benchmark.machine import energy
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.worker.engine_session import EngineSession, draw_prompts, timed_call
from inference_benchmark.worker.process import Emit


def run(order: Mapping[str, Any], gpu: Gpu | None, emit: Emit) -> None:
    """order: ``cell``, as JSON text, and ``checkpoint``. Sends each step as an event."""
    cell = Cell.from_json(order["cell"])
    settings, new_tokens = cell.measurement, cell.workload.new_tokens
    counter = energy.open_counter(gpu)
    with EngineSession(emit, gpu) as session:
        engine = session.load(cell, order["checkpoint"], yardstick=True)
        if engine is None:
            return
        session.enter("prompts")
        prompts = draw_prompts(cell.batch_size, cell.workload.prompt_tokens, settings.seed, engine.vocab_size)
        warm_up(session, prompts, new_tokens, settings)
        engine.reset_peak_memory()
        # Whole calls come first, with their memory and energy: the figures are about them.
        with _metered(engine, counter, emit):
            session.enter("measure")
            with _sending_calls(session) as calls:
                timed_work = _repeat(engine, prompts, new_tokens, settings, calls)
        emit("memory", memory=engine.memory())
        if new_tokens > 1:
            timed_call(engine, engine.generate, prompts, 1)
            session.enter("first-token")
            with _sending_calls(session) as calls:
                timed_work += _repeat(engine, prompts, 1, settings, calls)
        emit("describe", model={f"{name}_while_timed": timed_work[name] for name in _one_time_work(engine)})
        session.enter("yardstick")
        engine.unload()  # where memory is nearly full, the yardstick would not fit
        session.time_yardstick("after")
        emit("end", outcome="ok")


def warm_up(session: EngineSession, prompts, new_tokens: int, settings: Measurement) -> None:
    """Untimed calls until the last two agree and the last did no work that is done once, or max_warmup_calls.

    The first one is observed as well: nothing may observe a timed call.
    """
    engine, emit = session.engine, session.emit

    def observe(prompts, new_tokens: int):
        output, facts = engine.observe(prompts, new_tokens)
        emit("describe", model=facts)
        return output

    session.enter("warm-up")
    with _sending_calls(session) as calls:
        calls.add(engine, observe, prompts, new_tokens)
        is_warm = False
        while not is_warm and len(calls.seconds) < settings.max_warmup_calls:
            before = _one_time_work(engine)
            calls.add(engine, engine.generate, prompts, new_tokens)
            is_warm = statistics.agree(calls.seconds, settings.warmup_tolerance) and _one_time_work(engine) == before
    emit("describe", model={"compilation": engine.compilation()})


class _Calls:
    """Calls of one phase: their seconds, and a digest of every different answer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.answers: dict[str, None] = {}

    def add(self, engine: engines.Engine, generate, prompts, new_tokens: int) -> None:
        seconds, tokens = timed_call(engine, generate, prompts, new_tokens)
        self.seconds.append(seconds)
        self.answers[hashlib.sha256(tokens.astype("<i8").tobytes()).hexdigest()] = None


@contextmanager
def _sending_calls(session: EngineSession) -> Iterator[_Calls]:
    """Calls that are sent when the block is left, however it is left: the parent sleeps until then."""
    calls = _Calls()
    try:
        yield calls
    finally:
        session.emit("calls", phase=session.phase, seconds=calls.seconds, tokens_sha256=list(calls.answers))


def _repeat(engine, prompts, new_tokens: int, settings: Measurement, calls: _Calls) -> Counter[str]:
    """Timed calls until there are enough. Returns their work that is done once, which should be none."""
    before = _one_time_work(engine)
    while not settings.is_enough(calls.seconds):
        calls.add(engine, engine.generate, prompts, new_tokens)
    return _one_time_work(engine) - before


def _one_time_work(engine: engines.Engine) -> Counter[str]:
    """How much work the engine has done that a later call need not do again: the counts of its compilation."""
    return Counter({name: count for name, count in engine.compilation().items() if isinstance(count, int)})


@contextmanager
def _metered(engine: engines.Engine, counter: energy.Counter | None, emit: Emit) -> Iterator[None]:
    """Send the energy that the device took in the block, where there is a counter.

    Read with the device idle and just after an update of the counter, so that all work is counted (Zeus,
    arXiv:2208.06102).
    """
    if counter is None:
        yield
        return
    try:
        interval_s = counter.settle()
        began, began_j = time.perf_counter(), counter.read_j()
    except energy.EnergyError as error:
        emit("energy", error=str(error))
        yield
        return
    yield
    engine.synchronize()
    try:
        counter.settle_after(interval_s)
        joules = counter.read_j() - began_j
        emit("energy", energy=energy.measured(counter, joules, time.perf_counter() - began, interval_s))
    except energy.EnergyError as error:
        emit("energy", error=str(error))
