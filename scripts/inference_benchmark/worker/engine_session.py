"""An engine with its model loaded, and a checked and timed call of it."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inference_benchmark import engines
from inference_benchmark.engines.engine import Engine
from inference_benchmark.engines.options import is_split
from inference_benchmark.engines.refusal import words_of
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.machine import quiet
from inference_benchmark.machine.hardware import Gpu, default_threads, free_memory_bytes
from inference_benchmark.machine.out_of_memory import ALMOST_NOTHING_BYTES, exceptions, line_about_library
from inference_benchmark.models import texts
from inference_benchmark.models.checkpoint import read_config
from inference_benchmark.worker.peers import Peers
from inference_benchmark.worker.process import Emit, qualified_name

if TYPE_CHECKING:
    import numpy

#: Phases before anything is timed. Only in these may a failure of a library mean that it cannot do the combination.
_UNTIMED = ("start", "load", "warm-up", "search", "answer")
#: A shorter wait is none: it is the time of a look at the CPUs.
_SHORT_S = 0.1


class PrecisionError(Exception):
    """Engine, library or device do not support the precision, or did not load it; the message says why."""


class WrongOutputError(RuntimeError):
    """The engine did not generate the requested tokens, so its time means nothing."""


class OutOfMemory(NamedTuple):
    """evidence: the free memory of the fullest device, if the exception alone does not show that memory ran out, and
    Engine.out_of_memory_at. The device's context may then be broken, or other processes wait for this one for ever, so
    that the process can no longer be used."""

    exception_type: str
    message: str
    evidence: Mapping[str, Any]


def out_of_memory(engine: Engine, error: BaseException, gpus: Sequence[Gpu]) -> OutOfMemory | None:
    """The exception, or one that caused it, if it means out of memory; None otherwise."""
    for each in exceptions(error):
        if engine.is_out_of_memory(each):
            return OutOfMemory(qualified_name(each), str(each), engine.out_of_memory_at())
        if gpus and isinstance(each, RuntimeError) and line_about_library(str(each)):
            # NVML also answers if the context is broken. The exception still holds the tensors of its call.
            known = [n_bytes for n_bytes in map(free_memory_bytes, gpus) if n_bytes is not None]
            if known and (free_bytes := min(known)) < ALMOST_NOTHING_BYTES:
                evidence = {**engine.out_of_memory_at(), "device_free_bytes": free_bytes}
                return OutOfMemory(qualified_name(each), str(each), evidence)
    return None


class EngineSession:
    """The engine of a task, and its phases, each of which is sent when it begins."""

    def __init__(self, emit: Emit, gpus: Sequence[Gpu]) -> None:
        self.emit, self.gpus, self.phase, self.precision = emit, gpus, "start", ""
        self.engine: Engine | None = None
        self.subject: Cell | ColumnStudy | None = None
        self.text: texts.Tokens | None = None

    def enter(self, phase: str) -> None:
        self.phase = phase
        self.emit(phase=phase)

    def load(self, subject: Cell | ColumnStudy, checkpoint: str | None, rows: int, yardstick: bool = False) -> Engine:
        """The engine with its model loaded. rows: of its calls, at most. yardstick: time it before, outside the limit.
        Raises PrecisionError."""
        folder, self.precision = Path(checkpoint) if checkpoint else None, subject.precision
        self.subject = subject
        self.enter("start")
        if subject.workload.prompts:
            self.text = texts.kept_tokens(subject.workload.prompts_sha256, folder)
        name, options = subject.base_engine, subject.options
        if reason := engines.impossible(name, subject.precision, folder and read_config(folder), options):
            raise PrecisionError(reason)
        engine = self.engine = engines.create(name, options)
        if is_split(options):
            engine.group = Peers(self, name, options)
        engine.start(subject.device, subject.threads or default_threads(), folder)
        gc.freeze()  # collecting garbage would go through all objects of the libraries, each time
        engine.expect(rows, subject.workload.prompt_tokens, subject.workload.new_tokens)
        if reason := engine.unsupported(subject.precision):
            raise PrecisionError(reason)
        if yardstick:
            self.time_yardstick("before")
        if subject.memory_limit_bytes is not None:
            engine.limit_memory(subject.memory_limit_bytes)
        self.enter("load")
        began = engine.clock()
        engine.load(folder, subject.precision)
        engine.synchronize()
        self.emit(load_s=engine.clock() - began)
        self.emit(model=engine.describe())
        if reason := engine.not_loaded_as(subject.precision):
            raise PrecisionError(self._do_not_go_together(reason))
        return engine

    def draw_prompts(self, rows: int) -> numpy.ndarray:
        """Prompts of what was loaded: int64 (rows, prompt tokens), the same for every engine and precision, and in each
        row whatever the number of rows. Raises CheckpointError."""
        length, seed, vocab_size = self.subject.workload.prompt_tokens, self.subject.seed, self.engine.vocab_size
        if self.text is None:
            return draw_prompts(rows, length, seed, vocab_size)
        prompts = texts.prompts(self.text, rows, length, seed)
        texts.check_known(prompts, vocab_size)
        return prompts

    def time_yardstick(self, when: str) -> None:
        """Send the times of the engine's yardstick; nothing if the device has no memory left for it."""
        times = None
        with self.if_memory_suffices():
            times = self.engine.yardstick()
        if times is not None:
            self.emit(yardstick={when: times})

    def wait_for_quiet(self, patience_s: float, load: quiet.OtherLoad) -> bool:
        """Wait until others leave the CPUs alone, at most for so long; whether it did. load: since the start."""
        wait = quiet.wait(patience_s, load)
        if wait.seconds < _SHORT_S:
            return False
        self.emit(waited_s=wait.seconds, is_quiet=wait.is_quiet)
        return True

    @contextmanager
    def if_memory_suffices(self) -> Iterator[None]:
        """Leave the block, without an error, where memory runs out in it."""
        try:
            yield
        except Exception as error:
            if out_of_memory(self.engine, error, self.gpus) is None:
                raise

    def end_of(self, work: Callable[[], Any]) -> dict[str, Any]:
        """Do the work of a task; how it ends: ok, out of memory, or not supported. Other exceptions are raised."""
        try:
            work()
        except PrecisionError as error:
            return {"outcome": "unsupported", "exception_type": None, "message": str(error)}
        except Exception as error:
            if self.engine is None:
                raise
            if shortage := out_of_memory(self.engine, error, self.gpus):
                with suppress(RuntimeError):  # a broken context
                    self.emit(memory=self.engine.memory())
                return {"outcome": "oom", **shortage._asdict()}
            if self.phase not in _UNTIMED or not self.engine.is_refusal(error):
                raise
            traceback.print_exception(error)  # for the log
            message = self._do_not_go_together(words_of(error))
            return {"outcome": "unsupported", "exception_type": qualified_name(error), "message": message}
        return {"outcome": "ok"}

    def _do_not_go_together(self, why: str) -> str:
        return f"{self.engine.combination(self.precision)} do not go together: {why}"


