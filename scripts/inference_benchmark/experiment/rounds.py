"""The rounds of single cells beyond those of the whole grid: where it is noted how many, and the cells that follow.

How many is decided once the rounds of the whole grid are over (records/further_rounds.py), from their records alone.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from inference_benchmark import files
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.experiment import Experiment

#: Raised whenever the way it is decided changes, so that older decisions count as out of date.
DECISION_VERSION = 1


class Decision(NamedTuple):
    """inputs_sha256: a digest of what it was made from (freshness.Digests.grid). rounds: how many each cell has, by the
    path of its first record."""

    inputs_sha256: str
    rounds: Mapping[str, int]


def decision_path(machine: str) -> str:
    """Where the decision for a machine is; the output of the checkpoint rounds."""
    return f"results/{machine}/rounds.json"


def read_decision(experiment: Experiment) -> Decision | None:
    """The decision that there is, whatever it was made from; None where none is needed, or there is no usable one."""
    if experiment.most_rounds is not None:
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            document = files.read_json(decision_path(experiment.machine))
            rounds = {path: int(cell["rounds"]) for path, cell in document["cells"].items()}
            return Decision(document["inputs_sha256"], rounds)
    return None


def further_cells(experiment: Experiment, decision: Decision | None) -> list[Cell]:
    """The cells of the rounds beyond those of the whole grid, round by round."""
    if decision is None:
        return []
    first = [(decision.rounds.get(path, 0), cell) for path, cell in experiment.by_path.items() if cell.round == 1]
    numbers = range(experiment.rounds + 1, experiment.most_rounds + 1)
    return [replace(cell, round=number) for number in numbers for needed, cell in first if needed >= number]


def all_cells(experiment: Experiment) -> list[Cell]:
    """The cells of the whole grid, and those of further rounds as far as these are decided."""
    return [*experiment.by_path.values(), *further_cells(experiment, read_decision(experiment))]
