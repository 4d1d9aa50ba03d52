#!/usr/bin/env python3
"""Put the tables between the markers in README.md; with --check, only say whether they are there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inference_benchmark.cli import fail, run
from inference_benchmark.provenance import sentence
from inference_benchmark.readme import MarkerError, insert


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", required=True, type=Path, help="tables.md of the machine to show")
    parser.add_argument("--provenance", required=True, type=Path, help="provenance.json of the same machine")
    parser.add_argument("--readme", required=True, type=Path, help="the README to change")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the block is out of date")
    arguments = parser.parse_args()
    origin = sentence(json.loads(arguments.provenance.read_text()))
    before = arguments.readme.read_text()
    try:
        after = insert(before, f"{origin}\n\n{arguments.tables.read_text()}")
    except MarkerError as error:
        return fail(f"{arguments.readme}: {error}")
    if arguments.check:
        return fail(f"{arguments.readme} is out of date; run: snakemake readme") if after != before else 0
    if after != before:
        arguments.readme.write_text(after)
    return 0


if __name__ == "__main__":
    run(main)
