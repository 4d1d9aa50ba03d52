#!/usr/bin/env python3
"""Turn summary.csv into Markdown tables, with the columns of baselines."""

import argparse
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.cli import run
from inference_benchmark.compare.comparison import read_all
from inference_benchmark.render.one_line import machine_speed_text
from inference_benchmark.render.tables import document
from inference_benchmark.results.summary_csv import read_summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, type=Path, help="summary.csv as collect writes it")
    parser.add_argument("--provenance", required=True, type=Path, help="provenance.json of the same run")
    parser.add_argument("--comparison", nargs="*", type=Path, default=[], help="comparisons with baselines, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="where the Markdown goes")
    arguments = parser.parse_args()
    tables = document(read_summary(arguments.summary), read_all(arguments.comparison))
    about_machine = machine_speed_text(files.read_json(arguments.provenance))
    files.write("\n\n".join(filter(None, (about_machine, tables))), arguments.output)


if __name__ == "__main__":
    run(main)
