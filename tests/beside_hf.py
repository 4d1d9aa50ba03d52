"""An engine with an environment of its own beside hf. Run by the Python of that environment, which has no pytest; prints
JSON.

arguments: the name of the engine, and JSON with ``folders``, checkpoints by family, ``forms``, of (rows, prompt tokens,
new tokens), and ``compressed``, families whose weights openvino compresses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy

from inference_benchmark import engines


def load(name: str, folder: Path, precision: str = "fp32", largest=(8, 9, 12), **options: str) -> engines.Engine:
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


def compressed(folder: Path, precision: str) -> dict[str, Any]:
    from inference_benchmark.engines.openvino import exported

    ours = load("openvino", folder, precision)
    described = ours.describe()
    return {
        "not_loaded_as": [ours.not_loaded_as(precision), ours.not_loaded_as("fp32")],
        "shapes": described["shapes"],
        "file_bytes": (exported(folder, precision) / "openvino_model.bin").stat().st_size,
        "answer": ours.generate(prompts(3, 9), 12).shape,
    }


def vllm(folder: Path) -> dict[str, Any]:
    """What only vLLM can do: run a batch in waves, and run a model without compiling it."""
    engine, ids, found = load("vllm", folder, largest=(2, 9, 12), execution="eager"), prompts(3, 9), {}
    try:
        engine.generate(ids, 12)
    except engines.UnsupportedError as error:
        found["in_waves"] = str(error)
    small = engine.describe()
    engine.expect(3, 9, 12)
    found["answer"] = engine.generate(ids, 12).tolist()
    found["cache_bytes"] = [facts["kv_cache_bytes"] for facts in (small, engine.describe())]
    engine.unload()
    engine = load("vllm", folder, "bf16", largest=(3, 9, 12))
    found["not_loaded_as"] = [engine.not_loaded_as(precision) for precision in ("bf16", "fp32")]
    found["executions"] = [small["execution"], engine.describe()["execution"]]
    return found


def main(name: str, request: str) -> None:
    wanted = json.loads(request)
    folders = {family: Path(folder) for family, folder in wanted["folders"].items()}
    found = {family: {"fp32": in_fp32(name, folder, wanted["forms"])} for family, folder in folders.items()}
    for family in wanted.get("compressed", ()):
        for precision in ("int8", "int4"):
            found[family][precision] = compressed(folders[family], precision)
    if name == "vllm":
        found["vllm"] = vllm(folders["llama"])
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
