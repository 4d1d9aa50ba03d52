#!/usr/bin/env python3
"""Measure one cell and write its record: a figure, "did not fit" or "cannot be done".

Exits 124 where the time was up, and 1 on any other end; then there is no record.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from inference_benchmark import record
from inference_benchmark.cells import Cell, CellError, Watch
from inference_benchmark.checkpoint import CheckpointError
from inference_benchmark.cli import fail
from inference_benchmark.progress import outcome_text
from inference_benchmark.supervise import MeasurementError, MeasurementTimeout, measure

TIMED_OUT = 124  # as timeout(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", required=True, metavar="JSON", help="the cell, as Snakemake prints it")
    parser.add_argument("--output", required=True, type=Path, metavar="PATH", help="where the record goes")
    default = Watch()
    parser.add_argument("--timeout-s", type=float, default=default.timeout_s, help="seconds a process may take")
    parser.add_argument("--sample-hz", type=float, default=default.sample_hz, help="looks at the device per second")
    parser.add_argument(
        "--exclusive", choices=["warn", "fail"], default=default.exclusive, help="where others use the GPU at the start"
    )
    arguments = parser.parse_args()
    watch = Watch(arguments.timeout_s, arguments.sample_hz, arguments.exclusive)
    # As for Ctrl-C: unwind, so that the worker is gone and nothing half-written is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    finished = None
    try:
        cell = Cell.from_json(arguments.cell)
        record.check_writable(arguments.output)
        finished = measure(cell, watch)
        record.write(finished, arguments.output)
    except MeasurementTimeout as error:
        fail(str(error))
        return TIMED_OUT
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
