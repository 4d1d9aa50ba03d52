"""Baselines, what the cells are compared with: which paths can be used, and the records among them."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from inference_benchmark.cli import ProblemsError
from inference_benchmark.experiment.cells import RECORD_STEM
from inference_benchmark.results import benchmark_reports
from inference_benchmark.results.summary_csv import read_table

_RECORD = re.compile(rf"{RECORD_STEM}\.json")
#: In a path, Snakemake takes {x} for a wildcard and <x> for a variable.
_OF_SNAKEMAKE = frozenset("{}<>")


def check(path: Path) -> list[str]:
    """Why a path cannot be a baseline, one line per problem. Records are not read."""
    if found := _OF_SNAKEMAKE.intersection(str(path)):
        return [f"{path} has {' and '.join(sorted(found))}, which Snakemake takes for a part of a rule; rename it"]
    try:
        if path.is_dir() and records_below(path):
            return []
        if benchmark_reports.paths(path):
            benchmark_reports.read(path)
        elif path.is_dir():
            return [f"{path} holds no records (batch-N.json)"]
        else:
            read_table(path)
    except ProblemsError as error:
        return error.problems
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    return []


def files(paths: Iterable[str]) -> Iterator[str]:
    """The files behind the paths of baselines: themselves, or the records or reports below them."""
    for path in map(Path, paths):
        below = (records_below(path) or benchmark_reports.paths(path)) if path.is_dir() else [path]
        yield from map(str, below)


def records_below(folder: Path) -> list[Path]:
    """Records in the order of their folders, batch sizes and rounds, without those that were superseded."""
    names = {file: _RECORD.fullmatch(file.name) for file in folder.rglob("batch-*.json")}
    numbers = {file: (int(name[1]), int(name[2] or 1)) for file, name in names.items() if name}
    return sorted(numbers, key=lambda file: (file.parent, *numbers[file]))


def rounds_of(path: Path) -> list[Path]:
    """The records of all rounds of the cell whose first one has this path, in order; at least this path."""
    stem = path.stem
    further = [file for file in path.parent.glob(f"{stem}.round-*.json") if _RECORD.fullmatch(file.name)]
    return [path, *sorted(further, key=lambda file: int(_RECORD.fullmatch(file.name)[2]))]
