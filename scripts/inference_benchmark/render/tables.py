"""Results as tables: one per figure of the catalogue, one row per batch size, one column per precision; over several
workloads also with a row per prompt length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from inference_benchmark import markdown
from inference_benchmark.analysis.figures import BY_GROUP, BY_NAME, PERFORMANCE, Figure, table_of
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.render.baseline_columns import baseline_columns, compared_cells, ratio_table
from inference_benchmark.render.context import BATCH_SIZE, PROMPT_TOKENS, Axis, Grid, default_batch_size, models
from inference_benchmark.render.fits import fit_maps
from inference_benchmark.render.texts import FLAGGED, UNSTABLE, TableView, agreement_text, cell_text, figures_text
from inference_benchmark.render.timelines import timeline_tables
from inference_benchmark.render.variant_table import environment_table, variant_table
from inference_benchmark.results import summary_csv
from inference_benchmark.results.cell_result import UNFINISHED, CellResult, Results, columns_of
from inference_benchmark.results.column import Column, headings
from inference_benchmark.units import format_bytes

_THROUGHPUT, _OF_TEXT = BY_NAME["throughput_tok_per_s"], BY_GROUP["quality"]
_OF_BATCH = BY_NAME["batch_token_agreement"]


def tables(cells: Results, comparisons: Sequence[Comparison] = ()) -> Iterator[TableView]:
    """Every table that has something to show for the cells of one model and workload, with the columns of baselines."""
    for figure in (each for each in PERFORMANCE if each.has_table and each.side_by_side_with is None):
        if figure.headline or any(figures_text(cell, figure) for cell in cells):
            yield table(cells, figure, comparisons, foot=_column_rows(cells) if figure is _THROUGHPUT else ())
            for comparison in comparisons:
                if comparison.figure == figure.name and compared_cells(cells, comparison):
                    yield ratio_table(cells, comparison)
            if figure is _THROUGHPUT:
                yield from filter(None, (variant_table(cells), environment_table(cells)))
    if any(_OF_BATCH.name in cell.figures for cell in cells):
        yield table(cells, _OF_BATCH)
    yield from timeline_tables(cells)


def context_tables(cells: Results) -> Iterator[TableView]:
    """The tables over the prompt length, for the cells of one model and number of new tokens: what fits, and the
    throughput at the batch size that charts show first."""
    maps = fit_maps(cells)
    heads = [(PROMPT_TOKENS.name,), *headings(map(PROMPT_TOKENS.column, cells)).values()]
    largest = [*map(list, zip(map(str, maps[0].prompt_tokens), *(each.largest for each in maps), strict=True))]
    yield TableView("Largest batch that fits", "by the cells of the grid, or searched.", heads, largest, [])
    size = default_batch_size(cells)
    if size is not None:
        view = table([cell for cell in cells if cell.batch_size == size], _THROUGHPUT, axis=PROMPT_TOKENS)
        yield view._replace(title=f"{view.title} at batch size {size}")


def table(
    cells: Results,
    figure: Figure,
    comparisons: Sequence[Comparison] = (),
    foot: Sequence[Sequence[str]] = (),
    axis: Axis = BATCH_SIZE,
    columns: Iterable[Column] | None = None,
) -> TableView:
    """The table of a figure, with a row per value of an axis in which alone the cells of a column differ: for one model
    and workload the batch size. Baselines have columns over the batch size only. columns: if not those of the cells."""
    texts = {(axis.column(cell), axis.place(cell)): cell_text(cell, figure) for cell in cells}
    by_column = headings(columns or map(axis.column, cells))
    values = sorted({axis.place(cell) for cell in cells})
    heads = [(axis.name,), *by_column.values()]
    rows = [[str(value), *(texts.get((column, value), "") for column in by_column)] for value in values]
    for comparison in comparisons:
        for heading, by_size in baseline_columns(cells, comparison, figure).items():
            heads.append(heading)
            for row, size in zip(rows, values, strict=True):
                row.append(by_size.get(size, ""))
    foot = [[*row, *[""] * (len(heads) - len(row))] for row in foot]
    units = " | ".join(each.unit for each in table_of(figure))
    explanation = "; ".join(each.definition for each in table_of(figure) if each.definition)
    return TableView(f"{figure.title} ({units})", f"{explanation}.", heads, rows, foot)


def _column_rows(cells: Results) -> list[list[str]]:
    """The rows that hold for whole columns, below the batch sizes: those of them that have something to show."""
    first, largest = {cell.column: cell for cell in reversed(cells)}, BY_NAME["max_batch_fits"]
    of_columns = [first[column] for column in columns_of(cells)]
    rows = [
        [largest.title, *(largest.text(cell.value(largest.name)) for cell in of_columns)],
        ["same tokens | logits error", *map(agreement_text, of_columns)],
        *([each.heading, *(each.text_of(cell.figures.get(each.name)) for cell in of_columns)] for each in _OF_TEXT),
    ]
    return [row for row in rows if any(row[1:])]


def document(results: Iterable[CellResult], comparisons: Sequence[Comparison] = ()) -> str:
    """tables.md: every table of each model and workload, and of each model over the prompt length."""
    parts = []
    for model in models(results):
        parts += [_part(grid, tables(grid.cells, comparisons)) for grid in model.workloads]
        parts += [_part(grid, context_tables(grid.cells), " over the prompt length") for grid in model.contexts]
    return "\n".join(parts)


def overview(results: Iterable[CellResult]) -> str:
    """The throughput of each model and workload, as Markdown for a README."""
    grids = [grid for model in models(results) for grid in model.workloads]
    return "\n".join(_part(grid, [table(grid.cells, _THROUGHPUT)]) for grid in grids)


def published_views(path: Path, precisions: Sequence[str], engine: str) -> list[TableView]:
    """The headline tables of a CSV of figures that others published, of one model and workload, with a column for each
    of these precisions. engine: in ENGINES; the CSV does not name it, and it says what a precision means. Raises
    ProblemsError, OSError."""
    _, read = summary_csv.read_table(path)
    cells = [replace(each, column=replace(each.column, engine=engine, base_engine=engine)) for each in read]
    columns = [replace(cells[0].column, precision=precision) for precision in precisions]
    return [table(cells, figure, columns=columns) for figure in PERFORMANCE if figure.headline]


def _part(grid: Grid, views: Iterable[TableView], over: str = "") -> str:
    """A heading, what the tables are about, and the tables."""
    cells = grid.cells
    column, engines = cells[0].column, ", ".join(dict.fromkeys(cell.column.engine for cell in cells))
    if over:
        over, prompts = f"{over}{column.of_text}", ""
    else:
        prompts = f"{column.prompt_tokens} prompt tokens{column.of_text}, "
    return (
        f"### {markdown.escape(column.model)} on {markdown.escape(cells[0].machine)}{over}\n\n"
        f"{prompts}{column.new_tokens} new tokens per sequence; engine: {markdown.escape(engines)}. "
        "Greedy, every row generated to full length. ± is half of the 95 % interval, ±? where it is unknown."
        f"{_legend(grid)}\n\n" + "\n".join(map(to_markdown, views))
    )


def to_markdown(view: TableView) -> str:
    """A table with its title and explanation."""
    prose = f"{markdown.escape(view.title)}: {markdown.escape(view.explanation)}"
    return f"{prose}\n\n" + markdown.table(view.headings, view.cells + view.foot)


def _legend(grid: Grid) -> str:
    """The meaning of the words and marks that occur in the cells, and the columns that are left out."""
    cells = grid.cells
    outcomes, measured = {cell.outcome for cell in cells}, [cell for cell in cells if cell.is_measured]
    limit = cells[0].memory_limit_bytes
    within = "" if limit is None else f" under a memory limit of {format_bytes(limit)}"
    unstable = any(cell.unstable_because for cell in measured)
    flagged = any(cell.flags or cell.limit_flags for cell in measured)
    made_up = any(cell.column.base_engine == "fake" for cell in cells)
    meanings = {
        f" `oom`: out of memory{within}.": "oom" in outcomes,
        " `n/a`: not supported by this engine, library or device; summary.csv says why.": "unsupported" in outcomes,
        " `failed`, `refused`: there is no record that can be used; summary.csv says why.": bool(outcomes & UNFINISHED),
        f" {markdown.escape(grid.sentence)}": bool(grid.unsupported),
        f" {UNSTABLE}: the samples do not repeat well; summary.csv says why.": unstable,
        f" {FLAGGED}: measured under noteworthy conditions; summary.csv names them.": flagged,
        " **The engine `fake` makes up its times: these figures are no measurement.**": made_up,
    }
    return "".join(meaning for meaning, occurs in meanings.items() if occurs)
