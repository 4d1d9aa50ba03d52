"""Measure one cell: load, warm up, time whole calls, time first tokens.
One process per cell, because a process never gives back all the memory that it has taken."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from inference_benchmark.analysis import descriptive
from inference_benchmark.engines.engine import Engine
from inference_benchmark.experiment.cells import Cell, Measurement
from inference_benchmark.machine import energy, quiet
from inference_benchmark.worker.engine_session import EngineSession, timed_call
from inference_benchmark.worker.process import Emit


def run(session: EngineSession, subject: str, checkpoint: str | None, patience_s: float) -> None:
    """subject: the cell as JSON text. patience_s: the longest wait for others to leave the CPUs alone."""
    load, cell, emit = quiet.OtherLoad(), Cell.from_json(subject), session.emit
    settings, new_tokens = cell.measurement, cell.workload.new_tokens
    counter = energy.open_counter(session.gpus)
    engine = session.load(cell, checkpoint, cell.batch_size, yardstick=True)
    session.enter("prompts")
    prompts = session.draw_prompts(cell.batch_size)
    warm_up(session, prompts, new_tokens, settings)
    if session.wait_for_quiet(patience_s, load):
        timed_call(engine, engine.generate, prompts, new_tokens)  # the caches may have been used by others
    engine.reset_peak_memory()
    # Whole calls come first, with their memory and energy: the figures are about them.
    with _metered(engine, counter, emit), _calls_of(session, "measure") as calls:
        one_time_work = _repeat(engine, prompts, new_tokens, settings, calls)
    emit(memory=engine.memory())
    if new_tokens > 1:
        timed_call(engine, engine.generate, prompts, 1)
        with _calls_of(session, "first-token") as calls:
            one_time_work += _repeat(engine, prompts, 1, settings, calls)
    emit(model={f"{name}_while_timed": one_time_work[name] for name in _one_time_work(engine)})
    session.enter("yardstick")
    engine.unload()  # if memory is nearly full, the yardstick would not fit
    session.time_yardstick("after")


def warm_up(session: EngineSession, prompts, new_tokens: int, settings: Measurement) -> None:
    """Untimed calls until they have settled (descriptive.settled); at most max_warmup_calls.
    Only the first one is observed: nothing may observe a timed call."""
    engine = session.engine

    def observe(prompts, new_tokens: int):
        output, facts = engine.observe(prompts, new_tokens)
        session.emit(model=facts)
        return output

    with _calls_of(session, "warm-up") as calls:
        generate, compiled, done = observe, 0, _one_time_work(engine)
        while len(calls.seconds) < settings.max_warmup_calls:
            calls.add(engine, generate, prompts, new_tokens)
            if (now := _one_time_work(engine)) != done:
                compiled, done = len(calls.seconds), now
            if descriptive.settled(calls.seconds, compiled, settings.warmup_tolerance):
                break
            generate = engine.generate
    session.emit(model={"compilation": engine.compilation()}, compiled_calls=compiled or None)


class _Calls:
    """Calls of one phase: their seconds, and a digest of every different answer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.answers: dict[str, None] = {}

    def add(self, engine: Engine, generate, prompts, new_tokens: int) -> None:
        seconds, tokens = timed_call(engine, generate, prompts, new_tokens)
        self.seconds.append(seconds)
        self.answers[hashlib.sha256(tokens.astype("<i8").tobytes()).hexdigest()] = None


@contextmanager
def _calls_of(session: EngineSession, phase: str) -> Iterator[_Calls]:
    """Enter a phase. Its calls are sent when the block is left, however it is left: the parent sleeps until then."""
    session.enter(phase)
    calls = _Calls()
    try:
        yield calls
    finally:
        session.emit(calls_s={phase: calls.seconds}, tokens_sha256={} if phase == "first-token" else calls.answers)


def _repeat(engine, prompts, new_tokens: int, settings: Measurement, calls: _Calls) -> Counter[str]:
    """Timed calls until there are enough. Returns their one-time work, which should be none."""
    before = _one_time_work(engine)
    while not settings.is_enough(calls.seconds):
        calls.add(engine, engine.generate, prompts, new_tokens)
    return _one_time_work(engine) - before


def _one_time_work(engine: Engine) -> Counter[str]:
    """Work done so far that a later call need not do again: the counts of the engine's compilation."""
    return Counter({name: count for name, count in engine.compilation().items() if isinstance(count, int)})


@contextmanager
def _metered(engine: Engine, counter: energy.Counter | None, emit: Emit) -> Iterator[None]:
    """Send the energy that the device used in the block, if there is a counter."""

    def read(step, *arguments) -> Any:
        try:
            return step(*arguments)
        except energy.EnergyError as error:
            emit(energy_error=str(error))

    window = read(counter.begin) if counter else None
    yield
    if window:
        engine.synchronize()
        emit(energy=read(counter.end, *window))
