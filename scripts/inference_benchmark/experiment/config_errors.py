"""The problems of a configuration as text: where, the value, what is allowed, and the closest name that is."""

from __future__ import annotations

import datetime
import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from inference_benchmark.experiment.defaults import resolved

if TYPE_CHECKING:
    import jsonschema


#: No message is longer than this.
MAX_LINE = 400
#: More than any experiment needs. Beyond, a YAML file refers to its own parts again and again.
_MAX_VALUES, _MAX_DEPTH = 100_000, 20


def not_plain(config: Mapping[str, Any]) -> Iterator[str]:
    """What YAML can hold and a configuration cannot: one line for each key that is no text, and for each value that is
    no text, finite number, true, false, null, list or mapping. Nothing else looks at a configuration with such values.
    """
    rest: list[tuple[tuple[Any, ...], Any]] = [((), config)]
    for _ in range(_MAX_VALUES + 1):
        if not rest:
            return
        path, value = rest.pop()
        if len(path) > _MAX_DEPTH:
            yield f"{where_text(path)}: nested more than {_MAX_DEPTH} levels deep, or in itself; write it out"
            return
        if isinstance(value, Mapping):
            for key in (key for key in value if not isinstance(key, str)):
                remedy = "write a text" if isinstance(key, tuple) else "put it in quotes"
                yield f"{where_text(path)}: the key {show(key)} is no text; {remedy}"
            rest += [((*path, key), item) for key, item in reversed(value.items()) if isinstance(key, str)]
        elif isinstance(value, list):
            rest += [((*path, index), item) for index, item in reversed([*enumerate(value)])]
        elif problem := _no_plain_value(value):
            yield f"{where_text(path)}: {problem}"
    yield f"config: holds more than {_MAX_VALUES:,} values; each alias (*name) repeats what it stands for"


def _no_plain_value(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        has_any = "\0" in value or any("\ud800" <= character <= "\udfff" for character in value)
        return f"{show(value)} holds characters that no file name can hold; remove them" if has_any else None
    if isinstance(value, int):
        return None if abs(value) < 2**63 else "an integer of more than 18 digits; allowed: one that 64 bits can hold"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is not allowed; allowed: a finite number"
    if isinstance(value, (datetime.date, datetime.datetime)):
        return f"{value} is a date to YAML; put it in quotes"
    return f"{type(value).__name__} is not allowed; allowed: a text, a number, true, false, null, a list or a mapping"


def clip(line: str) -> str:
    """A message without line breaks, its middle left out if it is too long for a line: remedies are at the end."""
    line = " ".join(line.split())
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 155]} ... {line[-150:]}"


def explain(error: jsonschema.ValidationError, schema: Mapping[str, Any]) -> Iterator[str]:
    where = where_text(error.absolute_path)
    sub, value = error.schema, error.instance
    if error.validator == "additionalProperties":
        keys = list(sub["properties"])
        for key in value:
            if key not in keys:
                at = where_text([*error.absolute_path, key])
                yield f"{at}: unknown key; allowed: {listing(keys)}{guess_text(key, keys)}"
    elif error.validator == "required":
        for key in sub["required"]:
            if key not in value:
                at = where_text([*error.absolute_path, key])
                yield f"{at}: missing; allowed: {allowed(sub['properties'][key], schema)}"
    elif error.validator == "uniqueItems":
        counts = Counter(json.dumps(item, sort_keys=True) for item in value)
        for item in (item for item, n in counts.items() if n > 1):
            yield f"{where}: {_short(item)} is listed {counts[item]} times; keep one"
    elif "propertyNames" in error.schema_path:
        at = where_text([*error.absolute_path, value])
        yield f"{at}: {show(value)} is not allowed as a name; allowed: {allowed(sub, schema)}"
    else:
        guess = guess_text(value, sub["enum"]) if error.validator == "enum" else ""
        types = sub.get("type", ()) if error.validator == "type" else ()
        hint = yaml_hint(value) if "number" in types else quotes_hint(value) if "string" in types else ""
        yield f"{where}: {show(value)} is not allowed; allowed: {allowed(sub, schema)}{guess or hint}"


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
    words = {
        "integer": "an integer",
        "number": "a number",
        "boolean": "true or false",
        "string": "a text",
        "object": "a mapping",
        "array": "a list",
        "null": "null",
    }
    text = " or ".join(words.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))
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
            part = str(part) if is_word else show(part)
            text += f".{part}" if text else part
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


def yaml_hint(value: Any) -> str:
    """What to write in place of a number that YAML reads as text: ``1e-6`` has no point."""
    if not isinstance(value, str):
        return f"; write {float(value)}" if type(value) is int and abs(value) < 2**53 else ""
    match = re.fullmatch(r"([+-]?[0-9]+)(\.[0-9]*)?[eE]([+-]?)([0-9]+)", value.strip())
    if not match:
        return ""
    digits, fraction, sign, exponent = match.groups()
    return f"; YAML reads this as text: write {digits}{fraction or '.0'}e{sign or '+'}{exponent}"


def quotes_hint(value: Any) -> str:
    return "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
