#!/usr/bin/env python3
"""Measure one cell and write its record: a figure, "did not fit" or "cannot be done". Exits 1 on any other end."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from inference_benchmark import record
from inference_benchmark.cells import Cell, CellError
from inference_benchmark.checkpoint import CheckpointError
from inference_benchmark.cli import fail
from inference_benchmark.progress import outcome_text
from inference_benchmark.supervise import MeasurementError, measure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", required=True, metavar="JSON", help="the cell, as Snakemake prints it")
    parser.add_argument("--output", required=True, type=Path, metavar="PATH", help="where the record goes")
    arguments = parser.parse_args()
    # As for Ctrl-C: unwind, so that the worker is gone and nothing half-written is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    finished = None
    try:
        cell = Cell.from_json(arguments.cell)
        record.check_writable(arguments.output)
        finished = measure(cell)
        record.write(finished, arguments.output)
    except (CellError, CheckpointError, MeasurementError) as error:
        return fail(str(error))
    except OSError as error:
        if finished is not None:
            fail(f"the record that could not be written: {json.dumps(finished)}")
        return fail(f"{error.filename or arguments.output}: {error.strerror or error}")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"{cell.label}: {outcome_text(finished)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
