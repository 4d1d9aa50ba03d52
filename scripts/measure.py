#!/usr/bin/env python3
"""Measure one cell, or do one study, and write its record.

A cell ends with figures, "out of memory", or "not supported". If earlier records show how it ends (a search for the
largest batch, a smaller batch that ran out of memory, or a precision that is not supported), nothing is measured, and
the record says so. Studies are the ceilings of the machine, the largest batch that fits, how far answers differ from
those of the reference, how well a text is predicted, and where the time of a call goes.
Exits with 124 if the time was up, and with 1 for any other end without a record.
"""

import sys
from pathlib import Path

from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.measure.command import main
from inference_benchmark.measure.known_endings import known_ending
from inference_benchmark.measure.run import measure_cell, run_study
from inference_benchmark.records.record import AnyRecord
from inference_benchmark.render.one_line import record_text


def measure(subject: Subject, watch: Supervision, output: Path) -> AnyRecord:
    if known := known_ending(subject):
        return known
    return measure_cell(subject, watch) if isinstance(subject, Cell) else run_study(subject, watch, output)


if __name__ == "__main__":
    sys.exit(main(__doc__, measure, record_text))
