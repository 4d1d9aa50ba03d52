"""What the page of a history shows: charts over time, the steps, and all figures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from inference_benchmark.analysis.figures import COMPARED
from inference_benchmark.compare.history import CellHistory, Entry, Step
from inference_benchmark.render.charts import ChartData, nth_line
from inference_benchmark.render.context import grouped
from inference_benchmark.render.over_time import figure_over_time
from inference_benchmark.render.palette import PAGE
from inference_benchmark.render.texts import width_text
from inference_benchmark.results.column import batch_label
from inference_benchmark.units import format_figure

_FIGURE = COMPARED["throughput"]
ENTRY_HEADINGS = ("result set", "measured from (UTC)", "kept in", "machine")
FACTS = ("device", "driver", "torch", "transformers", "commit")
STEP_HEADINGS = ("where", "from", "to", "ratio", "95 % interval", "what changed")


def sections(
    entries: Sequence[Entry], histories: Sequence[CellHistory], steps: Sequence[Step]
) -> Iterator[dict[str, Any]]:
    """What the page shows of each machine, model and workload: a chart of the batch size with the most points, the
    largest of these, and a table of all."""
    for members in grouped(histories, lambda each: (each.machine, each.cell.column.grid)):
        machine, column = members[0].machine, members[0].cell.column
        title = f"{column.model} {column.workload} on {machine}"
        batch_sizes = Counter(history.cell.batch_size for history in members for _ in history.points)
        batch_size = max(batch_sizes, key=lambda size: (batch_sizes[size], size))
        drawn = [history for history in members if history.cell.batch_size == batch_size]
        shown = [entry for entry in entries if entry.results.name == machine]
        yield {
            "title": title,
            "batch_size": batch_size,
            "svg": _chart(title, drawn, [step for step in steps if step.history in drawn]),
            "headings": ["cell", *map(entry_name, shown)],
            "rows": [_row(each, shown) for each in members],
        }


def entry_rows(entries: Sequence[Entry]) -> list[list[str]]:
    """A row for each entry, under ENTRY_HEADINGS and FACTS."""
    rows = []
    for each in entries:
        facts = (_values(each.results.facts.get(name, ())) for name in FACTS)
        rows.append([f"#{each.number}", f"{each.date:%Y-%m-%d %H:%M}", each.name, each.results.name, *facts])
    return rows


def step_rows(steps: Sequence[Step]) -> list[list[str]]:
    """A row for each step, under STEP_HEADINGS."""
    rows = []
    for step in steps:
        where = f"{step.history.cell.label} on {step.history.machine}"
        interval = f"{step.ratio.low:.3f} to {step.ratio.high:.3f}" if step.is_tested else "perhaps"
        changed = (f"{each.fact} {_values(each.base)} → {_values(each.new)}" for each in step.changed)
        why = "; ".join(changed) or "no fact that the records know"
        between = entry_name(step.before), entry_name(step.after)
        rows.append([where, *between, format_figure(step.ratio.value, ".3f"), interval, why])
    return rows


def entry_name(entry: Entry) -> str:
    """``#2 2026-01-02 14:05``"""
    return f"#{entry.number} {entry.date:%Y-%m-%d %H:%M}"


def _chart(title: str, drawn: Sequence[CellHistory], steps: Sequence[Step]) -> str:
    lines, points = [], []
    for index, history in enumerate(drawn):
        lines.append(nth_line(index, history.cell.column.name))
        for point in history.points:
            ends = zip(_FIGURE.columns, point.throughput, strict=True)
            figures = {name: end for name, end in ends if end is not None}
            points.append({"series": lines[-1].name, "at": point.entry.date.isoformat(), **figures})
    at_steps = dict.fromkeys(step.after.date.isoformat() for step in steps)
    return figure_over_time(ChartData(title, lines, points, {}), list(at_steps), _FIGURE, PAGE)


def _row(history: CellHistory, entries: Sequence[Entry]) -> list[str]:
    """A cell, and its throughput in each entry; blank where it has none of its own."""
    by_entry = {}
    for point in history.points:
        by_entry[id(point.entry)] = _FIGURE.text(point.throughput.value) + width_text(point.cell, _FIGURE)
    name = batch_label(history.cell.column.name, history.cell.batch_size)
    return [name, *(by_entry.get(id(entry), "") for entry in entries)]


def _values(values: Sequence[Any]) -> str:
    return ", ".join("none" if value is None else str(value) for value in values)
