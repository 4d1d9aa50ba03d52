"""The engine llama-cpp beside hf. Run by the Python of its environment, which has no pytest; prints JSON.

argument: JSON with ``folders``, checkpoints by family, ``forms``, of (rows, prompt tokens, new tokens), and
``quantised``, lists of precisions by family.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from beside_hf import in_fp32, load, prompts


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


def main(request: str) -> None:
    wanted = json.loads(request)
    folders = {family: Path(folder) for family, folder in wanted["folders"].items()}
    found: dict[str, dict[str, Any]] = {
        family: {"fp32": in_fp32("llama-cpp", folder, wanted["forms"])} for family, folder in folders.items()
    }
    for family, precisions in wanted["quantised"].items():
        for precision in precisions:
            found[family][precision] = quantised(folders[family], precision)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
