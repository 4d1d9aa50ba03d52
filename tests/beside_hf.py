"""An engine with an environment of its own beside hf: what scripts share that the Python of that environment runs, which
has no pytest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from inference_benchmark import engines
from inference_benchmark.engines.engine import Engine


def load(name: str, folder: Path, precision: str = "fp32", largest=(8, 9, 12), **options: str) -> Engine:
    engine = engines.create(name, options)
    engine.start("cpu", 2, folder)
    engine.expect(*largest)
    assert engine.unsupported(precision) is None
    engine.load(folder, precision)
    return engine


def prompts(rows: int, tokens: int) -> numpy.ndarray:
    return numpy.random.default_rng(rows * 100 + tokens).integers(1000, size=(rows, tokens))


def in_fp32(name: str, folder: Path, forms: list[tuple[int, int, int]]) -> dict[str, Any]:
    ours, theirs = load(name, folder, largest=map(max, zip(*forms, strict=True))), load("hf", folder)
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
    ours.unload()
    return {
        "differing": differing,
        "additional_steps": steps,
        "logits_error": float(numpy.abs(logits[0] - logits[1]).max()),
        "shapes_alike": shapes[0] == shapes[1],
    }


def report(name: str, of_precision: Callable[[Path, str], dict[str, Any]]) -> None:
    """Print as JSON, by family and precision, what in_fp32 finds of an engine, and of_precision of a checkpoint.

    The argument of the script is JSON with ``folders``, checkpoints by family, ``forms``, of (rows, prompt tokens, new
    tokens), and ``precisions``, lists by family of those that of_precision is for.
    """
    wanted, found = json.loads(sys.argv[1]), {}
    for family, folder in wanted["folders"].items():
        found[family] = {"fp32": in_fp32(name, Path(folder), wanted["forms"])}
        for precision in wanted["precisions"].get(family, ()):
            found[family][precision] = of_precision(Path(folder), precision)
    print(json.dumps(found))
