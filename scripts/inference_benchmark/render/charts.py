"""What charts show: the figures of one model, over an axis, as points of named series. drawing.py draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas

from inference_benchmark.analysis.figures import BY_NAME, FIGURES, Figure
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.render import palette
from inference_benchmark.render.baseline_columns import baseline_name, compared_cells
from inference_benchmark.render.columns import (
    BATCH_SIZE,
    ENDINGS,
    PROMPT_TOKENS,
    Axis,
    Column,
    Row,
    Rows,
    column_names,
    column_of,
    value_of,
    warnings_of,
)
from inference_benchmark.render.tooltips import baseline_tooltip, tooltip

#: Lines of different engines; those of baselines.
DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2))
BASELINE_DASH = (1, 3)


class Chart(NamedTuple):
    """A figure over an axis, or over another figure with a point per batch size.

    name: in the names of files. note: below the chart.
    """

    name: str
    heading: str
    y: Figure
    x: Axis | Figure = BATCH_SIZE
    note: str = ""

    @property
    def in_files(self) -> bool:
        """Whether it has files for a README, which are drawn even where nothing was measured."""
        return self.x is BATCH_SIZE and self.y.headline


_OVER_BATCH_SIZE = [Chart(figure.key, figure.title, figure) for figure in FIGURES if figure.has_chart]
FRONTIER = Chart(
    "frontier",
    "Throughput against time per output token",
    y=BY_NAME["throughput_tok_per_s"],
    x=BY_NAME["time_per_output_token_s"],
    note="A point per batch size. Higher: more tokens for all rows together. Further left: faster for each row.",
)
CHARTS = (*_OVER_BATCH_SIZE[:2], FRONTIER, *_OVER_BATCH_SIZE[2:])
#: At one batch size. The latency is left out: with as many new tokens, it is the throughput upside down.
CONTEXT_CHARTS = tuple(
    chart._replace(x=PROMPT_TOKENS) for chart in _OVER_BATCH_SIZE if chart.y is not BY_NAME["latency_s"]
)
#: The figures that are plotted.
_PLOTTED = tuple(
    dict.fromkeys(figure for chart in CHARTS for figure in (chart.y, chart.x) if isinstance(figure, Figure))
)


@dataclass(frozen=True)
class Series:
    """A line of every chart of a section of the page, and its entry in the legend. colour: its index in a palette."""

    name: str
    colour: int
    dash: tuple[int, ...]
    baseline: bool = False


@dataclass(frozen=True)
class ChartData:
    """What charts show that are drawn together, such as those of one model and workload.

    where: the model, workload and machine, for a person. points: for each cell and series its name, batch_size,
    outcome, every plotted figure in its unit, tooltip, and where there are any, names of warnings; baseline where it is
    one; over another axis also the cell's place on it. reference_lines: (value, label) by the name of their figure.
    """

    where: str
    series: Sequence[Series]
    points: Sequence[Mapping[str, Any]]
    reference_lines: Mapping[str, tuple[float, str]]

    def has(self, chart: Chart) -> bool:
        """Whether there is anything to draw."""
        return any(chart.y.name in point for point in self.points)


def chart_data(rows: Rows, comparisons: Sequence[Comparison] = ()) -> ChartData:
    """The rows of one model and workload, with baselines."""
    columns = _series(rows)
    series = {each.name: each for each in columns.values()}
    points = _points(rows, columns)
    for comparison in comparisons:
        of_baseline: dict[tuple[str, int], dict[str, Any]] = {}
        for (column, size), cell in compared_cells(rows, comparison).items():
            name = baseline_name(comparison, cell)
            colour = next(each.colour for key, each in columns.items() if key.precision == column.precision)
            series.setdefault(name, Series(name, colour, BASELINE_DASH, baseline=True))
            outcome = ENDINGS.get(cell.base_outcome, cell.base_outcome)
            point = {"series": name, "batch_size": size, "outcome": outcome, "tooltip": baseline_tooltip(cell)}
            of_baseline[name, size] = point | {"baseline": True} | _plotted(cell.base)
        points += of_baseline.values()
    first = rows[0]
    where = f"{first['model']}, {first['workload']}, on {first['machine']}"
    return ChartData(where, list(series.values()), points, _reference_lines(rows))


def context_data(rows: Rows, batch_size: int) -> ChartData:
    """What charts over the prompt length show at one batch size, without baselines.

    rows: of one model and number of new tokens, at all batch sizes: each column has the same line in all these charts.
    """
    columns = _series(rows)
    # Column by column: what looks the same in a drawing is one path then.
    here = [row for column in columns for row in rows if row["batch_size"] == batch_size and column_of(row) == column]
    first = rows[0]
    where = f"{first['model']}, batch size {batch_size}, {first['new_tokens']} new tokens, on {first['machine']}"
    return ChartData(where, list(columns.values()), _points(here, columns, PROMPT_TOKENS), _reference_lines(here))


def _series(rows: Rows) -> dict[Column, Series]:
    """The line of each column: a colour per precision and variant, a dash per engine and environment. With more of the
    latter than dashes, as with several variants of engines, no two columns have both in common."""
    names = column_names(rows)
    engines = list(dict.fromkeys(column[:2] for column in names))
    kinds = list(dict.fromkeys(column[2:] for column in names))
    if len(engines) > len(DASHES):
        n_colours = len(palette.PAGE.series)
        return {
            column: Series(name, index % n_colours, DASHES[index // n_colours % len(DASHES)])
            for index, (column, name) in enumerate(names.items())
        }
    return {
        column: Series(name, kinds.index(column[2:]), DASHES[engines.index(column[:2])])
        for column, name in names.items()
    }


def _points(rows: Rows, series: Mapping[Column, Series], axis: Axis = BATCH_SIZE) -> list[dict[str, Any]]:
    """The points of the cells that have a record."""
    points = []
    for row in rows:
        if row["outcome"] == "ok" or row["outcome"] in ENDINGS:
            outcome = ENDINGS.get(row["outcome"], row["outcome"])
            point = {"series": series[column_of(row)].name, "batch_size": row["batch_size"], axis.name: row[axis.name]}
            point |= {"outcome": outcome, "tooltip": tooltip(row)}
            if warnings := warnings_of(row):
                point["warnings"] = warnings
            points.append(point | (_plotted(row) if outcome == "ok" else {}))
    return points


def _reference_lines(rows: Rows) -> dict[str, tuple[float, str]]:
    capacities = [_capacity_bytes(row) for row in rows if not pandas.isna(row["memory_share"])]
    memory = BY_NAME["peak_memory_bytes"]
    return {memory.name: (max(capacities) * memory.scale, "capacity")} if capacities else {}


def _plotted(row: Mapping[str, Any]) -> dict[str, float]:
    """The plotted figures of a row, or of a baseline's cell, in their units.

    Rounded to the digits that can be seen: a page of thousands of cells carries them all.
    """
    plotted = {}
    for figure in _PLOTTED:
        for column in figure.columns if value_of(row, figure) is not None else ():
            value = row.get(column)
            if value is not None and not pandas.isna(value):
                plotted[column] = float(f"{value * figure.scale:.6g}")
    return plotted


def _capacity_bytes(row: Row) -> float:
    """The memory that a cell may take: of the device or the host, or its limit on a device."""
    if pandas.isna(row["device_total_bytes"]):
        return row["peak_rss_bytes"] / row["memory_share"]
    limits = (row["device_total_bytes"], row["memory_limit_bytes"])
    return min(limit for limit in limits if not pandas.isna(limit))
