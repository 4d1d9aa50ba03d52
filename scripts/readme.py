#!/usr/bin/env python3
"""Put charts and throughput of each machine between the markers in README.md. With --check, only compare."""

import argparse
from pathlib import Path

from inference_benchmark import files, markdown
from inference_benchmark.cli import fail, run
from inference_benchmark.render.one_line import provenance_text
from inference_benchmark.render.readme import CHARTS, MarkerError, insert, pictures
from inference_benchmark.render.tables import overview
from inference_benchmark.results.summary_csv import read_summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, nargs="+", type=Path, help="summary.csv of each machine")
    parser.add_argument("--provenance", required=True, nargs="+", type=Path, help="provenance.json of each")
    parser.add_argument(
        "--charts", required=True, nargs="+", type=Path, help="the folder of each one's charts, as the README names it"
    )
    parser.add_argument("--readme", required=True, type=Path, help="the README to change")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a block is out of date")
    arguments = parser.parse_args()
    shown, parts = [], []
    for summary, provenance, charts in zip(arguments.summary, arguments.provenance, arguments.charts, strict=True):
        results = read_summary(summary)
        shown.append(pictures(results, charts))
        parts += [markdown.escape(provenance_text(files.read_json(provenance))), overview(results)]
    before = arguments.readme.read_text(encoding="utf-8")
    try:
        after = insert(insert(before, "\n".join(shown), CHARTS), "\n\n".join(parts))
    except MarkerError as error:
        return fail(f"{arguments.readme}: {error}")
    if arguments.check:
        return fail(f"{arguments.readme} is out of date; run: snakemake readme") if after != before else 0
    if after != before:
        files.write(after, arguments.readme)
    print(f"{arguments.readme}: charts and throughput of {', '.join(path.parent.name for path in arguments.summary)}")
    return 0


if __name__ == "__main__":
    run(main)
