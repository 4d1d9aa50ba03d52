"""What comparing two result sets finds, cell by cell: in memory and as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis import statistics
from inference_benchmark.analysis.figures import COMPARED
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.compare.verdicts import FITS_NO_LONGER, SLOWER
from inference_benchmark.results.cell_result import CellResult
from inference_benchmark.results.column import Column

#: 2: columns are those of results/column.py. 3: freedom. 4: machine_differs. 5: without that.
VERSION = 5

#: The fact that differs where the machine itself does.
SPEED = "speed of the machine"


class ComparedCell(NamedTuple):
    """A cell that both result sets have. ratio: how many times as fast the new one is, above 1 for faster, with its
    95 % interval; None where it is unknown. p_value: of equal means. processes: of base and new; 0 without samples.
    freedom: degrees of freedom of the interval; None where it is unknown."""

    base: CellResult
    new: CellResult
    verdict: str
    ratio: Estimate | None = None
    p_value: float | None = None
    processes: tuple[int, int] = (0, 0)
    freedom: float | None = None

    @property
    def is_judged(self) -> bool:
        """Whether it was tested with several processes in both sets."""
        return self.p_value is not None and min(self.processes) > 1

    def to_document(self) -> dict[str, Any]:
        """For JSON: the cell, and of both sides the outcome and the values that can be compared."""
        value, low, high = self.ratio or Estimate(None)
        return {
            "where": self.new.key,
            "base_engine": self.base.column.engine,
            "base_outcome": self.base.outcome,
            "new_outcome": self.new.outcome,
            "base": _values(self.base),
            "new": _values(self.new),
            "verdict": self.verdict,
            "ratio": value,
            "low": low,
            "high": high,
            "p_value": self.p_value,
            "processes": list(self.processes),
            "freedom": self.freedom,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of to_document. The base has the precision and batch size of the new one, and its own engine."""
        where = document["where"]
        of_base = {**where, "engine": document["base_engine"], "environment": ""}
        ratio = Estimate(*(document[name] for name in ("ratio", "low", "high")))
        return cls(
            CellResult.of_key(of_base, document["base_outcome"], document["base"]),
            CellResult.of_key(where, document["new_outcome"], document["new"]),
            document["verdict"],
            None if ratio.value is None else ratio,
            document["p_value"],
            tuple(document["processes"]),
            document["freedom"],
        )


class ComparedColumn(NamedTuple):
    """Cells that differ in batch size alone. column, label: as the new set has them. geometric_mean: of the ratios of
    so many cells. base_largest, new_largest: the largest of the compared batch sizes that fits, None if none does."""

    column: Column
    label: str
    geometric_mean: float | None
    cells: int
    base_largest: int | None
    new_largest: int | None


class Difference(NamedTuple):
    """A fact that is not the same in both result sets, with every value that it takes in each."""

    fact: str
    base: Sequence[Any]
    new: Sequence[Any]


@dataclass(frozen=True)
class Comparison:
    """base, new: names of the result sets. figure: its name. notes: remarks of both. only_base, only_new: cells that
    the other set does not have. paired: whether cells were compared round by round."""

    base: str
    new: str
    figure: str
    notes: Sequence[str]
    differences: Sequence[Difference]
    cells: Sequence[ComparedCell]
    columns: Sequence[ComparedColumn]
    only_base: Sequence[CellResult]
    only_new: Sequence[CellResult]
    paired: bool = False

    def to_document(self) -> dict[str, Any]:
        """For JSON. ``verdict`` holds at 95 % for all cells together (Holm); each interval for its cell alone."""
        return {
            **vars(self),
            "version": VERSION,
            "differences": [each._asdict() for each in self.differences],
            "cells": [each.to_document() for each in self.cells],
            "columns": [{**each._asdict(), "column": asdict(each.column)} for each in self.columns],
            "only_base": [each.key for each in self.only_base],
            "only_new": [each.key for each in self.only_new],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of to_document. Raises ValueError for another version."""
        if document.get("version") != VERSION:
            raise ValueError(f"version is {document.get('version')!r}; this program reads version {VERSION}")
        parts = {
            "differences": lambda each: Difference(**each),
            "cells": ComparedCell.from_document,
            "columns": lambda each: ComparedColumn(**each | {"column": Column(**each["column"])}),
            "only_base": CellResult.of_key,
            "only_new": CellResult.of_key,
        }
        made = {name: [make(each) for each in document[name]] for name, make in parts.items()}
        return cls(**{name: value for name, value in document.items() if name != "version"} | made)

    @property
    def judged(self) -> int:
        """How many cells were tested with several processes in both sets."""
        return sum(cell.is_judged for cell in self.cells)

    @property
    def single_process(self) -> bool:
        """Whether a cell was tested by the calls of a single process."""
        return any(cell.p_value is not None and min(cell.processes) == 1 for cell in self.cells)


def read_all(paths: Iterable[Path]) -> list[Comparison]:
    """Comparisons from their JSON files."""
    return [Comparison.from_document(json.loads(path.read_bytes())) for path in paths]


def regressions(comparison: Comparison, limit: float) -> list[ComparedCell]:
    """Cells that are slower by at least this part of the base's speed, and those that no longer fit."""
    return [cell for cell in comparison.cells if _is_regression(cell, limit)]


def _is_regression(cell: ComparedCell, limit: float) -> bool:
    return cell.verdict == FITS_NO_LONGER or (cell.verdict == SLOWER and cell.ratio.value <= 1 - limit)


def undecided(comparison: Comparison, limit: float) -> list[tuple[ComparedCell, int | None]]:
    """Cells that can be slower by this part of the base's speed, for all that is known, and are not found to be; each
    with how many rounds would tell, None where that cannot be said."""
    return [
        (cell, statistics.rounds_needed(cell.ratio, min(cell.processes), cell.freedom, 1 - limit))
        for cell in comparison.cells
        if not _is_regression(cell, limit) and cell.ratio and not (cell.is_judged and cell.ratio.low > 1 - limit)
    ]


def _values(cell: CellResult) -> dict[str, float]:
    return {figure.name: cell.value(figure.name) for figure in COMPARED.values() if figure.name in cell.figures}
