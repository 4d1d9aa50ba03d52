"""What each variant of an engine gains against the engine itself, and each environment against the current one: ratios
of throughput, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping

import pandas

from inference_benchmark.analysis.figures import BY_NAME
from inference_benchmark.analysis.statistics import ratio
from inference_benchmark.experiment.environments import CURRENT
from inference_benchmark.records.summary import RATIOS
from inference_benchmark.render.columns import (
    Column,
    Row,
    Rows,
    TableView,
    agreement_text,
    column_of,
    columns,
    estimate_of,
    text_of,
)

_FIGURE = BY_NAME["throughput_tok_per_s"]


def variant_table(rows: Rows) -> TableView | None:
    """The ratios of the variants among rows of one model and workload; None where none stands beside its engine."""
    first = _first(rows)
    bases = {key: _base(row) for key in first if text_of(row := first[key], "options") and _base(row) in first}
    others = {key: (base, base.engine) for key, base in bases.items()}
    return _ratios("Variants against their engine", "engine", rows, others)


def environment_table(rows: Rows) -> TableView | None:
    """The same of environments and the current one."""
    first = _first(rows)
    bases = {key: key._replace(environment=CURRENT) for key in first}
    others = {key: (base, CURRENT) for key, base in bases.items() if key != base and base in first}
    return _ratios("Environments against the current one", "environment", rows, others)


def _first(rows: Rows) -> dict[Column, Row]:
    """The first row of each column, in the order of the grid."""
    first = {column_of(row): row for row in reversed(rows)}
    return {key: first[key] for key in columns(rows)}


def _ratios(title: str, axis: str, rows: Rows, bases: Mapping[Column, tuple[Column, str]]) -> TableView | None:
    """A table of ratios of columns and others, each with a name for the other; None where there are none. axis: in
    summary.RATIOS."""
    if not bases:
        return None
    cells = {(column_of(row), row["batch_size"]): row for row in rows if row["outcome"] == "ok"}
    first, headings = _first(rows), columns(rows)
    sizes = sorted({row["batch_size"] for row in rows})
    texts = [
        [
            str(size),
            *(_ratio_text(axis, cells.get((key, size)), cells.get((base, size))) for key, (base, _) in bases.items()),
        ]
        for size in sizes
    ]
    agreement = [agreement_text(first[key]) for key in bases]
    return TableView(
        f"{title} (times its throughput)",
        "above 1 is faster; in parentheses the 95 % interval, by the ratios of the rounds where there are several: no "
        "difference is shown where it includes 1.",
        [("batch_size",), *((*headings[key], f"against {name}") for key, (_, name) in bases.items())],
        texts,
        [["same tokens | logits error", *agreement]] if any(agreement) else [],
    )


def _base(row: Row) -> Column:
    """The column of the engine that a row is of a variant of."""
    return column_of(row)._replace(engine=row["base_engine"])


def _ratio_text(axis: str, new: Row | None, base: Row | None) -> str:
    """``1.12 (1.08 to 1.16)``; blank where one of the two was not measured."""
    if new is None or base is None:
        return ""
    value, low, high = (new[column] for column in RATIOS[axis])
    if pandas.isna(value):  # a single round
        value, low, high = ratio(estimate_of(new, _FIGURE), estimate_of(base, _FIGURE))
    return f"{value:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")
