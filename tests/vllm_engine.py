"""The engine vllm beside hf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from beside_hf import load, prompts, report

from inference_benchmark.engines.refusal import UnsupportedError


def in_waves_and_compiled(folder: Path, precision: str) -> dict[str, Any]:
    """What only vLLM can do: run a batch in waves, and run a model without compiling it."""
    engine, ids, found = load("vllm", folder, precision, largest=(2, 9, 12), execution="eager"), prompts(3, 9), {}
    try:
        engine.generate(ids, 12)
    except UnsupportedError as error:
        found["in_waves"] = str(error)
    small = engine.describe()
    engine.expect(3, 9, 12)
    found["answer"] = engine.generate(ids, 12).tolist()
    found["cache_bytes"] = [facts["kv_cache_bytes"] for facts in (small, engine.describe())]
    engine.unload()
    engine = load("vllm", folder, precision, largest=(3, 9, 12))
    found["not_loaded_as"] = [engine.not_loaded_as(each) for each in (precision, "fp32")]
    found["executions"] = [small["execution"], engine.describe()["execution"]]
    return found


if __name__ == "__main__":
    report("vllm", in_waves_and_compiled)
