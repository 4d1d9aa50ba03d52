"""Checkpoints as other tools and mistakes leave them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def remade(original: Path, folder: Path, change: Change = dict, **config: object) -> Path:
    """A copy of a checkpoint with other tensors, and other values in its config.json."""
    shutil.copytree(original, folder)
    tensors = change(load_file(folder / "model.safetensors"))
    save_file({name: t.clone() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


def named(prefix: str) -> Change:
    return lambda tensors: {prefix + name: t for name, t in tensors.items()}


def without(part: str) -> Change:
    return lambda tensors: {name: t for name, t in tensors.items() if part not in name}


def without_prefix(prefix: str) -> Change:
    return lambda tensors: {name.removeprefix(prefix): t for name, t in tensors.items()}


def beside(**more: torch.Tensor) -> Change:
    """more: by name, with ``__`` for each dot."""
    return lambda tensors: tensors | {name.replace("__", "."): t for name, t in more.items()}
