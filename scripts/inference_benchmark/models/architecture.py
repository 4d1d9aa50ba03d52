"""Which sizes a transformers configuration knows, read from its source as text.

Importing transformers' configuration classes would import torch, a second or more each time
Snakemake starts; a misspelt size (``n_heads``) would be accepted and ignored by transformers.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

#: Names under which families keep these sizes.
WIDTH = ("hidden_size", "n_embd")
HEADS = ("num_attention_heads", "n_head")
POSITIONS = ("max_position_embeddings", "n_positions")


@cache
def _package() -> Path | None:
    spec = importlib.util.find_spec("transformers")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def families() -> list[str] | None:
    """Model types that transformers has a configuration for; None where it is not installed."""
    package = _package()
    if package is None:
        return None
    return sorted(path.parent.name for path in package.glob("models/*/configuration_*.py"))


@cache
def sizes(model_type: str) -> Mapping[str, Any] | None:
    """Keys the configuration of a family defines, each with its default (None where not a literal).

    None where transformers is not installed or has no such family; an empty mapping where the
    source could not be understood, so that nothing can be said about a key.
    """
    package = _package()
    if package is None or not model_type.isidentifier():
        return None
    source = package / "models" / model_type / f"configuration_{model_type}.py"
    if not source.exists():
        return None
    return next((fields for kind, fields in _config_classes(source) if kind == model_type), {})


@cache
def common_sizes() -> Mapping[str, Any]:
    """Keys that every family's configuration takes; a large file, so read only where they matter."""
    package = _package()
    found = _config_classes(package / "configuration_utils.py") if package else []
    return {"tie_word_embeddings": None, **next((fields for kind, fields in found if kind == ""), {})}


def _config_classes(source: Path) -> list[tuple[str, dict[str, Any]]]:
    """(model_type, fields with defaults) of each configuration class in a source file."""
    found = []
    for node in ast.parse(source.read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        kind, fields = None, {}
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                if "ClassVar" not in ast.unparse(item.annotation):
                    fields[item.target.id] = _literal(item.value)
                elif item.target.id == "model_type":
                    kind = _literal(item.value)
            elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
                if item.targets[0].id == "model_type":
                    kind = _literal(item.value)
                elif item.targets[0].id == "attribute_map":
                    fields |= dict.fromkeys(_literal(item.value) or ())
        if kind is not None:
            found.append((kind, fields))
    return found


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


def size(architecture: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """One of the sizes above as configured, else the family's default, else None."""
    known = sizes(architecture["model_type"]) or {}
    values = [architecture.get(name) for name in names] + [known.get(name) for name in names]
    return next((value for value in values if isinstance(value, int)), None)
