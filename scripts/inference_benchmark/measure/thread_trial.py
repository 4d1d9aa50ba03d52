"""One cell with fewer CPU threads: what measurement.threads would do on this machine, beside what else runs there.

Products wait for their slowest thread, so that a neighbour on one CPU holds all threads back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine.hardware import default_threads
from inference_benchmark.measure.run import measure_cell
from inference_benchmark.records.record import Record

#: Each number of threads is tried so often, in turn, so that neighbours hit all alike.
ROUNDS = 3


def thread_counts(most: int) -> list[int]:
    """The powers of two below most, and most."""
    return [*(n for n in (2**power for power in range(most.bit_length())) if n < most), most]


def try_threads(cell: Cell, watch: Supervision) -> Iterator[Record]:
    """The records of a cell in several rounds with each number of threads. Raises as measure_cell."""
    for number in range(1, ROUNDS + 1):
        for threads in thread_counts(default_threads()):
            yield measure_cell(
                replace(cell, round=number, measurement=replace(cell.measurement, threads=threads)), watch
            )
