"""What the tasks of a worker share: an engine brought to the point where it generates, and a checked call of it."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from inference_benchmark import engines
from inference_benchmark.machine.hardware import usable_cpus

Tell = Callable[..., None]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class WrongOutputError(RuntimeError):
    """The engine did not generate what it was asked for, so its time says nothing."""


class Stage:
    """Tells each phase as it begins. Memory that runs out inside its block ends the task as an event."""

    def __init__(self, tell: Tell) -> None:
        self.tell, self.phase = tell, "start"
        self.engine: engines.Engine | None = None

    def enter(self, phase: str) -> None:
        self.phase = phase
        self.tell("phase", phase=phase)

    def load(
        self,
        engine: str,
        device: str,
        threads: int | None,
        checkpoint: str | None,
        precision: str,
        memory_limit_bytes: int | None,
    ) -> engines.Engine | None:
        """The engine with its model loaded; None where the device or library cannot do the precision, which is told."""
        folder = Path(checkpoint) if checkpoint else None
        self.enter("start")
        self.engine = engines.create(engine)
        self.engine.start(device, threads or usable_cpus(), folder)
        known = engines.ENGINES[engine].precisions
        reason = self.engine.unsupported(precision) if precision in known else f"{engine} has no {precision}"
        if reason:
            self.tell("end", outcome="unsupported", message=reason)
            return None
        if memory_limit_bytes is not None:
            self.engine.limit_memory(memory_limit_bytes)
        self.enter("load")
        began = self.engine.clock()
        self.engine.load(folder, precision)
        self.engine.synchronize()
        self.tell("load", seconds=self.engine.clock() - began)
        self.tell("describe", model=self.engine.describe())
        return self.engine

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        if self.engine is None or not isinstance(error, Exception) or not self.engine.is_out_of_memory(error):
            return False
        self.tell("memory", memory=self.engine.memory())
        self.tell("end", outcome="oom", phase=self.phase, exception_type=qualified(error), message=str(error))
        return True


def draw_prompts(batch_size: int, prompt_tokens: int, seed: int, vocab_size: int):
    """int64 (batch_size, prompt_tokens): the same ids for every engine and precision."""
    import numpy

    return numpy.random.default_rng(seed).integers(vocab_size, size=(batch_size, prompt_tokens), dtype=numpy.int64)


def timed_call(engine: engines.Engine, generate: Callable, prompts, new_tokens: int):
    """(seconds, tokens) of one generate call, host to host, the device idle on both sides.

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
    return seconds, output


def qualified(error: BaseException) -> str:
    """The class of an exception, with its module."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def die_with_parent() -> None:
    """Ctrl-C is the parent's to handle, and nothing is measured for a parent that is gone.

    Where memory runs out the kernel is to kill this process, not the one that writes the record.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000")
