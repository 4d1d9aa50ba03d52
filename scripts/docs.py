#!/usr/bin/env python3
"""Make the parts of docs/ and reference/ that follow from code and data, or --check whether they are up to date."""

import argparse
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from inference_benchmark import files
from inference_benchmark.analysis.figures import FIGURES
from inference_benchmark.cli import fail, run
from inference_benchmark.engines import ENGINES
from inference_benchmark.experiment import cells
from inference_benchmark.experiment.config_errors import allowed
from inference_benchmark.experiment.defaults import resolved
from inference_benchmark.experiment.variants import with_names
from inference_benchmark.machine import variables
from inference_benchmark.records import parts, record, study_results
from inference_benchmark.records.record import Record, StudyRecord
from inference_benchmark.render.readme import MarkerError, insert
from inference_benchmark.render.tables import published_views, to_markdown

#: The types that a record consists of, by name.
TYPES = {**vars(cells), **vars(parts), **vars(study_results), **vars(record)}


class Key(NamedTuple):
    """A described key of a schema, as plain text."""

    name: str
    default: str
    allowed: str
    meaning: str


def keys_of(schema: Mapping[str, Any], root: Mapping[str, Any], where: str = "") -> Iterator[Key]:
    """Every described key, in the schema's order. Keys with the same definition make one row."""
    schema = resolved(schema, root)
    for names, sub in _alike(schema.get("properties", {})):
        at = ".".join(filter(None, (where, "/".join(names))))
        defaults = {name: schema["properties"][name].get("default", {}) for name in names}
        sub = resolved(sub, root)
        if "description" in sub:
            yield Key(at, _default_text(sub), allowed(sub, root), sub["description"].strip())
        for key in _inside(sub, root, at):
            yield key._replace(default=_default_of_each(key, defaults)) if len(names) > 1 else key


def _alike(properties: Mapping[str, Any]) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
    """(names, schema) of keys; those that refer to the same definition, without a description of their own, are one."""
    by_definition: dict[str, list[str]] = {}
    for name, sub in properties.items():
        by_definition.setdefault(name if "description" in sub else sub.get("$ref", name), []).append(name)
    return ((names, properties[names[0]]) for names in by_definition.values())


def _inside(sub: Mapping[str, Any], root: Mapping[str, Any], at: str) -> Iterator[Key]:
    for option in (sub, *sub.get("oneOf", [])):
        yield from keys_of(option, root, at)
        if isinstance(option.get("additionalProperties"), dict):
            yield from keys_of(option["additionalProperties"], root, f"{at}.NAME")
        if isinstance(option.get("items"), dict):
            yield from keys_of(option["items"], root, f"{at}[]")


def _default_text(sub: Mapping[str, Any]) -> str:
    """A default as YAML; the keys of a long mapping; blank for a mapping whose keys have rows of their own."""
    if "default" not in sub or (isinstance(sub["default"], dict) and "properties" in sub):
        return ""
    text = json.dumps(sub["default"])
    return text if len(text) < 150 else ", ".join(sub["default"])


def _default_of_each(key: Key, defaults: Mapping[str, Any]) -> str:
    name = key.name.rsplit(".", 1)[1]
    texts = {of: json.dumps(default[name]) for of, default in defaults.items() if name in default}
    if len(set(texts.values())) > 1:
        return "; ".join(f"{of}: {text}" for of, text in texts.items())
    return next(iter(texts.values()), key.default)


def config_keys() -> str:
    schema = with_names(yaml.safe_load(Path("config.schema.yaml").read_text(encoding="utf-8")))
    rows = [(key.name, key.default, key.allowed, key.meaning) for key in keys_of(schema, schema)]
    return _table(("key", "default", "allowed", "meaning"), rows, code=2)


def record_keys() -> str:
    # A run that was set aside has the keys of any other.
    return _record_table(key for key in _keys_of_type(Record) if not key.name.startswith("set_aside[].run."))


def study_keys() -> str:
    """The keys that only studies have, and those of their results."""
    own = {*StudyRecord.__annotations__}
    keys = [key for key in _keys_of_type(StudyRecord) if key.name in own]
    for kind, result in study_results.RESULTS.items():
        keys += _keys_of_type(result, f"results[] ({kind})")
    return _record_table(keys)


