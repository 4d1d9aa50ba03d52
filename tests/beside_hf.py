"""An engine beside hf, in an environment that has no pytest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy

from inference_benchmark import engines


def load(name: str, folder: Path, precision: str = "fp32") -> engines.Engine:
    engine = engines.create(name)
    engine.start("cpu", 2, folder)
    assert engine.unsupported(precision) is None
    engine.load(folder, precision)
    return engine


def prompts(rows: int, tokens: int) -> numpy.ndarray:
    return numpy.random.default_rng(rows * 100 + tokens).integers(1000, size=(rows, tokens))


def in_fp32(name: str, folder: Path, forms: list[tuple[int, int, int]]) -> dict[str, Any]:
    """forms: of (rows, prompt tokens, new tokens)."""
    ours, theirs = load(name, folder), load("hf", folder)
    differing, steps = [], []
    for rows, length, new_tokens in forms:
        ids, ended = prompts(rows, length), []
        expected = theirs.generate(ids, new_tokens)
        answers = (
            ours.generate(ids, new_tokens),
            ours.generate_in_steps(ids, new_tokens, lambda ended=ended: ended.append(1)),
            ours.observe(ids, new_tokens)[0],
        )
        differing += [[rows, length, new_tokens] for answer in answers if not (answer == expected).all()]
        steps.append(len(ended) - new_tokens)
    ids = prompts(3, 9)
    expected = theirs.generate(ids, 12)
    logits = [engine.next_token_logits(ids, expected) for engine in (ours, theirs)]
    shapes = [engine.describe()["shapes"] for engine in (ours, theirs)]
    return {
        "differing": differing,
        "additional_steps": steps,
        "logits_error": float(numpy.abs(logits[0] - logits[1]).max()),
        "shapes_alike": shapes[0] == shapes[1],
    }
