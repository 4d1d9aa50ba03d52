"""Engines: what generates. One file per engine behind one small protocol.

docs/add-an-engine.md shows how one is added.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy


class Engine(ABC):
    """One loaded model that generates. Methods are called in the order they stand here.

    Those that are not abstract say what holds for an engine that runs eagerly on the CPU and has nothing to add.
    """

    #: Seconds from an arbitrary start; what every sample is taken with.
    clock = staticmethod(time.perf_counter)

    @abstractmethod
    def start(self, device: str, threads: int, checkpoint: Path | None) -> None:
        """Import all that this checkpoint needs and wake the device (``cpu`` or ``cuda``).

        Neither belongs to the time or the memory of loading. What an engine makes of a checkpoint once
        and keeps (a conversion) belongs here too. checkpoint is None where the engine needs no weights.
        """

    def unsupported(self, precision: str) -> str | None:
        """Why this device or library cannot do a precision that ENGINES lists for the engine; None where it can."""
        return None

    @abstractmethod
    def limit_memory(self, n_bytes: int) -> None:
        """Make allocations beyond so many bytes fail, as on a smaller device. Raises OSError where impossible."""

    @abstractmethod
    def load(self, checkpoint: Path | None, precision: str) -> None:
        """Bring the checkpoint's weights onto the device in this precision."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Token ids lie in range(vocab_size)."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Facts of the loaded model for the record: parameters, dtypes, attention, what is quantised, device map,
        threads, the library's settings that decide speed, and ``shapes`` (see roofline.Shapes)."""

    @abstractmethod
    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        """Greedy continuation of every row, never stopping early.

        prompts: int64 (batch, prompt_tokens) on the host. Returns int64 (batch, new_tokens) on the
        host, with an id outside range(vocab_size) wherever a row did end early.
        """

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        """The same call looked into, never timed as a sample: its tokens, and what is only seen while it runs.

        Facts for the record beside those of describe: ``cache`` and ``activations`` as found,
        ``non_finite_rows``, how many rows had a logit that is no finite number at any step, and
        ``outlier_columns`` where the precision treats some apart.
        """
        return self.generate(prompts, new_tokens), {}

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        """What generate computes to choose each token, had the tokens before it been those of continuation.

        prompts: int64 (batch, prompt_tokens); continuation: int64 (batch, steps), both on the host.
        Returns float32 (batch, steps, vocab_size) on the host.
        """
        raise NotImplementedError(f"{type(self).__name__} shows no logits")

    def compilation(self) -> dict[str, Any]:
        """What this process has compiled so far: ``graphs``, how many, and ``seconds``; ``why_not`` where the
        engine is one that compiles and could not."""
        return {"graphs": 0, "seconds": 0.0}

    def synchronize(self) -> None:  # noqa: B027  nothing to do is the rule
        """Return when the device has nothing left to do."""

    def release(self) -> None:  # noqa: B027
        """Give back all memory that earlier calls took and that the next one may not need."""

    def unload(self) -> None:
        """Give back the model, too; nothing more is asked of this engine."""
        self.release()

    @abstractmethod
    def reset_peak_memory(self) -> None:
        """Let peaks count from here on."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes after loading and at their peaks since the last reset: what the record's ``memory`` holds."""

    @abstractmethod
    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception of any method above says that memory ran out."""


@dataclass(frozen=True)
class EngineEntry:
    """target: ``module:Class`` below this package, imported when used.

    precisions: those it has, each with what it means there in a few words for the heads of tables, "" where
    the name says it all. package: what must be installed for it beyond this project's own dependencies.
    needs_weights: reads a checkpoint; one that does not makes up its times.
    """

    target: str
    precisions: Mapping[str, str] = field(default_factory=dict)
    package: str | None = None
    needs_weights: bool = True


#: Through transformers and bitsandbytes, whichever way generate is called.
_TRANSFORMERS = {
    "fp32": "",
    "bf16": "",
    "fp16": "",
    "int8": "LLM.int8()",
    "int8-threshold-0": "LLM.int8(), no outliers",
    "nf4": "4-bit weights, bf16 products",
}
ENGINES = {
    "hf": EngineEntry("hf:HfEngine", _TRANSFORMERS),
    "hf-static": EngineEntry("hf_static:HfStaticEngine", _TRANSFORMERS),
    "ctranslate2": EngineEntry(
        "ctranslate2:CTranslate2Engine",
        {"fp32": "", "bf16": "", "fp16": "", "int8": "weights and activations"},
        package="ctranslate2",
    ),
    "fake": EngineEntry("fake:FakeEngine", {"fp32": "", "bf16": "", "int8": ""}, needs_weights=False),
}
#: Every precision that some engine has.
PRECISIONS = tuple(dict.fromkeys(name for entry in ENGINES.values() for name in entry.precisions))


def create(name: str) -> Engine:
    """An engine by its name in ENGINES."""
    module, _, attribute = ENGINES[name].target.partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)()


def missing_package(name: str) -> str | None:
    """The package that an engine needs and that is not installed here; None where it can be used."""
    package = ENGINES[name].package
    return package if package and importlib.util.find_spec(package) is None else None
