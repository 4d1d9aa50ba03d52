#!/usr/bin/env python3
"""Make tables and report from the existing records, at any time, without measuring.

Cells without a record stay blank; those that failed, or whose record cannot be used, say so and are listed with the
reason.
"""

import argparse
from pathlib import Path

from inference_benchmark.cli import add_template, printable, run
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.render.preview import Preview, preview


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--experiment", required=True, nargs="+", type=Path, metavar="FILE", help="one for each machine"
    )
    add_template(parser, "report.html.j2")
    parser.add_argument(
        "--folder", required=True, nargs="+", type=Path, help="where its tables, report and summary.csv go"
    )
    arguments = parser.parse_args()
    experiments = [Experiment.from_json(path.read_text(encoding="utf-8")) for path in arguments.experiment]
    for experiment, folder in zip(experiments, arguments.folder, strict=True):
        write(preview(experiment), folder, arguments.template)


def write(state: Preview, folder: Path, template: Path) -> None:
    """Write the preview of one machine, and print its state."""
    for problem in state.problems:
        print(printable(problem))
    if state.provenance is None:
        print(f"{state.line} There is nothing to show yet.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    state.write(folder, template)
    print(f"{state.line} See {folder}/report.html.")


if __name__ == "__main__":
    run(main)
