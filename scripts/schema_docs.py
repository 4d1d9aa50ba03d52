#!/usr/bin/env python3
"""Make the tables in docs/config.md and docs/record.md from their schemas, or --check whether they are current."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from inference_benchmark.cli import fail, run
from inference_benchmark.experiment.config_errors import allowed, resolved
from inference_benchmark.render.readme import MarkerError, insert

#: Where each schema is explained: page, name of the markers, schema.
TABLES = (
    (Path("docs/config.md"), "keys", Path("config.schema.yaml")),
    (Path("docs/record.md"), "keys", Path("scripts/inference_benchmark/records/record.schema.yaml")),
    (Path("docs/record.md"), "study keys", Path("scripts/inference_benchmark/records/study.schema.yaml")),
)
#: Definitions that say what the results of a study of that kind are.
KINDS = ("ceilings", "max-batch", "divergence")


def rows(schema: Mapping[str, Any], root: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, allowed, meaning) of every described key, in the schema's order."""
    for key, sub in schema.get("properties", {}).items():
        at = f"{where}.{key}" if where else key
        sub = resolved(sub, root)
        if "description" in sub:
            default = sub.get("default", {})
            says = "" if isinstance(default, dict) else f" Default: `{json.dumps(default)}`."
            yield at, allowed(sub, root), sub["description"] + says
        yield from _inside(sub, root, at)


def _inside(sub: Mapping[str, Any], root: Mapping[str, Any], at: str) -> Iterator[tuple[str, str, str]]:
    for option in (sub, *sub.get("oneOf", [])):
        yield from rows(option, root, at)
        if isinstance(option.get("additionalProperties"), dict):
            yield from rows(option["additionalProperties"], root, f"{at}.NAME")
        if isinstance(option.get("items"), dict):
            yield from rows(option["items"], root, f"{at}[]")


def table(schema: Mapping[str, Any]) -> str:
    lines = ["| key | allowed | meaning |", "|---|---|---|"]
    of_results = (
        row
        for kind, sub in schema.get("$defs", {}).items()
        if kind in KINDS
        for row in rows(sub, schema, f"results[] ({kind})")
    )
    for at, what, meaning in (*rows(schema, schema), *of_results):
        cells = (text.replace("|", "\\|") for text in (f"`{at}`", what, meaning.strip()))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a table is out of date")
    check = parser.parse_args().check
    status = 0
    for page, name, schema in TABLES:
        before = page.read_text()
        begin, end = f"<!-- {name}: begin (made by scripts/schema_docs.py) -->", f"<!-- {name}: end -->"
        try:
            after = insert(before, table(yaml.safe_load(schema.read_text())), begin, end)
        except MarkerError as error:
            status = fail(f"{page}: {error}")
            continue
        if check and after != before:
            status = fail(f"{page} is out of date; run: python scripts/schema_docs.py")
        elif after != before:
            page.write_text(after)
    return status


if __name__ == "__main__":
    run(main)
