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
from inference_benchmark.records.rounds import combined


def usable_records(experiment: Experiment) -> Iterator[Record]:
    """The records of the whole grid, but for those that are missing or that collect refuses."""
    for cell in experiment.cells():
        with suppress(RecordError, OSError):
            yield load_for(cell, Path(cell.path))


def decide(experiment: Experiment, records: Sequence[Record]) -> dict[str, Any]:
    """For each cell, by the path of its first record: ``rounds``, in how many it is measured in all, and why:
    ``half_width``, half of its 95 % interval after the rounds of the whole grid as a part of the mean. A cell that was
    not measured in each of these needs no more. records: of these rounds, from an experiment with most_rounds."""
    cells = {record.cell.first_round.path: record for record in combined(records)}
    samples_s = {
        path: [run.samples_s for run in record.runs]
        for path, record in cells.items()
        if record.outcome == "ok" and len(record.runs) == experiment.rounds
    }
    prior, target = statistics.prior_of_processes(samples_s.values()), experiment.measurement.target_half_width
    decided: dict[str, Any] = {path: {"rounds": experiment.rounds, "half_width": None} for path in cells}
    for path, of_cell in samples_s.items():
        decided[path]["rounds"] = statistics.rounds_to_reach(target, of_cell, experiment.most_rounds, prior)
        decided[path]["half_width"] = statistics.estimate(of_cell, prior).half_width
    return decided


def above_target(records: Sequence[Record], target: float) -> dict[str, Any]:
    """For provenance.json: how many of the measured cells have an interval of more than ±target, as a part of the mean,
    in how many rounds the last of them would be within it, None where statistics.MOST_ROUNDS are not enough, and the
    seconds that this takes. records: of one round each, from one machine and with the same settings."""
    by_cell: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_cell[record.cell.first_round.path].append(record)
    cells = [rounds for rounds in by_cell.values() if all(record.outcome == "ok" for record in rounds)]
    samples_s = [[run.samples_s for record in rounds for run in record.runs] for rounds in cells]
    prior = statistics.prior_of_processes(samples_s)
    above, most, seconds = 0, 0, 0.0
    for rounds, of_cell in zip(cells, samples_s, strict=True):
        width = statistics.estimate(of_cell, prior).half_width
        if width is None or width > target:
            needed = statistics.rounds_to_reach(target, of_cell, statistics.MOST_ROUNDS, prior)
            above, most = above + 1, max(most, needed)
            seconds += (needed - len(of_cell)) * descriptive.mean([record.took_s for record in rounds])
    known = {"rounds": most, "seconds": seconds} if most < statistics.MOST_ROUNDS else {"rounds": None, "seconds": None}
    return {"cells": above, "of": len(cells), **known}
