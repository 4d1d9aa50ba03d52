"""Engines: what generates. One file per engine behind one small protocol; only they import torch.

To add one, write a class with the methods of Engine and name it in ENGINES and in config.schema.yaml.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy


class Engine(ABC):
    """One loaded model that generates. Methods are called in the order they stand here."""

    #: Seconds from an arbitrary start; what every sample is taken with.
    clock = staticmethod(time.perf_counter)

    @abstractmethod
    def start(self, device: str, threads: int, checkpoint: Path | None) -> None:
        """Import all that this checkpoint needs and wake the device (``cpu`` or ``cuda``).

        Neither belongs to the time or the memory of loading. checkpoint is None where the engine
        needs no weights (see ENGINES).
        """

    @abstractmethod
    def unsupported(self, precision: str) -> str | None:
        """Why this device or library cannot do a precision (a key of PRECISIONS); None where it can."""

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
        threads, and the library's settings that decide speed."""

    @abstractmethod
    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        """Greedy continuation of every row, never stopping early.

        prompts: int64 (batch, prompt_tokens) on the host. Returns int64 (batch, new_tokens) on the
        host, with an id outside range(vocab_size) wherever a row did end early.
        """

    @abstractmethod
    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        """The same call looked into, never timed as a sample: its tokens, and what is only seen while it runs.

        Facts for the record beside those of describe: ``cache`` and ``activations`` as found, and
        ``non_finite_rows``, how many rows had a logit that is no finite number at any step.
        """

    @abstractmethod
    def compiled_graphs(self) -> int:
        """How many graphs this process has compiled so far; 0 where everything ran eagerly."""

    @abstractmethod
    def synchronize(self) -> None:
        """Return when the device has nothing left to do."""

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
    """target: ``module:Class`` below this package, imported when used. needs_weights: reads a checkpoint."""

    target: str
    needs_weights: bool = True


ENGINES = {
    "hf": EngineEntry("hf:HfEngine"),
    "fake": EngineEntry("fake:FakeEngine", needs_weights=False),
}


def create(name: str) -> Engine:
    """An engine by its name in ENGINES."""
    module, _, attribute = ENGINES[name].target.partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)()
