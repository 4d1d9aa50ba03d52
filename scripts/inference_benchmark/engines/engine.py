"""The protocol of an engine. See docs/add-an-engine.md."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_benchmark.engines.options import NO_OPTIONS
from inference_benchmark.engines.refusal import UnsupportedError

if TYPE_CHECKING:
    import numpy

    from inference_benchmark.analysis.timeline import Profile


class Engine(ABC):
    """One loaded model that generates text. Methods are called in the order below.

    The defaults of methods that are not abstract are for an engine that runs eagerly on the CPU. Token ids are int64
    arrays on the host: prompts (batch, prompt_tokens), tokens (batch, new_tokens).
    """

    #: Seconds from an arbitrary start; times every sample.
    clock = staticmethod(time.perf_counter)
    #: The name in ENGINES.
    name = ""
    #: The options of a variant, by the name in OPTIONS; the engine decides the others.
    options: Mapping[str, Any] = NO_OPTIONS
    #: Of a model that is split over several processes: all of them (worker/peers.py), set before start.
    group: Any = None

    @abstractmethod
    def start(self, device: str, threads: int, checkpoint: Path | None) -> None:
        """Import everything that this checkpoint needs, initialise the device (``cpu`` or ``cuda``) and convert the
        checkpoint, which is None for an engine without weights. Counts neither as load time nor as load memory."""

    def import_libraries(self, checkpoint: Path, on_gpu: bool) -> None:  # noqa: B027  optional
        """Import what this checkpoint needs, and find out what all its workers would, as far as that uses no device and
        starts no thread. Workers are forked from the process that called it; each calls start of a new engine. on_gpu:
        whether the process can see a GPU, which it must not ask itself."""

    def expect(self, rows: int, prompt_tokens: int, new_tokens: int) -> None:  # noqa: B027  optional
        """The sizes of the largest call until this is called again, for an engine that takes the memory of its calls
        when it loads. If it has loaded, it may load again."""

    def unsupported(self, precision: str) -> str | None:
        """Why this device or library does not support a precision that ENGINES lists; None if it does."""
        return None

    def combination(self, precision: str) -> str:
        """Libraries and settings of this cell, separated by commas, for the message that they do not go together."""
        return f"{type(self).__name__}, {precision}"

    def yardstick(self) -> dict[str, Any] | None:
        """Times of two short fixed kernels on this device and these threads, as the record has them; None if the engine
        has none. Called after start, and again after unload without a limit on memory."""
        return None

    @abstractmethod
    def limit_memory(self, n_bytes: int) -> None:
        """Make allocations beyond n_bytes fail, as on a smaller device. Raises OSError if that is not possible."""

    def lift_limit(self) -> None:  # noqa: B027  optional
        """Allow all of the device's memory again. What is loaded stays as the limit made it."""

    @abstractmethod
    def load(self, checkpoint: Path | None, precision: str) -> None:
        """Load the checkpoint's weights onto the device in this precision."""

    def not_loaded_as(self, precision: str) -> str | None:
        """Why the loaded weights are not in this precision; None if they are. Some libraries only log that."""
        return None

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Token ids lie in range(vocab_size)."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Facts about the loaded model for the record: parameters, dtypes, attention, quantised modules, device map,
        threads, library settings that affect speed, and ``shapes`` (see roofline.Shapes)."""

    @abstractmethod
    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        """Greedy continuation of every row, without stopping early. If a row does end early, its missing tokens are an
        id outside range(vocab_size)."""

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        """(tokens, facts for the record) of an observed generate call, never timed as a sample: ``cache`` (class),
        ``activations`` (dtypes), ``non_finite_rows`` (number of rows with a non-finite logit at any step), and
        ``outlier_columns`` if the precision computes some columns separately."""
        return self.generate(prompts, new_tokens), {}

    def generate_in_steps(
        self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]
    ) -> numpy.ndarray:
        """As generate. Calls step_ended at the end of each step, when each row has a new token: new_tokens times."""
        raise UnsupportedError(f"{type(self).__name__} does not tell when a step has ended")

    def mark(self) -> Any:
        """A moment on the device, without waiting for the device."""
        return self.clock()

    def seconds_between(self, marks: Sequence[Any]) -> list[float]:
        """The seconds from each mark to the next. Called when the device is idle."""
        return [later - sooner for sooner, later in pairwise(marks)]

    def memory_in_use_bytes(self) -> int | None:
        """Bytes that the process has allocated on the device, or that are resident; None if unknown."""
        return None

    def profile(self, prompts: numpy.ndarray, new_tokens: int, trace: Path | None) -> Profile | None:
        """What runs on the device during a generate call; None if the engine cannot tell. trace: the file for a
        compressed Chrome trace; None for no trace."""
        return None

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        """float32 (batch, steps, vocab_size) on the host: the logits from which generate chooses each token, given that
        the tokens before it are from continuation, int64 (batch, steps)."""
        raise UnsupportedError(f"{type(self).__name__} provides no logits")

    def text_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> Iterator[numpy.ndarray]:
        """next_token_logits of a text, row after row: (steps, vocab_size). In one pass over the tokens of a row if the
        engine can."""
        for row in range(len(prompts)):
            yield from self.next_token_logits(prompts[row : row + 1], continuation[row : row + 1])

    def compilation(self) -> dict[str, Any]:
        """``graphs`` (number) and ``seconds`` of all compilation in this process so far; ``why_not`` if an engine that
        compiles could not. With CUDA graphs also ``cuda_graphs_recorded`` and ``cuda_graphs_skipped`` (numbers)."""
        return {"graphs": 0, "seconds": 0.0}

    def synchronize(self) -> None:  # noqa: B027  optional
        """Wait until the device is idle."""

    def release(self) -> None:  # noqa: B027  optional
        """Free all memory of earlier calls that the next call may not need."""

    def unload(self) -> None:
        """Free the model, too. Afterwards only yardstick is called."""
        self.release()

    @abstractmethod
    def reset_peak_memory(self) -> None:
        """Restart the measurement of peak memory."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes after loading, and peaks since the last reset: the record's ``memory``."""

    @abstractmethod
    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception from any method above means out of memory."""

    def out_of_memory_at(self) -> dict[str, str]:
        """Evidence that names the process and device of a model that is split, which is of no use any more."""
        return {}

    def is_refusal(self, error: BaseException) -> bool:
        """Whether an exception from any method above, other than out of memory, means that the library cannot do this
        combination of model, precision and engine."""
        return isinstance(error, UnsupportedError)
