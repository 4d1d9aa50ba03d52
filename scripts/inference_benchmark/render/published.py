"""Figures that others published, in the tables that this project's own figures are shown in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from inference_benchmark.analysis.figures import PERFORMANCE
from inference_benchmark.render.tables import table, to_markdown
from inference_benchmark.render.texts import TableView
from inference_benchmark.results import summary_csv


def published_tables(path: Path, precisions: Sequence[str], engine: str) -> str:
    """The headline tables of a CSV of figures as Markdown. Raises ProblemsError, OSError."""
    return "\n".join(map(to_markdown, published_views(path, precisions, engine)))


def published_views(path: Path, precisions: Sequence[str], engine: str) -> list[TableView]:
    """A CSV of figures of one model and workload as tables, with a column for each of these precisions. engine: in
    ENGINES; the CSV does not name it, and it says what a precision means."""
    _, read = summary_csv.read_table(path)
    cells = [replace(each, column=replace(each.column, engine=engine, base_engine=engine)) for each in read]
    columns = [replace(cells[0].column, precision=precision) for precision in precisions]
    return [table(cells, figure, columns=columns) for figure in PERFORMANCE if figure.headline]
