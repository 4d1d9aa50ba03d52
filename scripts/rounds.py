#!/usr/bin/env python3
"""Decide in how many rounds each cell is measured, from the records of the rounds of the whole grid."""

import argparse
import json
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.cli import run
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.freshness import digests
from inference_benchmark.records.further_rounds import decide, usable_records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True, type=Path, metavar="FILE", help="as Snakemake writes it")
    parser.add_argument("--output", required=True, type=Path, help="where the decision goes, as JSON")
    arguments = parser.parse_args()
    experiment = Experiment.from_json(arguments.experiment.read_text(encoding="utf-8"))
    cells = decide(experiment, list(usable_records(experiment)))
    decision = {"inputs_sha256": digests(experiment).grid, "cells": cells}
    files.write(json.dumps(decision, indent=1, sort_keys=True) + "\n", arguments.output)


if __name__ == "__main__":
    run(main)
