"""The YAML file of a configuration, before its content is looked at."""

import datetime
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from inference_benchmark.experiment.config_errors import ConfigError, listing, show, where_text

#: More than any experiment needs. Beyond, a YAML file refers to its own parts again and again.
_MAX_VALUES, _MAX_DEPTH = 100_000, 20


def has_keys(path: Path) -> bool:
    """Whether a file holds more than comments: Snakemake refuses one that does not. Raises ConfigError for a file on
    which its loader would end in a traceback."""
    unusable = []
    try:
        text = path.read_text(encoding="utf-8")
        with suppress(yaml.YAMLError):  # Snakemake reports it
            unusable = list(not_plain(yaml.load(text, yaml.CSafeLoader)))
    except (ValueError, RecursionError) as error:  # another encoding, an endless number, a date that is none
        unusable = [f"{path} cannot be read as YAML: {error}"]
    if unusable:
        raise ConfigError(unusable)
    return re.search(r"^[^#\n]*[^#\s]", text, re.MULTILINE) is not None


def not_plain(config: Mapping[str, Any]) -> Iterator[str]:
    """Keys and values that YAML can hold and a configuration cannot, one line each. No other check looks at a
    configuration with these."""
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
                remedy = "write text" if isinstance(key, tuple) else "put it in quotes"
                yield f"{where_text(path)}: the key {show(key)} is not text; {remedy}"
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


def repeated_keys(path: Path) -> Iterator[str]:
    """Keys that a YAML file gives twice: the loader would silently keep the last."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except yaml.YAMLError:  # JSON that is no YAML: with tabs
        return
    rest, seen = [((), root)], set()
    while rest:
        where, node = rest.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            entries = [(key.value, key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
            counts = Counter(name for name, _, _ in entries)
            for name in (name for name, n in counts.items() if n > 1):
                lines = listing(key.start_mark.line + 1 for each, key, _ in entries if each == name)
                yield f"{where_text([*where, name])}: given {counts[name]} times ({path} lines {lines}); keep one"
            rest += [((*where, name), value) for name, _, value in reversed(entries)]
        elif isinstance(node, yaml.SequenceNode):
            rest += [((*where, index), item) for index, item in reversed([*enumerate(node.value)])]
