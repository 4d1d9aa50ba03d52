"""The summary as tables: one per figure of the catalogue, one row per batch size, one column per precision; and what
follows from several workloads, with a row per prompt length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pandas

from inference_benchmark import markdown
from inference_benchmark.analysis.figures import BY_NAME, FIGURES, Figure, table_of
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.render.baseline_columns import baseline_columns, compared_cells, ratio_table
from inference_benchmark.render.columns import (
    BATCH_SIZE,
    ENDINGS,
    FLAGGED,
    PROMPT_TOKENS,
    UNSTABLE,
    Axis,
    Column,
    Row,
    Rows,
    TableView,
    agreement_text,
    column_of,
    columns,
    figures_text,
    marks,
    text_of,
    width_text,
)
from inference_benchmark.render.context import default_batch_size, models
from inference_benchmark.render.fits import fit_maps
from inference_benchmark.render.time_of_call import time_tables
from inference_benchmark.render.variant_table import environment_table, variant_table
from inference_benchmark.units import format_bytes


def tables(rows: Rows, comparisons: Sequence[Comparison] = ()) -> Iterator[TableView]:
    """Every table that has something to show for the rows of one model and workload, with the columns of baselines."""
    measured = _measured(rows)
    figures = [
        figure
        for figure in FIGURES
        if figure.has_table
        and figure.beside is None
        and (figure.headline or any(figures_text(row, figure) for row in measured))
    ]
    for number, figure in enumerate(figures):
        yield table(rows, figure, comparisons, foot=column_rows(rows) if number == 0 else [])
        for comparison in comparisons:
            if comparison.figure == figure.name and compared_cells(rows, comparison):
                yield ratio_table(rows, comparison)
        if number == 0:
            yield from filter(None, (variant_table(rows), environment_table(rows)))
    yield from time_tables(rows)


def context_tables(rows: Rows) -> list[TableView]:
    """The tables over the prompt length, for the rows of one model and number of new tokens: what fits, and the
    throughput at the batch size that charts show first."""
    maps = fit_maps(rows)
    lengths = sorted({row["prompt_tokens"] for row in rows})
    largest = [[str(length), *texts] for length, *texts in zip(lengths, *(each.largest for each in maps), strict=True)]
    headings = [(PROMPT_TOKENS.name,), *columns(rows).values()]
    views = [TableView("Largest batch that fits", "by the cells of the grid, or searched.", headings, largest, [])]
    size = default_batch_size(rows)
    if size is not None:
        view = table(
            [row for row in rows if row["batch_size"] == size], BY_NAME["throughput_tok_per_s"], axis=PROMPT_TOKENS
        )
        views.append(view._replace(title=f"{view.title} at batch size {size}"))
    return views


def table(
    rows: Rows,
    figure: Figure,
    comparisons: Sequence[Comparison] = (),
    foot: Sequence[Sequence[str]] = (),
    axis: Axis = BATCH_SIZE,
) -> TableView:
    """The table of a figure, with a row per value of an axis in which alone the cells of a column differ: for one model
    and workload the batch size. Baselines have columns over the batch size only.

    A cell is ``oom`` where it did not fit, ``n/a`` where device or library do not support the precision, and blank
    where there is no record.
    """
    keys = columns(rows)
    texts: dict[tuple[Column, int], str] = {}
    for row in rows:
        measured = row["outcome"] == "ok"
        texts[column_of(row), row[axis.name]] = cell_text(row, figure) if measured else ENDINGS.get(row["outcome"], "")
    values = sorted({row[axis.name] for row in rows})
    headings = [(axis.name,), *keys.values()]
    cells = [[str(value), *(texts.get((key, value), "") for key in keys)] for value in values]
    foot = [list(row) for row in foot]
    for comparison in comparisons:
        for heading, by_size in baseline_columns(rows, comparison, figure).items():
            headings.append(heading)
            for row, size in zip(cells, values, strict=True):
                row.append(by_size.get(size, ""))
            for row in foot:
                row.append("")
    units = " | ".join(each.unit for each in table_of(figure))
    explanation = "; ".join(each.definition for each in table_of(figure) if each.definition)
    return TableView(f"{figure.title} ({units})", f"{explanation}.", headings, cells, foot)


def cell_text(row: Row, figure: Figure) -> str:
    """A measured cell in the table of a figure: the figures side by side, the interval of the first, and marks."""
    text = figures_text(row, figure)
    return text and text + width_text(row, figure) + marks(row, figure.warnings)


def column_rows(rows: Rows) -> list[list[str]]:
    """The rows of a table that hold for whole columns, those of them that have something to show."""
    first = {column_of(row): row for row in reversed(rows)}
    filled = [[title, *(show(first[key]) for key in columns(rows))] for title, show in _COLUMN_ROWS]
    return [row for row in filled if any(row[1:])]


def document(
    summary: pandas.DataFrame,
    comparisons: Sequence[Comparison] = (),
    pictures: Callable[[str, str], str] | None = None,
) -> str:
    """tables.md: every table of each model and workload, and of each model over the prompt length. pictures: Markdown
    to put before those of a model and workload."""
    parts = []
    for model in models(summary):
        for rows in model.workloads:
            first = rows[0]
            shown = pictures(first["model"], first["workload"]) if pictures else ""
            about = f"{first['prompt_tokens']} prompt tokens, {first['new_tokens']} new tokens per sequence"
            parts.append(_part(rows, "", about, shown, tables(rows, comparisons)))
        for rows in model.contexts:
            about = f"{rows[0]['new_tokens']} new tokens per sequence"
            parts.append(_part(rows, " over the prompt length", about, "", context_tables(rows)))
    return "\n".join(parts)


def _part(rows: Rows, over: str, about: str, pictures: str, views: Iterable[TableView]) -> str:
    """A heading, what the tables are about, and the tables."""
    engines = ", ".join(dict.fromkeys(row["engine"] for row in rows))
    return (
        f"### {markdown.escape(rows[0]['model'])} on {markdown.escape(rows[0]['machine'])}{over}\n\n"
        f"{about}; engine: {markdown.escape(engines)}. "
        "Greedy, every row generated to full length. ± is half of the 95 % interval, ±? where it is unknown."
        f"{_legend(rows)}\n\n"
        + (f"{pictures}\n\n" if pictures else "")
        + "\n".join(to_markdown(view) for view in views)
    )


def to_markdown(view: TableView) -> str:
    """A table with its title and explanation."""
    prose = f"{markdown.escape(view.title)}: {markdown.escape(view.explanation)}"
    return f"{prose}\n\n" + markdown.table(view.headings, view.cells + view.foot)


def _measured(rows: Rows) -> list[Row]:
    return [row for row in rows if row["outcome"] == "ok"]


def _max_batch_text(row: Row) -> str:
    """The largest batch that fits; blank where it was not searched for."""
    return "" if pandas.isna(row["max_batch_fits"]) else f"{row['max_batch_fits']:.0f}"


#: What holds for a whole column, below its batch sizes.
_COLUMN_ROWS = (("max batch", _max_batch_text), ("same tokens | logits error", agreement_text))


def _legend(rows: Rows) -> str:
    """The meaning of the words and marks that occur in the cells."""
    text = ""
    outcomes = {row["outcome"] for row in rows}
    if "oom" in outcomes:
        limit = rows[0]["memory_limit_bytes"]
        within = "" if pandas.isna(limit) else f" under a memory limit of {format_bytes(limit)}"
        text += f" `oom`: out of memory{within}."
    if "unsupported" in outcomes:
        text += " `n/a`: not supported by this engine, library or device; summary.csv says what does not go together."
    measured = _measured(rows)
    if any(text_of(row, "unstable_because") for row in measured):
        text += f" {UNSTABLE}: the samples do not repeat well; summary.csv says why."
    if any(text_of(row, "flags") or text_of(row, "limit_flags") for row in measured):
        text += f" {FLAGGED}: measured under noteworthy conditions; summary.csv names them."
    if any(text_of(row, "base_engine") == "fake" for row in rows):
        text += " **The engine `fake` makes up its times: these figures are no measurement.**"
    return text
