#!/usr/bin/env python3
"""Measure one cell and write its record: a figure, "did not fit" or "cannot be done".

Where a search has found that the cell does not fit, the record says so and nothing is measured.
Exits 124 where the time was up, and 1 on any other end; then there is no record.
"""

from __future__ import annotations

import sys

from inference_benchmark.experiment.cells import Cell
from inference_benchmark.measure.cell import beyond_the_edge, measure
from inference_benchmark.measure.command import main
from inference_benchmark.records import record
from inference_benchmark.render.one_line import outcome_text

if __name__ == "__main__":
    sys.exit(
        main(
            __doc__,
            Cell.from_json,
            lambda cell, watch: beyond_the_edge(cell) or measure(cell, watch),
            record.write,
            outcome_text,
        )
    )