def draw_prompts(batch_size: int, prompt_tokens: int, seed: int, vocab_size: int) -> numpy.ndarray:
    """Random token ids, int64 (batch_size, prompt_tokens)."""
    import numpy

    return numpy.random.default_rng(seed).integers(vocab_size, size=(batch_size, prompt_tokens), dtype=numpy.int64)


def timed_call(engine: Engine, generate: Callable, prompts, new_tokens: int):
    """(seconds, tokens) of one generate call, host to host, the device idle on both sides.

    prompts: int64 (batch, prompt tokens). tokens: int64 (batch, new_tokens). Raises WrongOutputError unless every row
    has exactly new_tokens tokens of the vocabulary.
    """
    engine.synchronize()
    began = engine.clock()
    output = generate(prompts, new_tokens)
    engine.synchronize()
    seconds = engine.clock() - began
    expected = (len(prompts), new_tokens)
    if output.shape != expected:
        raise WrongOutputError(f"asked for {expected} (rows, new tokens), got {output.shape}")
    ended = ((output < 0) | (output >= engine.vocab_size)).any(axis=1)
    if ended.any():
        raise WrongOutputError(f"{int(ended.sum())} of {len(prompts)} rows ended before {new_tokens} new tokens")
    if not seconds > 0:
        raise WrongOutputError(f"the clock advanced by {seconds} s during a call")
    return seconds, output
