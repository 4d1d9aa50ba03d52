#!/usr/bin/env python3
"""Make the table in docs/config.md from config.schema.yaml; with --check, only say whether it is current."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from inference_benchmark.cli import fail, run
from inference_benchmark.config_words import allowed, resolved
from inference_benchmark.readme import MarkerError, insert

BEGIN, END = "<!-- keys: begin (made by scripts/config_docs.py) -->", "<!-- keys: end -->"


def rows(schema: Mapping[str, Any], root: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, allowed, meaning) of every described key, in the schema's order."""
    for key, sub in schema.get("properties", {}).items():
        at = f"{where}.{key}" if where else key
        sub = resolved(sub, root)
        if "description" in sub:
            yield at, allowed(sub, root), sub["description"]
        yield from rows(sub, root, at)
        if isinstance(sub.get("additionalProperties"), dict):
            yield from rows(sub["additionalProperties"], root, f"{at}.NAME")
        if isinstance(sub.get("items"), dict):
            yield from rows(sub["items"], root, f"{at}[]")


def table(schema: Mapping[str, Any]) -> str:
    lines = ["| key | allowed | meaning |", "|---|---|---|"]
    for at, what, meaning in rows(schema, schema):
        cells = (text.replace("|", "\\|") for text in (f"`{at}`", what, meaning.strip()))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schema", type=Path, default=Path("config.schema.yaml"))
    parser.add_argument("--docs", type=Path, default=Path("docs/config.md"))
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the table is out of date")
    arguments = parser.parse_args()
    before = arguments.docs.read_text()
    try:
        after = insert(before, table(yaml.safe_load(arguments.schema.read_text())), BEGIN, END)
    except MarkerError as error:
        return fail(f"{arguments.docs}: {error}")
    if arguments.check:
        return fail(f"{arguments.docs} is out of date; run: python scripts/config_docs.py") if after != before else 0
    arguments.docs.write_text(after)
    return 0


if __name__ == "__main__":
    run(main)
