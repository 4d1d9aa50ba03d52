"""What the page of a history shows: charts over time, the steps, and all figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from inference_benchmark.analysis.figures import COMPARED
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.compare.comparison import Difference
from inference_benchmark.compare.history import Entry, Series, Step
from inference_benchmark.compare.text import column_name
from inference_benchmark.render import drawing
from inference_benchmark.render.charts import DASHES, ChartData
from inference_benchmark.render.charts import Series as Line
from inference_benchmark.render.palette import LIGHT, PAGE
from inference_benchmark.units import format_figure, format_half_width

FIGURE = COMPARED["throughput"]
ENTRY_HEADINGS = ("result set", "measured from (UTC)", "kept in", "machine")
#: The facts of an entry that its row has.
FACTS = ("device", "driver", "torch", "transformers", "commit")
STEP_HEADINGS = ("where", "from", "to", "ratio", "95 % interval", "what changed")


class Section(NamedTuple):
    """The series of one machine, model and workload: a chart of the batch size with the most points, the largest of
    these, and a table of all."""

    title: str
    batch_size: int
    svg: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def sections(entries: Sequence[Entry], all_series: Sequence[Series], steps: Sequence[Step]) -> Iterator[Section]:
    """One for each machine, model and workload."""
    grids: dict[tuple[Any, ...], list[Series]] = {}
    for series in all_series:
        where = (series.machine, *(series.where[key] for key in ("model", "prompt_tokens", "new_tokens")))
        grids.setdefault(where, []).append(series)
    for (machine, model, prompt_tokens, new_tokens), members in grids.items():
        title = f"{model} prompt{prompt_tokens}-new{new_tokens} on {machine}"
        batch_sizes = Counter(series.where["batch_size"] for series in members for _ in series.points)
        batch_size = max(batch_sizes, key=lambda size: (batch_sizes[size], size))
        drawn = [series for series in members if series.where["batch_size"] == batch_size]
        shown = [entry for entry in entries if entry.results.name == machine]
        yield Section(
            title,
            batch_size,
            _chart(title, drawn, [step for step in steps if step.series in drawn]),
            ["cell", *map(entry_name, shown)],
            [[_cell_name(series), *_figures(series, shown)] for series in members],
        )


def entry_rows(entries: Sequence[Entry]) -> list[list[str]]:
    """A row for each entry, under ENTRY_HEADINGS and FACTS."""
    return [
        [
            f"#{each.number}",
            f"{each.date:%Y-%m-%d %H:%M}",
            each.name,
            each.results.name,
            *(_values(each.results.facts.get(name, ())) for name in FACTS),
        ]
        for each in entries
    ]


def step_rows(steps: Sequence[Step]) -> list[list[str]]:
    """A row for each step, under STEP_HEADINGS."""
    return [
        [
            f"{column_name(step.series.where)} batch {step.series.where['batch_size']} on {step.series.machine}",
            entry_name(step.before),
            entry_name(step.after),
            format_figure(step.ratio.value, ".3f"),
            f"{step.ratio.low:.3f} to {step.ratio.high:.3f}" if step.is_tested else "perhaps",
            "; ".join(map(_changed, step.changed)) or "no fact that the records know",
        ]
        for step in steps
    ]


def summary_line(entries: Sequence[Entry], all_series: Sequence[Series], steps: Sequence[Step]) -> str:
    """How much there is, in one line."""
    return f"Result sets: {len(entries)}; cells over time: {len(all_series)}; steps: {len(steps)}."


def entry_name(entry: Entry) -> str:
    """``#2 2026-01-02``"""
    return f"#{entry.number} {entry.date:%Y-%m-%d}"


def _chart(title: str, drawn: Sequence[Series], steps: Sequence[Step]) -> str:
    colours = len(LIGHT.series)
    lines = [
        Line(_line_name(series), index % colours, DASHES[index // colours % len(DASHES)])
        for index, series in enumerate(drawn)
    ]
    points = [
        {
            "series": line.name,
            "at": point.entry.date.isoformat(),
            **{name: end for name, end in zip(FIGURE.columns, point.cell.throughput, strict=True) if end is not None},
        }
        for line, series in zip(lines, drawn, strict=True)
        for point in series.points
    ]
    at_steps = dict.fromkeys(step.after.date.isoformat() for step in steps)
    return drawing.over_time(ChartData(title, lines, points, {}), list(at_steps), FIGURE, PAGE)


def _line_name(series: Series) -> str:
    where = {key: series.where[key] for key in ("engine", "environment", "precision")}
    return column_name(where)


def _cell_name(series: Series) -> str:
    return f"{_line_name(series)} batch {series.where['batch_size']}"


def _figures(series: Series, entries: Sequence[Entry]) -> list[str]:
    """The throughput in each entry; blank where it has none of its own."""
    by_entry = {id(point.entry): _figure(point.cell.throughput) for point in series.points}
    return [by_entry.get(id(entry), "") for entry in entries]


def _figure(throughput: Estimate) -> str:
    half_width = throughput.half_width
    return FIGURE.text(throughput.value) + ("" if half_width is None else f" {format_half_width(half_width)}")


def _changed(difference: Difference) -> str:
    return f"{difference.fact} {_values(difference.base)} → {_values(difference.new)}"


def _values(values: Sequence[Any]) -> str:
    return ", ".join("none" if value is None else str(value) for value in values)
