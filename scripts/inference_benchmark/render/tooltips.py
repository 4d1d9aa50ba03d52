"""The tooltip of a point in a chart: every figure of its cell, and the evidence for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas

from inference_benchmark.analysis.figures import FIGURES, Figure
from inference_benchmark.compare.comparison import ComparedCell
from inference_benchmark.render.columns import Row, is_limit_unknown, text_of, value_of, width_text
from inference_benchmark.units import format_figure, format_number


def tooltip(row: Row) -> dict[str, str]:
    """The lines of a cell's tooltip that have something to say, by their names."""
    lines = {figure.title.lower(): _figure_text(row, figure) + width_text(row, figure) for figure in _figures(row)}
    return lines | {name: text for name, show in _EVIDENCE.items() if (text := show(row))}


def baseline_tooltip(cell: ComparedCell) -> dict[str, str]:
    """The same for a cell of a baseline, which has figures and nothing else."""
    return {figure.title.lower(): _figure_text(cell.base, figure) for figure in _figures(cell.base)}


def _figures(row: Row) -> list[Figure]:
    return [figure for figure in FIGURES if value_of(row, figure) is not None or is_limit_unknown(row, figure)]


def _figure_text(row: Row, figure: Figure) -> str:
    if is_limit_unknown(row, figure):
        return "limit unknown"
    value = row[figure.name]
    if figure.is_share:
        return figure.text(value) + (f" ({row[figure.qualifier]})" if figure.qualifier else "")
    return f"{format_number(value * figure.scale, 4)} {figure.unit}"


def _calls(row: Row) -> str:
    if pandas.isna(row["cycles"]):
        return ""
    outliers = "" if pandas.isna(row["outliers"]) else f", {row['outliers']:.0f} outliers"
    number = f"{row['cycles']:.0f} calls in {row['processes']:.0f} process{'es' * (row['processes'] > 1)}{outliers}"
    spread = f"{row['latency_min_s']:.4g} to {row['latency_max_s']:.4g}"
    return f"{number}; median {row['latency_median_s']:.4g} sec, {spread}"


def _memory_share(row: Row) -> str:
    return "" if pandas.isna(row["memory_share"]) else f"{format_figure(row['memory_share'], '.1%')} of what there is"


_EVIDENCE: Mapping[str, Callable[[Row], str]] = {
    "memory": _memory_share,
    "samples": _calls,
    "not stable": lambda row: text_of(row, "unstable_because"),
    "flags": lambda row: text_of(row, "flags"),
    "ended during": lambda row: text_of(row, "reason_phase"),
    "record": lambda row: text_of(row, "record"),
}
