#!/usr/bin/env python3
"""Give the figures of a run to other tools, in a format of theirs.

bmf: Bencher Metric Format. csv: a row for each figure of each cell. github-action-benchmark: a folder with the files
for its tools customBiggerIsBetter and customSmallerIsBetter. llm-d: a folder with a Benchmark Report v0.2 for each
cell. The csv has all cells; the others have those that were measured and are not faster than their machine can be.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.analysis.figures import FIGURES, PERFORMANCE
from inference_benchmark.cli import ProblemsError, run
from inference_benchmark.compare import result_set
from inference_benchmark.results import export
from inference_benchmark.results.cell_result import ABOVE_LIMIT, Results
from inference_benchmark.results.summary_csv import to_long_csv

FORMATS = ("bmf", "csv", "github-action-benchmark", "llm-d")
FOLDERS = FORMATS[2:]
BY_KEY = {figure.key: figure for figure in PERFORMANCE}


def usable(results: Results, path: Path) -> Results:
    """The cells with figures that can be compared; how many others there are is printed. Raises ProblemsError."""
    endings = Counter(ABOVE_LIMIT if each.is_above_limit else each.outcome for each in results)
    measured = endings.pop("ok", 0)
    left_out = ", ".join(f"{n} {name}" for name, n in endings.items())
    if not measured:
        raise ProblemsError(f"{path}: has no cell to export ({left_out or 'it is empty'})")
    if left_out:
        print(f"Cells left out: {left_out}.", file=sys.stderr)
    return [each for each in results if each.is_measured and not each.is_above_limit]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results/MACHINE, or the summary.csv in it")
    parser.add_argument("--format", required=True, choices=FORMATS, help="what is written")
    parser.add_argument(
        "--figures",
        nargs="+",
        choices=BY_KEY,
        metavar="FIGURE",
        help=f"only these: {', '.join(BY_KEY)}; by default all of them, and in the csv all of summary.csv",
    )
    parser.add_argument("--output", type=Path, metavar="PATH", help="the file or folder; a file goes to the terminal")
    arguments = parser.parse_args()
    if arguments.format in FOLDERS and not arguments.output:
        parser.error(f"--output: name a folder; {arguments.format} is several files")
    if arguments.format == "llm-d" and arguments.figures:
        parser.error("--figures: a Benchmark Report always has the same figures")
    results = result_set.read_cells(arguments.results)
    figures = FIGURES if arguments.format == "csv" else PERFORMANCE
    if arguments.figures:
        figures = [BY_KEY[key] for key in arguments.figures]
        for figure in figures:
            if not any(figure.name in each.figures for each in results):
                raise ProblemsError(f"{arguments.results}: no cell has --figures {figure.key}; leave it out")
    if arguments.format != "csv":
        results = usable(results, arguments.results)
    match arguments.format:
        case "csv":
            written = to_long_csv(results, figures)
        case "bmf":
            written = export.to_bmf(results, figures)
        case "github-action-benchmark":
            written = export.to_github_action_benchmark(results, figures)
        case "llm-d":
            known = result_set.load(result_set.summary_of(arguments.results))
            written = export.to_benchmark_reports(results, lambda result: known.about([result]).facts)
    if arguments.output is None:
        sys.stdout.write(written)
    elif arguments.format in FOLDERS:
        for name, text in written.items():
            files.write(text, arguments.output / name)
    else:
        files.write(written, arguments.output)


if __name__ == "__main__":
    run(main)
