"""Text generation engines: one file per engine, all with the same protocol.

See docs/add-an-engine.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from inference_benchmark.engines.options import OPTIONS, chosen
from inference_benchmark.engines.refusal import UnsupportedError

if TYPE_CHECKING:
    import numpy

    from inference_benchmark.analysis.timeline import Profile


class Engine(ABC):
    """One loaded model that generates text. Methods are called in the order below.

    The defaults of methods that are not abstract are for an engine that runs eagerly on the CPU.
    """

    #: Seconds from an arbitrary start; times every sample.
    clock = staticmethod(time.perf_counter)
    #: What a variant of the engine chooses, by the name in OPTIONS; the engine decides the rest.
    options: Mapping[str, Any] = {}

    @abstractmethod
    def start(self, device: str, threads: int, checkpoint: Path | None) -> None:
        """Import everything that this checkpoint needs and initialise the device (``cpu`` or ``cuda``).

        This does not count as load time or load memory. The conversion of a checkpoint also belongs here.
        checkpoint: None if the engine needs no weights.
        """

    def import_libraries(self, checkpoint: Path) -> None:  # noqa: B027  optional
        """Import what this checkpoint needs, and find out what all its workers would, as far as that touches no device
        and starts no thread.

        Workers are forked from the process that has called it. start follows in a worker, in a new engine.
        """

    def unsupported(self, precision: str) -> str | None:
        """Why this device or library does not support a precision that ENGINES lists; None if it does."""
        return None

    def combination(self, precision: str) -> str:
        """What is put together in this cell, separated by commas, for a message that it does not go together."""
        return f"{type(self).__name__}, {precision}"

    def yardstick(self) -> dict[str, Any] | None:
        """Times of two short fixed kernels on this device and these threads, as the record has them; None if the engine
        has none. Called after start, and once more after unload: then no limit on memory holds any more."""
        return None

    @abstractmethod
    def limit_memory(self, n_bytes: int) -> None:
        """Make allocations beyond n_bytes fail, as on a smaller device. Raises OSError if that is not possible."""

    @abstractmethod
    def load(self, checkpoint: Path | None, precision: str) -> None:
        """Load the checkpoint's weights onto the device in this precision."""

    def not_loaded_as(self, precision: str) -> str | None:
        """Why the loaded weights are not what the precision says; None if they are. Libraries only log such a thing."""
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
        """Greedy continuation of every row, without stopping early.

        prompts: int64 (batch, prompt_tokens) on the host. Returns int64 (batch, new_tokens) on the host. If a row does
        end early, its missing tokens are an id outside range(vocab_size).
        """

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        """An observed generate call, never timed as a sample. Returns its tokens and facts for the record.

        The facts are those that only a running call shows: ``cache`` (class), ``activations`` (dtypes),
        ``non_finite_rows`` (number of rows with a non-finite logit at any step), and ``outlier_columns`` if the
        precision computes some columns separately.
        """
        return self.generate(prompts, new_tokens), {}

    def generate_in_steps(
        self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]
    ) -> numpy.ndarray:
        """As generate. Calls step_ended at the end of each step, when each row has a new token: new_tokens times."""
        raise UnsupportedError(f"{type(self).__name__} does not tell when a step has ended")

    def mark(self) -> Any:
        """A moment on the device, without waiting for it; on a CPU the clock's."""
        return self.clock()

    def seconds_between(self, marks: Sequence[Any]) -> list[float]:
        """The seconds from each of several marks to the next. Called when the device is idle."""
        return [later - sooner for sooner, later in pairwise(marks)]

    def memory_in_use_bytes(self) -> int | None:
        """What the process has allocated on the device now, or what of it is resident; None where it is not known."""
        return None

    def profile(self, prompts: numpy.ndarray, new_tokens: int, trace: Path | None) -> Profile | None:
        """What runs on the device during a generate call; None where the engine cannot tell. trace: the file for a
        Chrome trace, compressed; None for no trace."""
        return None

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        """The logits from which generate chooses each token, given that the tokens before it are from continuation.

        prompts: int64 (batch, prompt_tokens); continuation: int64 (batch, steps), both on the host.
        Returns float32 (batch, steps, vocab_size) on the host.
        """
        raise NotImplementedError(f"{type(self).__name__} provides no logits")

    def compilation(self) -> dict[str, Any]:
        """``graphs`` (number) and ``seconds`` of all compilation in this process so far; ``why_not`` if an engine that
        compiles could not. An engine that runs compiled code as CUDA graphs also has ``cuda_graphs_recorded``, and
        ``cuda_graphs_skipped``, the number of those that it gave up."""
        return {"graphs": 0, "seconds": 0.0}

    def synchronize(self) -> None:  # noqa: B027  optional
        """Wait until the device is idle."""

    def release(self) -> None:  # noqa: B027
        """Free all memory of earlier calls that the next call may not need."""

    def unload(self) -> None:
        """Free the model, too. Of the engine only yardstick is used again."""
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

    def is_refusal(self, error: BaseException) -> bool:
        """Whether an exception from any method above means that the library cannot do this combination of model,
        precision and engine. Not asked for exceptions that mean out of memory."""
        return isinstance(error, UnsupportedError)