def _keys_of_type(of: type, where: str = "") -> list[Key]:
    """The keys of a type of records, in the order of its annotations, own ones before those of its bases."""
    schema = msgspec.json.schema(of, schema_hook=lambda _: {"type": "object", "required": ["kind", "version"]})
    schema = json.loads(json.dumps(schema).replace('"anyOf"', '"oneOf"'))
    for name, definition in schema["$defs"].items():
        definition.pop("description", None)
        order = [key for each in TYPES[name].__mro__ for key in getattr(each, "__annotations__", ())]
        subs = {key: definition["properties"][key] for key in order if key in definition["properties"]}
        for key, text in _descriptions(TYPES[name]).items():
            if key in subs:
                subs[key] = {**_null_first(subs[key]), "description": text}
        definition["properties"] = subs
        definition["required"] = [key for key in subs if key in definition["required"]]
    json_names = {name: key for key, name in Record.KEYS.items()}
    return [key._replace(name=json_names.get(key.name, key.name)) for key in keys_of(schema, schema, where)]


def _null_first(sub: Mapping[str, Any]) -> Mapping[str, Any]:
    """A key that may be null: null before the keys of a mapping, and no null where the key is left out instead."""
    options = sorted(sub.get("oneOf", ()), key=lambda option: option != {"type": "null"})
    if options and sub.get("default", ...) is None:
        return options[1]
    return {**sub, "oneOf": options} if options and "$ref" in options[1] else sub


def _descriptions(of: type) -> dict[str, str]:
    """By key: what ``#:`` says after it, or in the lines before it."""
    found: dict[str, str] = {}
    for each in (each for each in of.__mro__ if each.__module__.startswith("inference_benchmark.")):
        before: list[str] = []
        for line in inspect.getsource(each).splitlines():
            if above := re.fullmatch(r"    #: (.*)", line):
                before.append(above[1])
                continue
            if field := re.fullmatch(r"    (\w+): .*?(?:  #: (.*))?", line):
                found.setdefault(field[1], field[2] or " ".join(before))
            before = []
    return {key: text for key, text in found.items() if text}


def _record_table(keys: Iterable[Key]) -> str:
    return _table(("key", "allowed", "meaning"), [(key.name, key.allowed, key.meaning) for key in keys], code=1)


def figures() -> str:
    rows = [
        (
            each.name,
            each.group,
            each.title,
            each.unit,
            each.better if each.key else "",
            each.definition,
            each.interval or "none",
        )
        for each in FIGURES
    ]
    return _table(("column", "group", "figure", "unit", "better", "definition", "95 % interval"), rows, code=1)


def families_of_engines() -> str:
    found: dict[tuple[str, ...], list[str]] = {}
    for name, entry in ENGINES.items():
        if entry.needs_weights:
            found.setdefault(entry.families, []).append(f"`{name}`")
    rows = [(", ".join(names), ", ".join(of) or "those that the library has") for of, names in found.items()]
    return _table(("engines", "families of models"), rows, code=0)


def variables_compared() -> str:
    rows = [(", ".join(f"`{name}`" for name in names), changes) for changes, names in variables.COMPARED.items()]
    return _table(("variables", "what they change"), rows, code=0)


def published() -> str:
    views = published_views(Path("reference/bloom_a100_80gb.csv"), ("fp32", "bf16", "int8"), engine="hf")
    return "\n".join(map(to_markdown, views))


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]], code: int) -> str:
    """A Markdown table. code: how many columns, from the first on, are printed as code."""
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for row in rows:
        cells = [text.replace("|", "\\|") for text in row]
        cells[:code] = [f"`{text}`" if text else "" for text in cells[:code]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


#: Where each part goes: the page, the name of its markers, what makes it.
PARTS: tuple[tuple[Path, str, Callable[[], str]], ...] = (
    (Path("docs/config.md"), "keys", config_keys),
    (Path("docs/record.md"), "keys", record_keys),
    (Path("docs/record.md"), "study keys", study_keys),
    (Path("docs/usage.md"), "families", families_of_engines),
    (Path("docs/method.md"), "figures", figures),
    (Path("docs/method.md"), "variables", variables_compared),
    (Path("reference/README.md"), "published", published),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a part is out of date")
    check = parser.parse_args().check
    status = 0
    for page, name, make in PARTS:
        before = page.read_text(encoding="utf-8")
        markers = f"<!-- {name}: begin (made by scripts/docs.py) -->", f"<!-- {name}: end -->"
        try:
            after = insert(before, make(), markers)
        except MarkerError as error:
            status = fail(f"{page}: {error}")
            continue
        if check and after != before:
            status = fail(f"{page} is out of date; run: python scripts/docs.py")
        elif after != before:
            files.write(after, page)
    return status


if __name__ == "__main__":
    run(main)
