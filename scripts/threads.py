#!/usr/bin/env python3
"""Try fewer CPU threads on one cell, and write what they do. The configuration stays as it is."""

import argparse
import json
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.cli import fail, run
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.measure.outcome import MeasurementError
from inference_benchmark.measure.thread_trial import try_threads
from inference_benchmark.models.checkpoint import CheckpointError
from inference_benchmark.records.threads import to_document
from inference_benchmark.render.one_line import threads_text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subject", required=True, metavar="JSON", help="the cell, as snakemake -p prints it")
    parser.add_argument("--output", required=True, type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    cell = Cell.from_json(arguments.subject)
    try:
        # It waits for nobody: the question is what neighbours do.
        tried = list(try_threads(cell, Supervision()))
    except (CheckpointError, MeasurementError) as error:
        return fail(str(error))
    files.write(json.dumps(to_document(tried), indent=1, sort_keys=True) + "\n", arguments.output)
    print(threads_text(tried))
    return 0


if __name__ == "__main__":
    run(main)
