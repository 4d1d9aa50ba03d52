#!/usr/bin/env python3
"""Compare two result sets cell by cell: how many times as fast NEW is, and whether the difference is more than noise.

With --across the columns of one result set are compared, round by round: BASE --across engine hf hf-static.

Each is a folder with the records of one machine (results/MACHINE), the summary.csv of a run, or a CSV with the
columns precision, batch_size, outcome, throughput_tok_per_s and model or parameters. Without an output option
the comparison goes to the terminal as Markdown.

exit status: 0; 1 where a file cannot be used, or there is a regression; 2 where BASE and NEW have no cell in common, or
--fail-on-regression was given and cannot be answered: nothing could be judged, or a cell may be slower by so much.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.analysis.figures import COMPARED
from inference_benchmark.cli import add_template, fail, run
from inference_benchmark.compare import result_set, text
from inference_benchmark.compare.comparing import compare
from inference_benchmark.compare.comparison import regressions, undecided
from inference_benchmark.render.page import render
from inference_benchmark.units import format_figure


def percentage(text: str) -> float:
    """``5%`` as 0.05. Raises argparse.ArgumentTypeError."""
    match = re.fullmatch(r"(\d{1,2}(?:\.\d+)?)%", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage such as 5%")
    return float(match[1]) / 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, metavar="BASE", help="what to compare with")
    parser.add_argument("new", type=Path, nargs="?", metavar="NEW", help="what is compared")
    parser.add_argument(
        "--across",
        nargs=3,
        metavar=("AXIS", "OLD", "NEW"),
        help=f"compare columns of BASE, a folder of records, in place of NEW; AXIS: {', '.join(result_set.AXES)}",
    )
    parser.add_argument("--figure", choices=COMPARED, default="throughput", help="what is compared (%(default)s)")
    parser.add_argument("--base-name", metavar="NAME", help="what BASE is called in the comparison")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="where the comparison goes as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where it goes as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="where it goes as a page")
    add_template(parser, "compare.html.j2")
    parser.add_argument(
        "--fail-on-regression",
        type=percentage,
        metavar="PERCENT",
        help="exit with 1 where a cell is slower by at least this, such as 5%%, or no longer fits",
    )
    parser.add_argument(
        "--allow-disjoint", action="store_true", help="exit with 0 where BASE and NEW have no cell in common"
    )
    arguments = parser.parse_args()
    figure = COMPARED[arguments.figure]
    if (arguments.across is None) == (arguments.new is None):
        parser.error("give NEW, or --across AXIS OLD NEW")
    if arguments.across:
        axis, old, new = arguments.across
        if axis not in result_set.AXES:
            parser.error(f"--across: there is no axis {axis!r}; allowed: {', '.join(result_set.AXES)}")
        comparison = compare(*result_set.sides(arguments.base, axis, old, new), figure, paired=True)
    else:
        base = result_set.load(arguments.base, arguments.base_name)
        comparison = compare(base, result_set.load(arguments.new), figure)
    if arguments.json:
        files.write(json.dumps(comparison.to_document(), indent=1) + "\n", arguments.json)
    if arguments.markdown:
        files.write(text.to_markdown(comparison), arguments.markdown)
    if arguments.html:
        title, parts = text.title(comparison), list(text.parts(comparison))
        page = render(arguments.template, scripts=False, title=title, parts=parts)
        files.write(page, arguments.html)
    if not (arguments.json or arguments.markdown or arguments.html):
        sys.stdout.write(text.to_markdown(comparison))
    if not comparison.cells:
        if arguments.allow_disjoint:
            return 0
        fail(text.summary_line(comparison))
        return 2
    if arguments.fail_on_regression is None:
        return 0
    limit = arguments.fail_on_regression
    worse = regressions(comparison, limit)
    for cell in worse:
        ratio = "" if cell.ratio is None else f", {format_figure(cell.ratio.value, '.3f')} times as fast"
        fail(f"{cell.new.label}: {cell.verdict}{ratio}")
    if not worse and not comparison.judged:
        fail(f"nothing could be judged: {text.summary_line(comparison)} {text.why_not_judged(comparison)}")
        return 2
    open_cells = [] if worse else undecided(comparison, limit)
    for cell, rounds in open_cells:
        enough = f"about {rounds} rounds would tell" if rounds else "how many rounds would tell is not known"
        fail(f"{cell.new.label}: cannot tell: {text.ratio_and_interval(cell.ratio)}; {enough}")
    return 1 if worse else 2 if open_cells else 0


if __name__ == "__main__":
    run(main)