@dataclass(frozen=True)
class EngineEntry:
    """One engine in ENGINES.

    target: ``module:Class`` in this package, imported on first use. precisions: the supported ones, each with a short
    explanation for table headers, "" if the name is enough. package: an optional dependency that the engine needs.
    has_environment: whether it is measured in an environment of its own, made from envs/NAME.lock, because package does
    not install beside what the others need. devices: where it runs.
    needs_weights: whether it reads a checkpoint; an engine that does not makes up its times. compiles: whether it needs
    a compiler on the machine. options: the settings in OPTIONS that its variants may choose.
    """

    target: str
    precisions: Mapping[str, str] = field(default_factory=dict)
    package: str | None = None
    has_environment: bool = False
    devices: tuple[str, ...] = ("cuda", "cpu")
    needs_weights: bool = True
    compiles: bool = False
    options: tuple[str, ...] = ()


#: Precisions of transformers and bitsandbytes, the same for all engines that use them.
_TRANSFORMERS = {
    "fp32": "",
    "bf16": "",
    "fp16": "",
    "int8": "LLM.int8()",
    "int8-threshold-0": "LLM.int8(), no outliers",
    "nf4": "4-bit weights, bf16 products",
    "int8-weight-only": "8-bit weights, bf16 products",
    "int4-weight-only": "4-bit weights, bf16 products",
    "gptq": "weights of the checkpoint",
    "awq": "weights of the checkpoint",
}
#: Optional dependencies that precisions need, in engines of transformers.
PRECISION_PACKAGES = {
    "int8-weight-only": ("torchao",),
    "int4-weight-only": ("torchao",),
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel",),
}
#: The same of packages that the default environment has, and another one may lack.
_QUANTISING = dict.fromkeys(("int8", "int8-threshold-0", "nf4"), ("bitsandbytes",))
ENGINES = {
    "hf": EngineEntry("hf:HfEngine", _TRANSFORMERS, options=("attention", "cache", "matmul_precision")),
    "hf-static": EngineEntry(
        "hf_static:HfStaticEngine",
        _TRANSFORMERS,
        compiles=True,
        options=("attention", "compile_mode", "matmul_precision"),
    ),
    "ctranslate2": EngineEntry(
        "ctranslate2:CTranslate2Engine",
        {"fp32": "", "bf16": "", "fp16": "", "int8": "weights and activations"},
        package="ctranslate2",
    ),
    "openvino": EngineEntry(
        "openvino:OpenVinoEngine",
        {"fp32": "", "bf16": "", "int8": "8-bit weights", "int4": "4-bit weights"},
        package="openvino_genai",
        has_environment=True,
        devices=("cpu",),
    ),
    "fake": EngineEntry(
        "fake:FakeEngine", {"fp32": "", "bf16": "", "int8": ""}, needs_weights=False, options=("attention",)
    ),
}
#: All precisions of all engines.
PRECISIONS = tuple(dict.fromkeys(name for entry in ENGINES.values() for name in entry.precisions))


def create(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> Engine:
    """A new engine, by its name in ENGINES. options: of a variant of it."""
    module, _, attribute = ENGINES[name].target.partition(":")
    engine = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)()
    engine.options = chosen(options)
    return engine


def option_problems(name: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it) of a variant of the engine with this name."""
    allowed = ENGINES[name].options
    for option, value in chosen(options).items():
        if option not in allowed:
            yield option, f"{name} has no such option; allowed: {', '.join(allowed) or 'none'}"
        elif value not in OPTIONS[option].values:
            yield option, f"{value!r} is not allowed; allowed: {', '.join(OPTIONS[option].values)}"


def needed_packages(name: str, precision: str, options: Mapping[str, Any] = MappingProxyType({})) -> dict[str, str]:
    """The packages that an engine, a precision in it, or a variant of it with these options needs beside torch and
    transformers, each with what needs it: the engine, the precision or the value of the option."""
    entry = ENGINES[name]
    of_precision = {**PRECISION_PACKAGES, **_QUANTISING} if entry.precisions is _TRANSFORMERS else {}
    needed = {entry.package: name, **dict.fromkeys(of_precision.get(precision, ()), precision)}
    needed |= {OPTIONS[option].packages.get(value): value for option, value in chosen(options).items()}
    return {package: what for package, what in needed.items() if package}


def missing_package(name: str, precision: str = "", options: Mapping[str, Any] = MappingProxyType({})) -> str | None:
    """The package that an engine, a precision in it, or a variant of it with these options needs and that is not
    installed; None if all can be used."""
    installed = {package for packages in _QUANTISING.values() for package in packages}  # with this program
    optional = (package for package in needed_packages(name, precision, options) if package not in installed)
    return next((package for package in optional if importlib.util.find_spec(package) is None), None)
