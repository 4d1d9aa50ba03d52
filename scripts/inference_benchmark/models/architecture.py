"""The sizes that a transformers configuration accepts, read from transformers' source.

Importing transformers' configuration classes would import torch, which takes a second or more each time Snakemake
starts. transformers itself accepts a misspelt size (``n_heads``) and ignores it.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

#: Names of these sizes in the model families.
WIDTH = ("hidden_size", "n_embd")
HEADS = ("num_attention_heads", "n_head")
POSITIONS = ("max_position_embeddings", "n_positions")


@cache
def _transformers_folder() -> Path | None:
    spec = importlib.util.find_spec("transformers")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def families() -> list[str] | None:
    """Model types that transformers has a configuration for; None if transformers is not installed."""
    folder = _transformers_folder()
    if folder is None:
        return None
    return sorted(path.parent.name for path in folder.glob("models/*/configuration_*.py"))


@cache
def sizes(model_type: str) -> Mapping[str, Any] | None:
    """Keys of a family's configuration, each with its default (None if the default is not a literal).

    None if transformers is not installed or has no such family. An empty mapping if the source has no configuration
    class that can be read; then keys cannot be checked.
    """
    folder = _transformers_folder()
    if folder is None or not model_type.isidentifier():
        return None
    source = folder / "models" / model_type / f"configuration_{model_type}.py"
    if not source.exists():
        return None
    return next((fields for family, fields in _config_classes(source) if family == model_type), {})


@cache
def common_sizes() -> Mapping[str, Any]:
    """Keys that every family's configuration accepts. Parsing the source is slow, so call this only when needed."""
    folder = _transformers_folder()
    classes = _config_classes(folder / "configuration_utils.py") if folder else []
    return {"tie_word_embeddings": None, **next((fields for family, fields in classes if family == ""), {})}


def _config_classes(source: Path) -> list[tuple[str, dict[str, Any]]]:
    """(model_type, fields with defaults) of each configuration class in a source file."""
    classes = []
    for node in ast.parse(source.read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        model_type, fields = None, {}
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                if "ClassVar" not in ast.unparse(item.annotation):
                    fields[item.target.id] = _literal(item.value)
                elif item.target.id == "model_type":
                    model_type = _literal(item.value)
            elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
                if item.targets[0].id == "model_type":
                    model_type = _literal(item.value)
                elif item.targets[0].id == "attribute_map":
                    fields |= dict.fromkeys(_literal(item.value) or ())
        if model_type is not None:
            classes.append((model_type, fields))
    return classes


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


def size(architecture: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The configured size under one of these names, else the family's default, else None."""
    defaults = sizes(architecture["model_type"]) or {}
    values = [architecture.get(name) for name in names] + [defaults.get(name) for name in names]
    return next((value for value in values if isinstance(value, int)), None)
