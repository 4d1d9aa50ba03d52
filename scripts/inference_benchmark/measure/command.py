"""The command line of scripts/measure.py: from a cell or study to a record."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

from inference_benchmark import files
from inference_benchmark.cli import fail
from inference_benchmark.experiment.as_json import CellError
from inference_benchmark.experiment.studies import subject_from_json
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.measure.outcome import CellFailure, MeasurementError, MeasurementTimeout
from inference_benchmark.models.checkpoint import CheckpointError
from inference_benchmark.records import attempts, record_file, tries
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.record import AnyRecord

#: The signals of a closed terminal, Ctrl-C, and schedulers.
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def main(
    description: str, measure: Callable[[Any, Supervision, Path], AnyRecord], one_line: Callable[[AnyRecord], str]
) -> int:
    """Parse the command line, measure what it asks for, write the record, and print in one line how it ended.
    measure: is given the cell or study, how to watch it, and the path of the record."""
    arguments = _parser(description).parse_args()
    watch = Supervision(**{each.name: getattr(arguments, each.name) for each in fields(Supervision)})
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminated)
    earlier = attempts.earlier(arguments.output, arguments.attempt)
    if earlier and earlier[-1].finished:
        print(f"attempt {earlier[-1].attempt} left the record; nothing to do", file=sys.stderr)
        return 0
    if earlier and earlier[-1].final:
        print(Path(earlier[-1].log).read_text(encoding="utf-8", errors="replace"), end="", file=sys.stderr)
        return 1
    finished = None
    try:
        subject = subject_from_json(arguments.subject)
        files.check_writable(arguments.output)
        finished = measure(subject, watch, arguments.output)
        if earlier:
            finished = replace(finished, attempts=tuple(attempt.for_record() for attempt in earlier))
        record_file.write(finished, arguments.output)
        tries.forget(arguments.output)
    except CellFailure as error:
        fail(f"{error}{attempts.FINAL}")
        return 124 if isinstance(error, MeasurementTimeout) else 1  # as timeout(1)
    except (CellError, CheckpointError, MeasurementError) as error:
        return fail(str(error))
    except (OSError, RecordError) as error:
        if finished is not None:
            fail(f"the record that could not be written: {json.dumps(finished.to_document())}")
        if isinstance(error, RecordError):
            raise  # a fault of this program
        return fail(f"{error.filename or arguments.output}: {error.strerror or error}")
    print(f"{subject.label}: {one_line(finished)}", file=sys.stderr)
    return 0


def _parser(description: str) -> argparse.ArgumentParser:
    default, parser = Supervision(), argparse.ArgumentParser(description=description)
    option = parser.add_argument
    option("--subject", required=True, metavar="JSON", help="the cell or study, as snakemake -p prints it")
    option("--output", required=True, type=Path, metavar="PATH", help="the file of the record")
    limit = "seconds for each process, or for each try of a search"
    option("--timeout-s", type=float, default=default.timeout_s, help=limit)
    option("--sample-hz", type=float, default=default.sample_hz, help="samples of the device's state per second")
    busy = "what to do if others use the GPU at the start"
    option("--exclusive", choices=["warn", "fail"], default=default.exclusive, help=busy)
    option("--device-name", default=default.device_name, help="a part of the name of the device")
    patience = "the longest wait for others to leave the device alone, in seconds"
    option("--patience-s", type=float, default=default.patience_s, help=patience)
    again = "how often a disturbed round is measured again"
    option("--max-retakes", type=int, default=default.max_retakes, help=again)
    option("--attempt", type=int, default=1, help="the number of this attempt, from 1")
    return parser


def _terminated(number: int, _: object) -> NoReturn:
    """Unwind, so that the worker is gone and nothing half-written is left. Other signals do not disturb that."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    fail(f"ended by {signal.Signals(number).name}; nothing is recorded")
    sys.exit(128 + number)
