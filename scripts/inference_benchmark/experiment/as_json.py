"""Cells, studies and experiments as JSON: one line of text for a job, mappings in a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Self, get_args, get_origin, get_type_hints

from inference_benchmark.cli import ProblemsError


class CellError(ProblemsError):
    """A text or mapping that does not describe a cell, study or experiment; the message says why."""


#: Fields that are left out where they are empty, because they were added later: older records are of the same cells.
_OMITTED_IF_EMPTY = {
    "options", "variants", "timeline", "timeline_trace", "environment", "environments", "engine_environments",
    "most_rounds", "impossible", "engine_precisions", "long_call_seconds", "links", "quality", "prompts",
    "prompts_sha256", "batch_invariance",
}  # fmt: skip
#: What a value may be, of fields that hold one of these.
_ALLOWED = {str: "a text", int: "an integer", bool: "true or false"}

# One for all: made anew for each cell it takes longer than the text.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=lambda value: _fields(value))


class AsJson:
    """Base of a dataclass that jobs are given as text. Its JSON has its fields, and those of dataclasses inside."""

    #: What messages call it.
    NOUN = ""

    def to_json(self) -> str:
        """One line, keys sorted: equal values give equal text."""
        return _ENCODER.encode(self)

    def to_document(self) -> dict[str, Any]:
        """As mappings, to be compared with those from JSON."""
        return _document(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of to_json. Raises CellError."""
        return cls.from_document(parsed(text))

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The inverse of to_document. Raises CellError."""
        return _decoded(cls, document, cls.NOUN)


def parsed(text: str) -> Any:
    """What a text says as JSON. Raises CellError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise CellError(f"not JSON: {error}") from None


def difference(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> str:
    """What differs between two documents, leaf by leaf: ``measurement.cycles was 3, is now 5``."""
    old, new = _leaves(actual), _leaves(wanted)
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return "; ".join(f"{key} was {old.get(key, 'absent')!r}, is now {new.get(key, 'absent')!r}" for key in keys)


def _fields(value: Any) -> dict[str, Any]:
    """Without what a cached property keeps beside them."""
    held = vars(value)
    return {name: held[name] for name in _names(type(value)) if held[name] or name not in _OMITTED_IF_EMPTY}


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(each.name for each in fields(cls))


def _document(value: Any) -> dict[str, Any]:
    parts = {name: _document(part) if is_dataclass(part) else part for name, part in _fields(value).items()}
    return {name: list(part) if isinstance(part, tuple) else part for name, part in parts.items()}


def _decoded(cls: type, document: Any, what: str, prefix: str = "") -> Any:
    """A dataclass from a mapping with exactly its fields."""
    types = _types(cls)
    if not isinstance(document, dict) or document.keys() | (types.keys() & _OMITTED_IF_EMPTY) != types.keys():
        got = sorted(document) if isinstance(document, dict) else repr(document)
        raise CellError(f"{what} has exactly the keys {sorted(types)}, this has {got}")
    values = dict(document)
    for name, expected in types.items():
        if expected and name in values:
            values[name] = _value(expected, values[name], f"{prefix}{name}")
    return cls(**values)


def _value(expected: Any, value: Any, name: str) -> Any:
    if expected in _ALLOWED:
        if type(value) is not expected:
            raise CellError(f"{name} is {value!r}; allowed: {_ALLOWED[expected]}")
        return value
    if get_origin(expected) is not tuple:
        return _decoded(expected, value, name, f"{name}.")
    if not isinstance(value, list):
        raise CellError(f"{name} is {value!r}; allowed: a list")
    item = get_args(expected)[0]
    return tuple(_value(item, each, name) if is_dataclass(item) else each for each in value)


@cache
def _types(cls: type) -> Mapping[str, Any]:
    """For each field its type, if values of it are checked or converted, else None."""
    hints = get_type_hints(cls)
    return {
        name: hint if hint in _ALLOWED or is_dataclass(hint) or get_origin(hint) is tuple else None
        for name, hint in ((each.name, hints[each.name]) for each in fields(cls))
    }


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        leaves |= _leaves(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return leaves
