"""In how many rounds each cell is measured, decided from the records of the rounds of the whole grid; and what more
rounds would bring."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from inference_benchmark.analysis import descriptive, statistics
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.record import Record
from inference_benchmark.records.record_file import load_for
from inference_benchmark.records.rounds import combined, measured_cells


def usable_records(experiment: Experiment) -> Iterator[Record]:
    """The records of the whole grid, but for those that are missing or that collect refuses."""
    for cell in experiment.cells():
        with suppress(RecordError, OSError):
            yield load_for(cell, Path(cell.path))


def decide(experiment: Experiment, records: Sequence[Record]) -> dict[str, Any]:
    """For each cell, by the path of its first record: ``rounds``, in how many it is measured in all, and why:
    ``half_width``, after the rounds of the whole grid. A cell that was not measured in each of these needs no more.
    records: of these rounds, from an experiment with most_rounds."""
    cells, target = combined(records), experiment.measurement.target_half_width
    no_more = {record.cell.first_round.path: {"rounds": experiment.rounds, "half_width": None} for record in cells}
    measured = measured_cells([record for record in cells if len(record.runs) == experiment.rounds])
    return no_more | {
        path: {"rounds": cell.rounds_to_reach(target, experiment.most_rounds), "half_width": cell.half_width}
        for path, cell in measured.items()
    }


def above_target(records: Sequence[Record], target: float) -> dict[str, Any]:
    """For provenance.json: how many of the measured cells have a half_width of more than target, in how many rounds the
    last of them would be within it, None where statistics.MOST_ROUNDS are not enough, and the seconds that this takes.
    records: of one round each, from one machine and with the same settings."""
    took_s: dict[str, list[float]] = defaultdict(list)
    for record in records:
        took_s[record.cell.first_round.path].append(record.took_s)
    cells = measured_cells(combined(records))
    above, most, seconds = 0, 0, 0.0
    for path, cell in cells.items():
        if cell.half_width is None or cell.half_width > target:
            needed = cell.rounds_to_reach(target, statistics.MOST_ROUNDS)
            above, most = above + 1, max(most, needed)
            seconds += (needed - len(cell.whole_s)) * descriptive.mean(took_s[path])
    known = {"rounds": most, "seconds": seconds} if most < statistics.MOST_ROUNDS else {"rounds": None, "seconds": None}
    return {"cells": above, "of": len(cells), **known}
