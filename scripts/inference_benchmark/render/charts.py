"""What charts show: the figures of one model, over an axis, as points of named lines. drawing.py draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from inference_benchmark.analysis.figures import BY_NAME, PERFORMANCE, Figure
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.render import choosing, palette
from inference_benchmark.render.baseline_columns import baseline_heading, compared_cells
from inference_benchmark.render.context import BATCH_SIZE, PROMPT_TOKENS, Axis
from inference_benchmark.render.texts import tooltip
from inference_benchmark.results.cell_result import CellResult, Results
from inference_benchmark.results.column import Column, short_names

#: Lines of the same colour; those of baselines.
_DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2))
BASELINE_DASH = (1, 3)


class Chart(NamedTuple):
    """A figure over an axis, or over another figure with a point per batch size. name: in the names of files. note:
    below the chart. linear_below: x is logarithmic from this value on, and linear below, where it may be 0."""

    name: str
    heading: str
    y: Figure
    x: Axis | Figure = BATCH_SIZE
    note: str = ""
    linear_below: float | None = None

    @property
    def in_files(self) -> bool:
        """Whether it has files for a README, which are drawn even where nothing was measured."""
        return self.x is BATCH_SIZE and self.y.headline


_OVER_BATCH_SIZE = [Chart(figure.key, figure.title, figure) for figure in PERFORMANCE if figure.has_chart]
_FRONTIER = Chart(
    "frontier",
    "Throughput against time per output token",
    y=BY_NAME["throughput_tok_per_s"],
    x=BY_NAME["time_per_output_token_s"],
    note="A point per batch size. Higher: more tokens for all rows together. Further left: faster for each row. The "
    "grey line is the frontier: for each point below it another is better in both.",
)
_QUALITY = Chart(
    "quality",
    "Throughput against divergence from hf fp32 over the text",
    y=BY_NAME["throughput_tok_per_s"],
    x=BY_NAME["text_kl_mean_nats"],
    note="A point per batch size. Further left: answers more like those of hf in fp32, which is itself at 0. The grey "
    "line is the frontier: for each point below it another is faster, with better answers.",
    linear_below=1e-4,
)
CHARTS = (*_OVER_BATCH_SIZE[:2], _FRONTIER, _QUALITY, *_OVER_BATCH_SIZE[2:])
#: At one batch size. Without the latency, which at a fixed number of new tokens is the inverse of the throughput.
CONTEXT_CHARTS = [each._replace(x=PROMPT_TOKENS) for each in _OVER_BATCH_SIZE if each.y is not BY_NAME["latency_s"]]
#: The figures that points carry: those of charts, and those that the page chooses by.
_PLOTTED = dict.fromkeys(
    [*(each for chart in CHARTS for each in (chart.y, chart.x) if isinstance(each, Figure)), *choosing.SHOWN]
)


@dataclass(frozen=True)
class Line:
    """A line of every chart of a section of the page, and its entry in the legend. colour: its index in a palette."""

    name: str
    colour: int
    dash: tuple[int, ...]
    baseline: bool = False


def nth_line(index: int, name: str) -> Line:
    """A colour of its own as long as there are any, then once more with another dash. index: from 0."""
    dash, colour = divmod(index, len(palette.PAGE.series))
    return Line(name, colour, _DASHES[dash % len(_DASHES)])


@dataclass(frozen=True)
class ChartData:
    """What charts show that are drawn together, such as those of one model and workload.

    where: the model, workload and machine, for a person. points: for each cell and line the name of the line as
    ``series``, batch_size, outcome, every plotted figure in its unit, tooltip, and where there are any, names of
    warnings; baseline where it is one; over another axis also the cell's place on it. reference_lines: (value, label)
    by the name of their figure.
    """

    where: str
    lines: Sequence[Line]
    points: Sequence[Mapping[str, Any]]
    reference_lines: Mapping[str, tuple[float, str]]

    def has(self, chart: Chart) -> bool:
        """Whether there is anything to draw."""
        return any(chart.y.name in point and chart.x.name in point for point in self.points)


def chart_data(cells: Results, comparisons: Sequence[Comparison] = ()) -> ChartData:
    """The cells of one model and workload, with baselines."""
    by_column = _lines(cell.column for cell in cells)
    lines = {line.name: line for line in by_column.values()}
    points = _points(cells, by_column)
    colours = {column.precision: line.colour for column, line in reversed(by_column.items())}
    for comparison in comparisons:
        of_baseline: dict[tuple[str, int], dict[str, Any]] = {}
        for compared in compared_cells(cells, comparison):
            name, size = " ".join(baseline_heading(comparison, compared)), compared.new.batch_size
            lines.setdefault(name, Line(name, colours[compared.new.column.precision], BASELINE_DASH, baseline=True))
            of_baseline[name, size] = {**_point(compared.base, name), "batch_size": size, "baseline": True}
        points += of_baseline.values()
    column = cells[0].column
    where = f"{column.model}, {column.workload}, on {cells[0].machine}"
    return ChartData(where, list(lines.values()), points, _reference_lines(cells))


def context_data(cells: Results, batch_size: int) -> ChartData:
    """What charts over the prompt length show at one batch size, without baselines. cells: of one model and number of
    new tokens, at all batch sizes: each column has the same line in all these charts."""
    lines = _lines(map(PROMPT_TOKENS.column, cells))
    here = [cell for cell in cells if cell.batch_size == batch_size]
    column = cells[0].column
    where = f"{column.model}, batch size {batch_size}, {column.new_tokens} new tokens, on {cells[0].machine}"
    return ChartData(where, list(lines.values()), _points(here, lines, PROMPT_TOKENS), _reference_lines(here))


def _lines(columns: Iterable[Column]) -> dict[Column, Line]:
    """The line of each column."""
    return {column: nth_line(n, name) for n, (column, name) in enumerate(short_names(columns).items())}


def _points(cells: Iterable[CellResult], lines: Mapping[Column, Line], axis: Axis = BATCH_SIZE) -> list[dict[str, Any]]:
    """The points of the cells that have a record."""
    having = [cell for cell in cells if cell.is_measured or cell.ending]
    return [{**_point(cell, lines[axis.column(cell)].name), axis.name: axis.place(cell)} for cell in having]


def _point(cell: CellResult, line: str) -> dict[str, Any]:
    """A point with the plotted figures of its cell in their units. They are rounded to the digits that can be seen: a
    page of thousands of cells carries them all."""
    outcome = cell.ending or cell.outcome
    point = {"series": line, "batch_size": cell.batch_size, "outcome": outcome, "tooltip": tooltip(cell)}
    if cell.warnings:
        point["warnings"] = list(cell.warnings)
    for figure in _PLOTTED:
        for column, value in zip(figure.columns, cell.figures.get(figure.name, ()), strict=False):
            if value is not None:
                point[column] = float(f"{value * figure.scale:.6g}")
    return point


def _reference_lines(cells: Results) -> dict[str, tuple[float, str]]:
    """The memory that a cell may take: of the device or the host, or its limit on a device."""
    capacities = [
        min(cell.value("device_total_bytes"), cell.memory_limit_bytes or math.inf)
        if "device_total_bytes" in cell.figures
        else cell.value("peak_rss_bytes") / cell.value("memory_share")
        for cell in cells
        if "memory_share" in cell.figures
    ]
    memory = BY_NAME["peak_memory_bytes"]
    return {memory.name: (max(capacities) * memory.scale, "capacity")} if capacities else {}
