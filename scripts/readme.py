#!/usr/bin/env python3
"""Put provenance, charts and tables between the markers in README.md. With --check, only compare."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inference_benchmark import files, markdown
from inference_benchmark.cli import fail, run
from inference_benchmark.compare.comparison import read_all
from inference_benchmark.render.one_line import provenance_text
from inference_benchmark.render.readme import MarkerError, insert, pictures
from inference_benchmark.render.tables import document
from inference_benchmark.results.summary_csv import read_summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, nargs="+", type=Path, help="summary.csv of each machine")
    parser.add_argument("--provenance", required=True, nargs="+", type=Path, help="provenance.json of each")
    parser.add_argument("--comparison", nargs="*", type=Path, default=[], help="comparisons with baselines, as JSON")
    parser.add_argument(
        "--charts", required=True, nargs="+", type=Path, help="the folder of each one's charts, as the README names it"
    )
    parser.add_argument("--readme", required=True, type=Path, help="the README to change")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the block is out of date")
    arguments = parser.parse_args()
    comparisons, parts = read_all(arguments.comparison), []
    for summary, provenance, charts in zip(arguments.summary, arguments.provenance, arguments.charts, strict=True):
        facts = json.loads(provenance.read_text())
        ours = [each for each in comparisons if each.new == facts["machine"]]
        parts += [markdown.escape(provenance_text(facts)), document(read_summary(summary), ours, pictures(charts))]
    before = arguments.readme.read_text()
    try:
        after = insert(before, "\n\n".join(parts))
    except MarkerError as error:
        return fail(f"{arguments.readme}: {error}")
    if arguments.check:
        return fail(f"{arguments.readme} is out of date; run: snakemake readme") if after != before else 0
    if after != before:
        files.write(after, arguments.readme)
    return 0


if __name__ == "__main__":
    run(main)
