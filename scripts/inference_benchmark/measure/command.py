"""The command line of the scripts that measure: from a cell or study to a record."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from inference_benchmark import files
from inference_benchmark.cli import fail
from inference_benchmark.experiment.as_json import CellError
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.measure.outcome import CellFailure, MeasurementError, MeasurementTimeout
from inference_benchmark.models.checkpoint import CheckpointError
from inference_benchmark.records import attempts, record_file, tries
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.record import AnyRecord

TIMED_OUT = 124  # as timeout(1)


def main(
    description: str,
    subject_option: Literal["--cell", "--study"],
    parse: Callable[[str], Subject],
    measure: Callable[[Any, Supervision, Path], AnyRecord],
    one_line: Callable[[Any], str],
) -> int:
    """Parse the command line, measure what it asks for, write the record, and print in one line how it ended.

    parse: raises CellError. measure: is given the place of the record, too.
    Returns 124 where the time was up, and 1 for any other end without a record.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(subject_option, required=True, dest="subject", metavar="JSON", help="as Snakemake prints it")
    parser.add_argument("--output", required=True, type=Path, metavar="PATH", help="where the record goes")
    default = Supervision()
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=default.timeout_s,
        help="seconds that a process, or a try of a search, may take",
    )
    parser.add_argument(
        "--sample-hz", type=float, default=default.sample_hz, help="samples of the device's state per second"
    )
    parser.add_argument(
        "--exclusive",
        choices=["warn", "fail"],
        default=default.exclusive,
        help="what to do if others use the GPU at the start",
    )
    parser.add_argument("--device-name", default=default.device_name, help="a part of the name of the device")
    parser.add_argument("--attempt", type=int, default=1, help="the number of this attempt, from 1")
    arguments = parser.parse_args()
    watch = Supervision(arguments.timeout_s, arguments.sample_hz, arguments.exclusive, arguments.device_name)
    # As for Ctrl-C: unwind, so that the worker is gone and nothing half-written is left.
    signal.signal(signal.SIGTERM, _terminated)
    earlier = attempts.earlier(arguments.output, arguments.attempt)
    if earlier and earlier[-1].finished:
        print(f"attempt {earlier[-1].attempt} left the record; nothing to do", file=sys.stderr)
        return 0
    if earlier and earlier[-1].final:
        print(Path(earlier[-1].log).read_text(errors="replace"), end="", file=sys.stderr)
        return 1
    finished = None
    try:
        subject = parse(arguments.subject)
        files.check_writable(arguments.output)
        finished = measure(subject, watch, arguments.output)
        if earlier:
            finished = replace(finished, attempts=tuple(attempt.for_record() for attempt in earlier))
        record_file.write(finished, arguments.output)
        tries.forget(arguments.output)
    except CellFailure as error:
        fail(f"{error}{attempts.FINAL}")
        return TIMED_OUT if isinstance(error, MeasurementTimeout) else 1
    except (CellError, CheckpointError, MeasurementError) as error:
        return fail(str(error))
    except (OSError, RecordError) as error:
        if finished is not None:
            fail(f"the record that could not be written: {json.dumps(finished.to_document())}")
        if isinstance(error, RecordError):
            raise  # a fault of this program
        return fail(f"{error.filename or arguments.output}: {error.strerror or error}")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"{subject.label}: {one_line(finished)}", file=sys.stderr)
    return 0


def _terminated(*_: object) -> NoReturn:
    fail("ended by SIGTERM; nothing is recorded")
    sys.exit(128 + signal.SIGTERM)
