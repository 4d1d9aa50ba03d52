"""The engine openvino beside hf. Run by the Python of its environment, which has no pytest; prints JSON.

argument: JSON with ``folders``, checkpoints by family, ``forms``, of (rows, prompt tokens, new tokens), and
``compressed``, families.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from beside_hf import in_fp32, load, prompts

from inference_benchmark.engines.openvino import exported


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
    found = {family: {"fp32": in_fp32("openvino", folder, wanted["forms"])} for family, folder in folders.items()}
    for family in wanted["compressed"]:
        for precision in ("int8", "int4"):
            found[family][precision] = compressed(folders[family], precision)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
