"""A table as plain text, and the texts that a cell has in it and in the tooltip of a chart."""

from collections.abc import Callable
from typing import NamedTuple

from inference_benchmark.analysis.figures import BY_NAME, PERFORMANCE, Figure, table_of
from inference_benchmark.results.cell_result import UNFINISHED, CellResult, Results, columns_of
from inference_benchmark.results.column import Heading, batch_label, short_names
from inference_benchmark.units import format_half_width, format_number

#: Behind a figure whose samples do not repeat well, and behind one that was measured under noteworthy conditions.
UNSTABLE, FLAGGED = "†", "‡"


class TableView(NamedTuple):
    """A table as plain text, which its renderer escapes. cells: a row per batch size, or per value of another axis, the
    value first. foot: rows that hold for whole columns."""

    title: str
    explanation: str
    headings: list[Heading]
    cells: list[list[str]]
    foot: list[list[str]]


def names_within(cells: Results) -> Callable[[CellResult], str]:
    """What names a cell among these cells of one model and workload: ``hf bf16 batch 8``."""
    names = short_names(columns_of(cells))
    return lambda cell: batch_label(names[cell.column], cell.batch_size)


def cell_text(cell: CellResult, figure: Figure) -> str:
    """A cell in the table of a figure: the figures side by side, the interval of the first, and marks; ``oom`` if it
    did not fit, ``n/a`` if device or library do not support the precision, blank without a record, in a preview also
    ``failed`` or ``refused``."""
    if text := figures_text(cell, figure):
        return text + width_text(cell, figure) + marks(cell, *table_of(figure))
    return cell.outcome if cell.outcome in UNFINISHED else cell.ending


def figures_text(cell: CellResult, figure: Figure) -> str:
    """The figures in the table of a figure, side by side; blank for a cell without the first."""
    texts = [_figure_text(cell, each) for each in table_of(figure)]
    return " | ".join(filter(None, texts)) if texts[0] else ""


def _figure_text(cell: CellResult, figure: Figure) -> str:
    if cell.is_limit_unknown(figure):
        return "?"
    text = figure.text(cell.value(figure.name))
    return f"{text} {cell.bound_by[figure.phase][0]}" if text and figure.phase else text


def width_text(cell: CellResult, figure: Figure) -> str:
    """`` ±1.2%`` to print behind a figure; `` ±?`` where its interval is unknown. Blank for a figure without an
    interval, for published figures, whose samples are unknown, and without a value."""
    estimate = cell.figures.get(figure.name)
    if estimate is None:
        return ""
    if estimate.half_width is not None:
        return f" ±{format_half_width(estimate.half_width)}"
    return " ±?" if figure.interval and "cycles" in cell.figures else ""


def marks(cell: CellResult, *figures: Figure) -> str:
    """The marks behind figures that are printed side by side."""
    flagged = any(getattr(cell, warnings) for figure in figures for warnings in figure.warnings)
    return UNSTABLE * any(map(cell.is_unstable, figures)) + FLAGGED * flagged


def agreement_text(cell: CellResult) -> str:
    """How far the answers are those of hf in fp32; blank where they were not compared."""
    agreement, error = cell.value("token_agreement"), cell.value("logits_error_mean")
    if agreement is None:
        return ""
    error_text = "n/a" if error is None else format(error, BY_NAME["logits_error_mean"].spec)
    return f"{BY_NAME['token_agreement'].text(agreement)} | {error_text}"


def tooltip(cell: CellResult) -> dict[str, str]:
    """The tooltip of its point in a chart: every figure, and the evidence for them, by name and without blank ones."""
    memory = BY_NAME["memory_share"]
    lines = {figure.title.lower(): _tooltip_text(cell, figure) for figure in PERFORMANCE} | {
        memory.title: memory.text(cell.value(memory.name)),
        "samples": _samples(cell),
        "not stable": ", ".join(cell.unstable_because),
        "flags": ", ".join(cell.flags),
        "ended during": cell.reason_phase,
        "record": cell.record,
    }
    return {name: text for name, text in lines.items() if text}


def _tooltip_text(cell: CellResult, figure: Figure) -> str:
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
