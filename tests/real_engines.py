"""Real engines with a small model loaded."""

from __future__ import annotations

from pathlib import Path

import numpy
from made_up import MODELS
from running import convert, drawn

from inference_benchmark import engines
from inference_benchmark.engines.engine import Engine

#: (rows, prompt tokens, new tokens). The last but one fills the 128 positions that gpt2 has learned.
FORMS = [(1, 1, 1), (1, 1, 24), (1, 9, 2), (2, 3, 17), (5, 17, 8), (8, 40, 32), (2, 100, 29), (33, 2, 5)]


def weights(family: str = "bloom", seed: int = 0) -> Path:
    """A checkpoint of a family in MODELS."""
    return drawn({"architecture": MODELS[family], "seed": seed})


def load(
    name: str, precision: str = "fp32", family: str = "bloom", limit_bytes: int | None = None, **options: str
) -> Engine:
    """An engine on two CPU threads with a model of a family in MODELS. options: of a variant of the engine."""
    return load_from(weights(family), name, precision, limit_bytes, **options)


def load_from(
    folder: Path, name: str, precision: str = "fp32", limit_bytes: int | None = None, **options: str
) -> Engine:
    """The same with the checkpoint in a folder."""
    engine = engines.create(name, options)
    if name == "ctranslate2":
        convert(folder)
    engine.start("cpu", 2, folder)
    assert engine.unsupported(precision) is None
    if limit_bytes:
        engine.limit_memory(limit_bytes)
    engine.load(folder, precision)
    return engine


def prompts(rows: int, tokens: int = 9, vocab_size: int = 1000) -> numpy.ndarray:
    """Token ids, int64 (rows, tokens)."""
    return numpy.random.default_rng(rows * 100 + tokens).integers(vocab_size, size=(rows, tokens))
