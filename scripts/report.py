#!/usr/bin/env python3
"""Turn summary.csv and provenance.json into one HTML page that needs no network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inference_benchmark.cli import run
from inference_benchmark.report import render
from inference_benchmark.summary import read_summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, type=Path, help="summary.csv as collect writes it")
    parser.add_argument("--provenance", required=True, type=Path, help="provenance.json as collect writes it")
    parser.add_argument("--template", required=True, type=Path, help="the Jinja template")
    parser.add_argument("--output", required=True, type=Path, help="where the page goes")
    arguments = parser.parse_args()
    provenance = json.loads(arguments.provenance.read_text())
    arguments.output.write_text(render(read_summary(arguments.summary), provenance, arguments.template))
    return 0


if __name__ == "__main__":
    run(main)
