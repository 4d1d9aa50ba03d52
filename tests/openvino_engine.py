"""The engine openvino beside hf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from beside_hf import load, prompts, report


def compressed(folder: Path, precision: str) -> dict[str, Any]:
    ours = load("openvino", folder, precision)
    described = ours.describe()
    return {
        "not_loaded_as": [ours.not_loaded_as(precision), ours.not_loaded_as("fp32")],
        "shapes": described["shapes"],
        "file_bytes": (ours.exported / "openvino_model.bin").stat().st_size,
        "answer": ours.generate(prompts(3, 9), 12).shape,
    }


if __name__ == "__main__":
    report("openvino", compressed)
