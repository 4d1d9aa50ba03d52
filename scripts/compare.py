#!/usr/bin/env python3
"""Compare two sides cell by cell: how many times as fast NEW is, and whether the difference is more than noise.

Each side is a folder with the records of one machine (results/MACHINE), the summary.csv of a run, or a CSV with the
columns precision, batch_size, outcome, throughput_tok_per_s and model or parameters. Without an output named, the
comparison goes to the terminal as Markdown.

exit status: 0; 1 where something cannot be compared, or there is a regression; 2 where --fail-on-regression was asked
for and nothing could be judged.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.cli import fail, run
from inference_benchmark.compare import result_set
from inference_benchmark.compare import text as comparison_text
from inference_benchmark.compare.comparison import SUBJECTS, compare, regressions
from inference_benchmark.experiment.baselines import BaselineError
from inference_benchmark.render.page import render


def percentage(text: str) -> float:
    """``5%`` as 0.05. Raises argparse.ArgumentTypeError."""
    match = re.fullmatch(r"(\d{1,2}(?:\.\d+)?)%", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage such as 5%")
    return float(match[1]) / 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, metavar="BASE", help="what to compare with")
    parser.add_argument("new", type=Path, metavar="NEW", help="what is compared")
    parser.add_argument("--figure", choices=SUBJECTS, default="throughput", help="what is compared (%(default)s)")
    parser.add_argument("--base-name", metavar="NAME", help="what BASE is called in the comparison")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="where the comparison goes as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where it goes as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="where it goes as a page")
    parser.add_argument(
        "--template",
        type=Path,
        default=Path(__file__).parents[1] / "report/compare.html.j2",
        help="the page's Jinja template (%(default)s)",
    )
    parser.add_argument(
        "--fail-on-regression",
        type=percentage,
        metavar="PERCENT",
        help="exit with 1 where a cell is called slower by so much, such as 5%%, or fits no longer",
    )
    arguments = parser.parse_args()
    try:
        found = compare(
            result_set.load(arguments.base, arguments.base_name), result_set.load(arguments.new), arguments.figure
        )
    except BaselineError as error:
        for problem in error.problems:
            fail(problem)
        return 1
    if arguments.json:
        files.write(json.dumps(found.to_document(), indent=1) + "\n", arguments.json)
    if arguments.markdown:
        files.write(comparison_text.to_markdown(found), arguments.markdown)
    if arguments.html:
        title, parts = comparison_text.title(found), list(comparison_text.parts(found))
        page = render(arguments.template, scripts=False, title=title, parts=parts)
        files.write(page, arguments.html)
    if not (arguments.json or arguments.markdown or arguments.html):
        sys.stdout.write(comparison_text.to_markdown(found))
    if arguments.fail_on_regression is None:
        return 0
    worse = regressions(found, arguments.fail_on_regression)
    for cell in worse:
        fail(
            f"{comparison_text.cell_name(cell)}: {cell.verdict}"
            + ("" if cell.ratio is None else f", {cell.ratio:.3f} times as fast")
        )
    if not worse and not found.judged:
        why = comparison_text.ONE_PROCESS if found.single_process else "one side has no samples"
        fail(f"nothing could be judged: {comparison_text.summary_line(found)} ({why})")
        return 2
    return 1 if worse else 0


if __name__ == "__main__":
    run(main)
