"""Baselines in the tables of one model and workload: their columns, and a table of ratios."""

from inference_benchmark.analysis.figures import Figure
from inference_benchmark.compare.comparison import ComparedCell, Comparison
from inference_benchmark.compare.text import ONE_PROCESS, SIGNS, ratio_text
from inference_benchmark.render.texts import TableView, figures_text
from inference_benchmark.results.cell_result import Results, columns_of
from inference_benchmark.results.column import Column, Heading, headings


def compared_cells(cells: Results, comparison: Comparison) -> list[ComparedCell]:
    """The compared cells of the columns of these cells, which are of one model and workload."""
    grid, keys = cells[0].column.grid, {_key(column) for column in columns_of(cells)}
    return [cell for cell in comparison.cells if cell.new.column.grid == grid and _key(cell.new.column) in keys]


def baseline_heading(comparison: Comparison, cell: ComparedCell) -> Heading:
    """What a column of a baseline is called, with the engine where the baseline names one."""
    return comparison.base, " ".join(filter(None, (cell.base.column.engine, cell.base.column.precision)))


def baseline_columns(cells: Results, comparison: Comparison, figure: Figure) -> dict[Heading, dict[int, str]]:
    """What a baseline has of a figure, by heading and batch size; empty where it has none."""
    by_heading: dict[Heading, dict[int, str]] = {}
    compared = compared_cells(cells, comparison)
    if any(figure.name in cell.base.figures for cell in compared):
        for cell in compared:
            text = figures_text(cell.base, figure) or cell.base.ending
            by_heading.setdefault(baseline_heading(comparison, cell), {})[cell.new.batch_size] = text
    return by_heading


def ratio_table(cells: Results, comparison: Comparison) -> TableView:
    """How many times the throughput of a baseline, cell by cell; in the foot the largest batches that fit."""
    compared = compared_cells(cells, comparison)
    texts = {(_key(cell.new.column), cell.new.batch_size): ratio_text(cell) for cell in compared}
    largest = {
        _key(each.column): f"{each.new_largest or 'none'}, was {each.base_largest or 'none'}"
        for each in comparison.columns
        if each.column.grid == cells[0].column.grid
    }
    known = {key for key, _ in texts}
    kept = {column: heading for column, heading in headings(columns_of(cells)).items() if _key(column) in known}
    sizes = sorted({size for _, size in texts})
    return TableView(
        f"Against {comparison.base} (times its throughput)",
        f"above 1 is faster; {SIGNS['faster']} faster, {SIGNS['slower']} slower, {SIGNS['same']} no difference shown, "
        "by a test on the samples for all cells together; no sign: significance unknown."
        + (f" {SIGNS['perhaps faster']} {SIGNS['perhaps slower']} {ONE_PROCESS}" if comparison.single_process else ""),
        [("batch_size",), *kept.values()],
        [[str(size), *(texts.get((key, size), "") for key in map(_key, kept))] for size in sizes],
        [["largest batch", *(largest[_key(column)] for column in kept)]],
    )


def _key(column: Column) -> tuple[str, str, str]:
    """What a comparison knows of a column of a grid."""
    return column.engine, column.environment, column.precision
