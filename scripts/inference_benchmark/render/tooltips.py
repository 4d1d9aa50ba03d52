"""The tooltip of a point in a chart: every figure of its cell, and the evidence for them."""

from __future__ import annotations

from inference_benchmark.analysis.figures import BY_NAME, PERFORMANCE, Figure
from inference_benchmark.render.texts import width_text
from inference_benchmark.results.cell_result import CellResult
from inference_benchmark.units import format_number


def tooltip(cell: CellResult) -> dict[str, str]:
    """The lines of a cell's tooltip by their names, without blank ones."""
    memory = BY_NAME["memory_share"]
    lines = {figure.title.lower(): _figure_text(cell, figure) for figure in PERFORMANCE} | {
        memory.title: memory.text(cell.value(memory.name)),
        "samples": _samples(cell),
        "not stable": ", ".join(cell.unstable_because),
        "flags": ", ".join(cell.flags),
        "ended during": cell.reason_phase,
        "record": cell.record,
    }
    return {name: text for name, text in lines.items() if text}


def _figure_text(cell: CellResult, figure: Figure) -> str:
    if cell.is_limit_unknown(figure):
        return "limit unknown"
    value = cell.value(figure.name)
    if value is None:
        return ""
    text = figure.text(value) if figure.is_share else f"{format_number(value * figure.scale, 4)} {figure.unit}"
    return text + (f" ({cell.bound_by[figure.phase]})" if figure.phase else "") + width_text(cell, figure)


def _samples(cell: CellResult) -> str:
    if "cycles" not in cell.figures:
        return ""
    names = ("cycles", "processes", "outliers", "latency_median_s", "latency_min_s", "latency_max_s")
    calls, processes, outliers, median, shortest, longest = (BY_NAME[name].text(cell.value(name)) for name in names)
    number = f"{calls} calls in {processes} process{'es' * (processes != '1')}"
    number += f", {outliers} outliers" if outliers else ""
    return f"{number}; median {median} sec, {shortest} to {longest}"
