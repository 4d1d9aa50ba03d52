"""Baselines in the tables of one model and workload: their columns, and a table of ratios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference_benchmark.analysis.figures import Figure
from inference_benchmark.compare.comparison import GRID, ComparedCell, Comparison, Grid, grid_of
from inference_benchmark.compare.text import ONE_PROCESS, SIGNS, ratio_text
from inference_benchmark.experiment.environments import CURRENT
from inference_benchmark.render.columns import ENDINGS, Column, Heading, Rows, TableView, columns, figures_text


def compared_cells(rows: Rows, comparison: Comparison) -> dict[tuple[Column, int], ComparedCell]:
    """The compared cells among rows of one model and workload, by column, without its variant, and batch size."""
    return {
        (_column(cell.where), cell.where["batch_size"]): cell
        for cell in comparison.grids.get(_grid(rows), ())
        if "engine" in cell.where
    }


def baseline_name(comparison: Comparison, cell: ComparedCell) -> str:
    """What a column of a baseline is called, with the engine where the baseline names one."""
    return " ".join(filter(None, (comparison.base, cell.base_engine, cell.where["precision"])))


def baseline_columns(rows: Rows, comparison: Comparison, figure: Figure) -> dict[Heading, dict[int, str]]:
    """What a baseline has of a figure, by heading and batch size; empty where it has none."""
    cells = compared_cells(rows, comparison).values()
    if not any(figure.name in cell.base for cell in cells):
        return {}
    by_heading: dict[Heading, dict[int, str]] = {}
    for cell in cells:
        heading = (comparison.base, " ".join(filter(None, (cell.base_engine, cell.where["precision"]))))
        text = figures_text(cell.base, figure) or ENDINGS.get(cell.base_outcome, "")
        by_heading.setdefault(heading, {})[cell.where["batch_size"]] = text
    return by_heading


def ratio_table(rows: Rows, comparison: Comparison) -> TableView:
    """How many times the throughput of a baseline, cell by cell; in the foot the largest batches that fit."""
    cells = compared_cells(rows, comparison)
    compared = {column for column, _ in cells}
    headings = ((key._replace(variant=""), heading) for key, heading in columns(rows).items())
    kept = [(key, heading) for key, heading in headings if key in compared]
    by_size = [
        [str(size), *(ratio_text(cells[key, size]) if (key, size) in cells else "" for key, _ in kept)]
        for size in sorted({size for _, size in cells})
    ]
    largest = {
        _column(each.where): f"{each.new_largest or 'none'}, was {each.base_largest or 'none'}"
        for each in comparison.columns
        if grid_of(each.where) == _grid(rows) and "engine" in each.where
    }
    return TableView(
        f"Against {comparison.base} (times its throughput)",
        f"above 1 is faster; {SIGNS['faster']} faster, {SIGNS['slower']} slower, {SIGNS['same']} no difference shown, "
        "by a test on the samples for all cells together; no sign: significance unknown."
        + (f" {SIGNS['perhaps faster']} {SIGNS['perhaps slower']} {ONE_PROCESS}" if comparison.single_process else ""),
        [("batch_size",), *(heading for _, heading in kept)],
        by_size,
        [["largest batch", *(largest[key] for key, _ in kept)]],
    )


def _column(where: Mapping[str, Any]) -> Column:
    return Column(where["engine"], where.get("environment", CURRENT), where["precision"])


def _grid(rows: Rows) -> Grid:
    return tuple(rows[0][key] for key in GRID)
