"""Baselines beside the cells of one model and workload: their columns in tables, and a table of ratios."""

from __future__ import annotations

import pandas

from inference_benchmark.analysis import metrics
from inference_benchmark.compare.comparison import GRID, ComparedCell, Comparison, Grid, grid_of
from inference_benchmark.compare.text import ONE_PROCESS, SIGNS, ratio_text
from inference_benchmark.render.cell_texts import Show
from inference_benchmark.render.columns import ENDINGS, Shown, columns


def cells_of(rows: pandas.DataFrame, comparison: Comparison) -> dict[tuple[str, str, int], ComparedCell]:
    """The compared cells among rows of one model and workload, by engine, precision and batch size."""
    return {
        (cell.where["engine"], cell.where["precision"], cell.where["batch_size"]): cell
        for cell in comparison.grids.get(_grid(rows), ())
    }


def _grid(rows: pandas.DataFrame) -> Grid:
    return tuple(rows[key].iat[0] for key in GRID)


def baseline_name(comparison: Comparison, cell: ComparedCell) -> str:
    """What a column of a baseline is called, the engine where it names one."""
    return " ".join(filter(None, (comparison.base, cell.base_engine, cell.where["precision"])))


def baseline_columns(
    rows: pandas.DataFrame, comparison: Comparison, show: Show, figure: str | None
) -> tuple[list[str], list[list[str]]]:
    """(headings, cells by batch size) of what a baseline has of one figure; no columns where it has none."""
    shown: dict[str, dict[int, str]] = {}
    found = cells_of(rows, comparison).values()
    if not any(figure in cell.base for cell in found):
        return [], [[] for _ in sorted(set(rows["batch_size"]))]
    for cell in found:
        text = ENDINGS.get(cell.base_outcome, "")
        if figure in cell.base:
            text = show({**cell.base, "ms_per_token": metrics.ms_per_token(cell.base["throughput_tok_per_s"])})
        shown.setdefault(baseline_name(comparison, cell), {})[cell.where["batch_size"]] = text
    headings = [f"{comparison.base}<br>{name.removeprefix(comparison.base).strip()}" for name in shown]
    return headings, [[texts.get(b, "") for texts in shown.values()] for b in sorted(set(rows["batch_size"]))]


def ratio_table(rows: pandas.DataFrame, comparison: Comparison) -> Shown:
    """How many times the throughput of a baseline, cell by cell; in the last row the largest batches that fit."""
    found = cells_of(rows, comparison)
    names = columns(rows)
    kept = {key: text for key, text in names.items() if any(cell[:2] == key[:2] for cell in found)}
    cells = [
        [str(b), *(ratio_text(found[e, p, b]) if (e, p, b) in found else "" for e, p, _ in kept)]
        for b in sorted({b for _, _, b in found})
    ]
    edges = {
        (each.where["engine"], each.where["precision"]): each
        for each in comparison.columns
        if grid_of(each.where) == _grid(rows)
    }
    largest = [f"{edges[e, p].new_largest or 'none'}, was {edges[e, p].base_largest or 'none'}" for e, p, _ in kept]
    return Shown(
        f"Against {comparison.base} (times its throughput)",
        f"above 1 is faster; {SIGNS['faster']} faster, {SIGNS['slower']} slower, {SIGNS['same']} no difference shown, "
        "by a test on the samples for all cells together; no sign: significance unknown."
        + (f" {SIGNS['perhaps faster']} {SIGNS['perhaps slower']} {ONE_PROCESS}" if comparison.single_process else ""),
        ["batch_size", *kept.values()],
        cells,
        [["largest batch", *largest]],
    )
