"""An engine brought to the point where it generates, and a checked and timed call of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from inference_benchmark import engines
from inference_benchmark.engines.refusal import words_of
from inference_benchmark.machine.hardware import default_threads
from inference_benchmark.worker.process import Emit, qualified_name

#: Phases before anything is timed. A library that fails there cannot do what it is asked; one that fails later could.
_UNTIMED = ("start", "load", "warm-up", "search", "answer")


class WrongOutputError(RuntimeError):
    """The engine did not generate the requested tokens, so its time means nothing."""


class EngineSession:
    """Engines of a task. Sends each phase as it begins. Out of memory in its block, and a library that cannot do what
    it is asked, end the task with an event."""

    def __init__(self, emit: Emit) -> None:
        self.emit, self.phase, self.precision = emit, "start", ""
        self.engine: engines.Engine | None = None

    def enter(self, phase: str) -> None:
        self.phase = phase
        self.emit("phase", phase=phase)

    def load(
        self,
        engine: str,
        device: str,
        threads: int | None,
        checkpoint: str | None,
        precision: str,
        memory_limit_bytes: int | None,
    ) -> engines.Engine | None:
        """The engine with its model loaded; None, with an event, where the precision is not supported."""
        folder, self.precision = Path(checkpoint) if checkpoint else None, precision
        self.enter("start")
        self.engine = engines.create(engine)
        self.engine.start(device, threads or default_threads(), folder)
        precisions = engines.ENGINES[engine].precisions
        reason = self.engine.unsupported(precision) if precision in precisions else f"{engine} has no {precision}"
        if reason:
            self._refuse(reason)
            return None
        if memory_limit_bytes is not None:
            self.engine.limit_memory(memory_limit_bytes)
        self.enter("load")
        began = self.engine.clock()
        self.engine.load(folder, precision)
        self.engine.synchronize()
        self.emit("load", seconds=self.engine.clock() - began)
        self.emit("describe", model=self.engine.describe())
        if reason := self.engine.not_loaded_as(precision):
            self._refuse(self._not_together(reason))
            return None
        return self.engine

    def __enter__(self) -> EngineSession:
        return self

    def __exit__(self, kind, error, _) -> bool:
        if self.engine is None or not isinstance(error, Exception):
            return False
        if self.engine.is_out_of_memory(error):
            self.emit("memory", memory=self.engine.memory())
            self.emit("end", outcome="oom", phase=self.phase, exception_type=qualified_name(error), message=str(error))
            return True
        if self.phase in _UNTIMED and self.engine.is_refusal(error):
            traceback.print_exception(error)  # for the log
            self._refuse(self._not_together(words_of(error)), exception_type=qualified_name(error))
            return True
        return False

    def _refuse(self, message: str, exception_type: str | None = None) -> None:
        self.emit("end", outcome="unsupported", exception_type=exception_type, message=message)

    def _not_together(self, why: str) -> str:
        return f"{self.engine.combination(self.precision)} do not go together: {why}"


def draw_prompts(batch_size: int, prompt_tokens: int, seed: int, vocab_size: int):
    """Token ids, int64 (batch_size, prompt_tokens): the same for every engine and precision."""
    import numpy

    return numpy.random.default_rng(seed).integers(vocab_size, size=(batch_size, prompt_tokens), dtype=numpy.int64)


def timed_call(engine: engines.Engine, generate: Callable, prompts, new_tokens: int):
    """(seconds, tokens) of one generate call, host to host, the device idle on both sides.

    prompts: int64 (batch, prompt tokens). tokens: int64 (batch, new_tokens). Raises WrongOutputError unless every row
    has exactly new_tokens tokens of the vocabulary.
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
        raise WrongOutputError(f"the clock advanced by {seconds} s during a call")
    return seconds, output
