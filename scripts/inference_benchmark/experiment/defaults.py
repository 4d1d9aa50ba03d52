"""The defaults of a configuration, which stand in its schema."""

from collections.abc import Mapping
from typing import Any


def with_defaults(config: Any, schema: Mapping[str, Any]) -> Any:
    """A configuration in which every key that is missing has the schema's default.

    Named entries, such as models, are added to those of the default. An entry of the same name replaces it whole.
    A value of the wrong type stays, for the check that follows.
    """
    return _filled(config, schema, schema)


def resolved(sub: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of a schema together with the definition that it refers to."""
    return {**schema["$defs"][sub["$ref"].rsplit("/", 1)[1]], **sub} if "$ref" in sub else sub


def _filled(value: Any, sub: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    if not isinstance(value, Mapping):
        return value
    sub = resolved(sub, schema)
    properties, named = sub.get("properties", {}), sub.get("additionalProperties") or {}
    default = sub.get("default")
    entries = {**default, **value} if isinstance(default, Mapping) else dict(value)
    for key, part in properties.items():
        if "default" in part:
            entries.setdefault(key, part["default"])
    return {key: _filled(entry, properties.get(key, named), schema) for key, entry in entries.items()}
