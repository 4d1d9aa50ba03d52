"""The engine llama-cpp beside hf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from beside_hf import load, prompts, report


def quantised(folder: Path, precision: str) -> dict[str, Any]:
    ours, ids = load("llama-cpp", folder, precision), prompts(3, 9)
    described = ours.describe()
    tokens = ours.generate(ids, 12)
    return {
        "not_loaded_as": [ours.not_loaded_as(precision), ours.not_loaded_as("fp32")],
        "shapes": described["shapes"],
        "block_weights": described["block_weights"],
        "file_bytes": ours.file.stat().st_size,
        "agreement": float((ours.next_token_logits(ids, tokens).argmax(axis=-1) == tokens).mean()),
    }


if __name__ == "__main__":
    report("llama-cpp", quantised)
