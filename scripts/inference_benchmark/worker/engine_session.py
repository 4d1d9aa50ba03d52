"""An engine brought to the point where it generates, and a checked and timed call of it."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from inference_benchmark import engines
from inference_benchmark.engines.refusal import words_of
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.machine.hardware import Gpu, default_threads, free_memory_bytes
from inference_benchmark.machine.out_of_memory import ALMOST_NOTHING_BYTES, exceptions, line_about_library
from inference_benchmark.models import architecture
from inference_benchmark.models.checkpoint import read_config
from inference_benchmark.worker.process import Emit, qualified_name

#: Phases before anything is timed. A library that fails there cannot do what it is asked; one that fails later could.
_UNTIMED = ("start", "load", "warm-up", "search", "answer")


class WrongOutputError(RuntimeError):
    """The engine did not generate the requested tokens, so its time means nothing."""


@dataclass(frozen=True)
class OutOfMemory:
    """An exception that means out of memory.

    evidence: the free memory of the device, where the exception alone does not say so. The device's context may then
    be broken, and the process is of no more use.
    """

    exception_type: str
    message: str
    evidence: Mapping[str, int]


def out_of_memory(engine: engines.Engine, error: BaseException, gpu: Gpu | None) -> OutOfMemory | None:
    """What an exception, or one behind it, says of memory; None if it is about something else."""
    for each in exceptions(error):
        if engine.is_out_of_memory(each):
            return OutOfMemory(qualified_name(each), str(each), {})
        if gpu and isinstance(each, RuntimeError) and line_about_library(str(each)):
            # Asked of NVML: a broken context answers no question. The exception still holds its call's tensors.
            free_bytes = free_memory_bytes(gpu)
            if free_bytes is not None and free_bytes < ALMOST_NOTHING_BYTES:
                return OutOfMemory(qualified_name(each), str(each), {"device_free_bytes": free_bytes})
    return None


class EngineSession:
    """Engines of a task. Sends each phase as it begins. Out of memory in its block, and a library that cannot do what
    it is asked, end the task with an event.

    gpu: None on the CPU.
    """

    def __init__(self, emit: Emit, gpu: Gpu | None) -> None:
        self.emit, self.gpu, self.phase, self.precision = emit, gpu, "start", ""
        self.engine: engines.Engine | None = None

    def enter(self, phase: str) -> None:
        self.phase = phase
        self.emit("phase", phase=phase)

    def load(
        self, subject: Cell | ColumnStudy, checkpoint: str | None, yardstick: bool = False
    ) -> engines.Engine | None:
        """The engine of a subject with its model loaded; None, with an event, where the precision is not supported.

        yardstick: whether to time it before, outside of the limit on memory.
        """
        folder, precision = Path(checkpoint) if checkpoint else None, subject.precision
        self.precision = precision
        self.enter("start")
        if reason := _not_in(precision, subject.base_engine, folder):
            self._refuse(reason)
            return None
        self.engine = engines.create(subject.base_engine, subject.options)
        self.engine.start(subject.device, subject.threads or default_threads(), folder)
        gc.freeze()  # collecting garbage would go through all objects of the libraries, each time
        if reason := self.engine.unsupported(precision):
            self._refuse(reason)
            return None
        if yardstick:
            self.time_yardstick("before")
        if subject.memory_limit_bytes is not None:
            self.engine.limit_memory(subject.memory_limit_bytes)
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

    def time_yardstick(self, when: str) -> None:
        """Send the times of the engine's yardstick; none where the device has no memory left for it."""
        try:
            times = self.engine.yardstick()
        except Exception as error:
            if out_of_memory(self.engine, error, self.gpu) is None:
                raise
            return
        if times is not None:
            self.emit("yardstick", when=when, times=times)

    def __enter__(self) -> EngineSession:
        return self

    def __exit__(self, kind, error, _) -> bool:
        if self.engine is None or not isinstance(error, Exception):
            return False
        if shortage := out_of_memory(self.engine, error, self.gpu):
            with suppress(RuntimeError):  # a broken context
                self.emit("memory", memory=self.engine.memory())
            self.emit("end", outcome="oom", phase=self.phase, **asdict(shortage))
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


def _not_in(precision: str, engine: str, checkpoint: Path | None) -> str | None:
    """Why an engine can have no weights of a checkpoint in a precision, found without loading anything."""
    if precision not in engines.ENGINES[engine].precisions:
        return f"{engine} has no {precision}"
    return architecture.not_in(read_config(checkpoint), precision) if checkpoint else None


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
