#!/usr/bin/env python3
"""Turn summary.csv into Markdown tables of throughput and latency."""

from __future__ import annotations

import argparse
from pathlib import Path

from inference_benchmark.cli import run
from inference_benchmark.summary import read_summary
from inference_benchmark.tables import document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, type=Path, help="summary.csv as collect writes it")
    parser.add_argument("--output", required=True, type=Path, help="where the Markdown goes")
    arguments = parser.parse_args()
    arguments.output.write_text(document(read_summary(arguments.summary)))
    return 0


if __name__ == "__main__":
    run(main)
