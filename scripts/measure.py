#!/usr/bin/env python3
"""Measure one cell and write its record: a figure, "out of memory", or "not supported".

If earlier records show how the cell ends (a search for the largest batch, a smaller batch that ran out of memory, or a
precision that is not supported), nothing is measured and the record says so.
Exits with 124 if the time was up, and with 1 for any other end without a record.
"""

from __future__ import annotations

import sys
from pathlib import Path

from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.measure.command import main
from inference_benchmark.measure.known_endings import known_ending
from inference_benchmark.measure.run import measure_cell
from inference_benchmark.records.record import Record
from inference_benchmark.render.one_line import cell_text


def measure(cell: Cell, watch: Supervision, _: Path) -> Record:
    return known_ending(cell) or measure_cell(cell, watch)


if __name__ == "__main__":
    sys.exit(main(__doc__, "--cell", Cell.from_json, measure, cell_text))
