#!/usr/bin/env python3
"""Make tables and report from the records that there are, at any time, without measuring.

Cells without a record stay blank; those that failed, or whose record cannot be used, are listed with the reason.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from inference_benchmark import preview
from inference_benchmark.cells import CellError, Experiment
from inference_benchmark.cli import fail, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True, metavar="JSON", help="the experiment, as Snakemake prints it")
    parser.add_argument("--template", required=True, type=Path, help="the report's Jinja template")
    parser.add_argument("--folder", required=True, type=Path, help="where tables.md, report.html and summary.csv go")
    arguments = parser.parse_args()
    try:
        found = preview.look(Experiment.from_json(arguments.experiment))
    except CellError as error:
        return fail(str(error))
    for row in found.rows[found.rows["outcome"].isin(("failed", "refused"))].to_dict("records"):
        print(f"{row['record']}: {row['outcome']}: {row['reason']}")
    if found.provenance is None:
        print(f"{found.line} There is nothing to show yet.")
        return 0
    arguments.folder.mkdir(parents=True, exist_ok=True)
    found.write(arguments.folder, arguments.template)
    print(f"{found.line} See {arguments.folder}/report.html.")
    return 0


if __name__ == "__main__":
    run(main)
