#!/usr/bin/env python3
"""Turn summaries and their provenance into one HTML page that needs no network; several machines make one page."""

import argparse
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.cli import add_template, run
from inference_benchmark.compare.comparison import read_all
from inference_benchmark.records import threads
from inference_benchmark.render.report import render
from inference_benchmark.results.summary_csv import read_summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, nargs="+", type=Path, help="summary.csv of each machine")
    parser.add_argument("--provenance", required=True, nargs="+", type=Path, help="provenance.json of each machine")
    parser.add_argument("--comparison", nargs="*", type=Path, default=[], help="comparisons with baselines, as JSON")
    parser.add_argument("--threads", nargs="*", type=Path, default=[], help="what fewer CPU threads did, as JSON")
    add_template(parser, "report.html.j2")
    parser.add_argument("--output", required=True, type=Path, help="where the page goes")
    arguments = parser.parse_args()
    results = [cell for path in arguments.summary for cell in read_summary(path)]
    provenances = [files.read_json(path) for path in arguments.provenance]
    tried = [record for path in arguments.threads for record in threads.load(path)]
    page = render(results, provenances, arguments.template, read_all(arguments.comparison), tried=tried)
    files.write(page, arguments.output)


if __name__ == "__main__":
    run(main)
