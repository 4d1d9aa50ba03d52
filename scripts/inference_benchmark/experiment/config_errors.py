"""The problems of a configuration as text: where, the value, what is allowed, and the closest name that is."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from inference_benchmark.cli import ProblemsError
from inference_benchmark.experiment.defaults import resolved

if TYPE_CHECKING:
    import jsonschema


#: No message is longer than this.
MAX_LINE = 400
_WORDS = {
    "integer": "an integer", "number": "a number", "boolean": "true or false", "string": "a text",
    "object": "a mapping", "array": "a list", "null": "null",
}  # fmt: skip


class ConfigError(ProblemsError):
    """A configuration that cannot be used; ``problems`` holds one line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__(*dict.fromkeys(map(clip, problems)))


def clip(line: str) -> str:
    """A message without line breaks, its middle left out if it is too long for a line: remedies are at the end."""
    line = " ".join(line.split())
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 155]} ... {line[-150:]}"


def explain(error: jsonschema.ValidationError, schema: Mapping[str, Any]) -> Iterator[str]:
    path, sub, value = error.absolute_path, error.schema, error.instance
    if error.validator == "additionalProperties":
        keys = list(sub["properties"])
        for key in (key for key in value if key not in keys):
            yield f"{where_text([*path, key])}: unknown key; allowed: {listing(keys)}{guess_text(key, keys)}"
    elif error.validator == "required":
        for key in (key for key in sub["required"] if key not in value):
            yield f"{where_text([*path, key])}: missing; allowed: {allowed(sub['properties'][key], schema)}"
    elif error.validator == "uniqueItems":
        counts = Counter(json.dumps(item, sort_keys=True) for item in value)
        for item in (item for item, n in counts.items() if n > 1):
            yield f"{where_text(path)}: {_short(item)} is listed {counts[item]} times; keep one"
    elif "propertyNames" in error.schema_path:
        where = where_text([*path, value])
        yield f"{where}: {show(value)} is not allowed as a name; allowed: {allowed(sub, schema)}"
    else:
        guess = guess_text(value, sub["enum"]) if error.validator == "enum" else ""
        types = sub.get("type", ()) if error.validator == "type" else ()
        hint = yaml_hint(value) if "number" in types else ""
        if "string" in types and isinstance(value, (bool, int, float)):
            # Snakemake takes all quotes away from what follows --config.
            or_tag = f"; after --config write '{path[0]}=!!str ...'" if len(path) == 1 else ""
            hint = f"; put it in quotes{or_tag}"
        yield f"{where_text(path)}: {show(value)} is not allowed; allowed: {allowed(sub, schema)}{guess or hint}"


def allowed(sub: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What a part of a schema allows, in a few words."""
    sub = resolved(sub, schema)
    if "enum" in sub:
        return listing(sub["enum"])
    if "const" in sub:
        return show(sub["const"])
    if "oneOf" in sub:
        return " or ".join(allowed(option, schema) for option in sub["oneOf"])
    if "pattern" in sub:
        return f"text like {sub['pattern']}"
    kinds = sub.get("type", "anything")
    text = " or ".join(_WORDS.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))
    if "minimum" in sub:
        text = re.sub(r"(an integer|a number)", rf"\1 >= {sub['minimum']}", text)
    if "exclusiveMinimum" in sub:
        text = text.replace("a number", f"a number > {sub['exclusiveMinimum']}")
    if sub.get("minItems") or sub.get("minProperties") or sub.get("minLength"):
        text += ", not empty"
    if "required" in sub or "properties" in sub:
        text += f" with {listing(sub.get('required') or sub['properties'])}"
    if "items" in sub:
        text += f"; each {allowed(sub['items'], schema)}"
    return text


def where_text(path: Iterable[Any]) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            is_word = re.fullmatch(r"[\w.-]{1,80}", str(part)) and re.search(r"\w", str(part))
            text += ("." if text else "") + (str(part) if is_word else show(part))
    return text or "config"


def show(value: Any) -> str:
    try:
        return _short(json.dumps(value, default=str))
    except (TypeError, ValueError):  # keys that JSON does not have, a value within itself, an endless integer
        return type(value).__name__


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def listing(names: Iterable[Any]) -> str:
    names = [_short(str(name)) for name in names]
    text = ", ".join(names)
    return text if len(text) <= 250 else f"{', '.join(names[:3])}, ... ({len(names)} in all)"


def guess_text(name: Any, candidates: Iterable[Any]) -> str:
    close = difflib.get_close_matches(str(name)[:100], [str(each) for each in candidates], n=1)
    return f"; did you mean {_short(close[0])}?" if close else ""


def unknown_names(where: str, names: Iterable[str], known: Iterable[str], what: str = "allowed") -> Iterator[str]:
    """A line for each name in a list that is not among the known ones."""
    for index, name in enumerate(names):
        if name not in known:
            yield f"{where}[{index}]: {show(name)} is not {what}; allowed: {listing(known)}{guess_text(name, known)}"


def yaml_hint(value: Any) -> str:
    """What to write in place of a number that YAML reads as text: ``1e-6`` has no point."""
    if not isinstance(value, str):
        return f"; write {float(value)}" if type(value) is int and abs(value) < 2**53 else ""
    match = re.fullmatch(r"([+-]?[0-9]+)(\.[0-9]*)?[eE]([+-]?)([0-9]+)", value.strip())
    if not match:
        return ""
    digits, fraction, sign, exponent = match.groups()
    return f"; YAML reads this as text: write {digits}{fraction or '.0'}e{sign or '+'}{exponent}"
