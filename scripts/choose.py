#!/usr/bin/env python3
"""Name the best engines, precisions and batch sizes of a run under limits, judged by 95 % intervals.

Prints Markdown: for each machine, model and workload the best cell, those that cannot be told apart from it, and those
that perhaps meet the limits; or what excludes them all. Price and CO2 follow from what you pay for an hour of the
machine and from the intensity of your electricity; nothing is assumed for either.
"""

import argparse
import math
import sys
from pathlib import Path

from inference_benchmark.cli import ProblemsError, run
from inference_benchmark.compare.result_set import read_cells
from inference_benchmark.render import choosing
from inference_benchmark.render.context import models


def positive(text: str) -> float:
    """A number above 0. Raises argparse.ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results/MACHINE, or the summary.csv in it")
    for option in choosing.BOUNDS:
        parser.add_argument(option.flag, type=positive, metavar="N", help=f"at most this many {option.label}")
    parser.add_argument("--goal", choices=choosing.GOALS, default="throughput", help="what is best (%(default)s)")
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--workload", help="only this workload, such as prompt9-new100")
    parser.add_argument("--price-per-hour", type=positive, metavar="N", help="of the machine, in any currency")
    parser.add_argument("--gco2-per-kwh", type=positive, metavar="N", help="grams of CO2 per kWh of your electricity")
    arguments = parser.parse_args()
    results = read_cells(arguments.results)
    for name in ("model", "workload"):
        if asked := getattr(arguments, name):
            known = dict.fromkeys(getattr(cell.column, name) for cell in results)
            results = [cell for cell in results if getattr(cell.column, name) == asked]
            if not results:
                raise ProblemsError(f"{arguments.results}: has no {name} {asked!r}; give one of {', '.join(known)}")
    given = ((option, getattr(arguments, option.flag[2:].replace("-", "_"))) for option in choosing.BOUNDS)
    question = choosing.Question(
        choosing.GOALS[arguments.goal],
        {option: most for option, most in given if most is not None},
        arguments.price_per_hour,
        arguments.gco2_per_kwh,
    )
    parts = [choosing.to_markdown(cells, question) for model in models(results) for cells, _ in model.workloads]
    sys.stdout.write("\n".join([*parts, f"{choosing.NOTE}\n"]))


if __name__ == "__main__":
    run(main)
