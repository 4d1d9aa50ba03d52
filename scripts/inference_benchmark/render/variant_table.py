"""What each variant of an engine gains: its throughput against that of the engine itself, cell by cell."""

from __future__ import annotations

from inference_benchmark.analysis.figures import BY_NAME
from inference_benchmark.analysis.statistics import ratio
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
    cells = {(column_of(row), row["batch_size"]): row for row in rows if row["outcome"] == "ok"}
    first = {column_of(row): row for row in reversed(rows)}
    headings = columns(rows)
    bases = {key: _base(row) for key in headings if text_of(row := first[key], "options") and _base(row) in first}
    if not bases:
        return None
    sizes = sorted({row["batch_size"] for row in rows})
    texts = [
        [str(size), *(_ratio_text(cells.get((key, size)), cells.get((base, size))) for key, base in bases.items())]
        for size in sizes
    ]
    agreement = [agreement_text(first[key]) for key in bases]
    return TableView(
        "Variants against their engine (times its throughput)",
        "above 1 is faster; in parentheses the 95 % interval: no difference is shown where it includes 1.",
        [("batch_size",), *((*headings[key], f"against {base[0]}") for key, base in bases.items())],
        texts,
        [["same tokens | logits error", *agreement]] if any(agreement) else [],
    )


def _base(row: Row) -> Column:
    """The column of the engine that a row is of a variant of."""
    _, precision, variant = column_of(row)
    return row["base_engine"], precision, variant


def _ratio_text(new: Row | None, base: Row | None) -> str:
    """``1.12 (1.08 to 1.16)``; blank where one of the two was not measured."""
    if new is None or base is None:
        return ""
    value, low, high = ratio(estimate_of(new, _FIGURE), estimate_of(base, _FIGURE))
    return f"{value:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")
