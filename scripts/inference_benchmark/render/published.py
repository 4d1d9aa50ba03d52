"""Figures that others published, in the tables that this project's own figures are shown in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_benchmark.analysis.figures import FIGURES
from inference_benchmark.compare import result_set
from inference_benchmark.compare.result_set import CellResult
from inference_benchmark.records.summary import COLUMNS
from inference_benchmark.render.columns import Row
from inference_benchmark.render.tables import table, to_markdown


def published_tables(path: Path, precisions: Sequence[str]) -> str:
    """The headline tables of a CSV of figures of one model and workload, as Markdown. Raises ProblemsError, OSError."""
    rows = published_rows(path, precisions)
    return "\n".join(to_markdown(table(rows, figure)) for figure in FIGURES if figure.headline)


def published_rows(path: Path, precisions: Sequence[str]) -> list[Row]:
    """A CSV of figures as rows of a summary, with a row for each precision at each batch size: some may be blank."""
    cells = {(cell.where["precision"], cell.where["batch_size"]): cell for cell in result_set.load(path).cells}
    sizes = sorted({batch_size for _, batch_size in cells})
    return [
        {
            **dict.fromkeys(COLUMNS),
            "engine": "hf",
            "base_engine": "hf",
            "precision": precision,
            "batch_size": size,
            **_values(cells.get((precision, size))),
        }
        for precision in precisions
        for size in sizes
    ]


def _values(cell: CellResult | None) -> dict[str, Any]:
    return {"outcome": "missing"} if cell is None else {"outcome": cell.outcome, **cell.figures}
