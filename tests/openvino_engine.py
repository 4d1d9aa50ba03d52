"""The engine openvino beside hf. Run by the Python of its environment, which has no pytest; prints JSON.

argument: JSON with ``folders``, checkpoints by family, ``forms``, of (rows, prompt tokens, new tokens), and
``compressed``, families.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy

from inference_benchmark import engines
from inference_benchmark.engines.openvino import exported


def load(name: str, folder: Path, precision: str = "fp32") -> engines.Engine:
    engine = engines.create(name)
    engine.start("cpu", 2, folder)
    assert engine.unsupported(precision) is None
    engine.load(folder, precision)
    return engine


def prompts(rows: int, tokens: int) -> numpy.ndarray:
    return numpy.random.default_rng(rows * 100 + tokens).integers(1000, size=(rows, tokens))


def in_fp32(folder: Path, forms: list[tuple[int, int, int]]) -> dict[str, Any]:
    ours, theirs = load("openvino", folder), load("hf", folder)
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


def compressed(folder: Path, precision: str) -> dict[str, Any]:
    ours = load("openvino", folder, precision)
    described = ours.describe()
    return {
        "not_loaded_as": [ours.not_loaded_as(precision), ours.not_loaded_as("fp32")],
        "shapes": described["shapes"],
        "file_bytes": (exported(folder, precision) / "openvino_model.bin").stat().st_size,
        "answer": ours.generate(prompts(3, 9), 12).shape,
    }


def main(request: str) -> None:
    wanted = json.loads(request)
    folders = {family: Path(folder) for family, folder in wanted["folders"].items()}
    found = {family: {"fp32": in_fp32(folder, wanted["forms"])} for family, folder in folders.items()}
    for family in wanted["compressed"]:
        for precision in ("int8", "int4"):
            found[family][precision] = compressed(folders[family], precision)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
