"""What charts show: the figures of one model and workload as points of named series. drawing.py draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas

from inference_benchmark.analysis.figures import BY_NAME, FIGURES, Figure
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.render.baseline_columns import baseline_name, compared_cells
from inference_benchmark.render.columns import ENDINGS, Row, Rows, column_names, column_of, value_of, warnings_of
from inference_benchmark.render.tooltips import baseline_tooltip, tooltip

#: Lines of different engines; those of baselines.
DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2))
BASELINE_DASH = (1, 3)


class Chart(NamedTuple):
    """A figure over the batch size or, where x is given, over another figure, with a point per batch size.

    name: in the names of files. note: below the chart.
    """

    name: str
    heading: str
    y: Figure
    x: Figure | None = None
    note: str = ""

    @property
    def in_files(self) -> bool:
        """Whether it has files for a README, which are drawn even where nothing was measured."""
        return self.x is None and self.y.headline


_OVER_BATCH_SIZE = [Chart(figure.key, figure.title, figure) for figure in FIGURES if figure.has_chart]
FRONTIER = Chart(
    "frontier",
    "Throughput against time per output token",
    y=BY_NAME["throughput_tok_per_s"],
    x=BY_NAME["time_per_output_token_s"],
    note="A point per batch size. Higher: more tokens for all rows together. Further left: faster for each row.",
)
CHARTS = (*_OVER_BATCH_SIZE[:2], FRONTIER, *_OVER_BATCH_SIZE[2:])
#: The figures that are plotted.
_PLOTTED = tuple(dict.fromkeys(figure for chart in CHARTS for figure in (chart.y, chart.x) if figure))


@dataclass(frozen=True)
class Series:
    """A line of every chart of one model and workload, and its entry in the legend. colour: its index in a palette."""

    name: str
    colour: int
    dash: tuple[int, ...]
    baseline: bool = False


@dataclass(frozen=True)
class ChartData:
    """What the charts of one model and workload show.

    where: the model, workload and machine, for a person. points: for each cell and series its name, batch_size,
    outcome, every plotted figure in its unit, tooltip, and where there are any, names of warnings; baseline where it is
    one. reference_lines: (value, label) by the name of their figure.
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
    names = column_names(rows)
    engines = list(dict.fromkeys(engine for engine, _, _ in names))
    kinds = list(dict.fromkeys((precision, variant) for _, precision, variant in names))
    series = {
        name: Series(name, kinds.index((precision, variant)), DASHES[engines.index(engine) % len(DASHES)])
        for (engine, precision, variant), name in names.items()
    }
    outcomes = {"ok", *ENDINGS}
    points = [_point(row, names[column_of(row)]) for row in rows if row["outcome"] in outcomes]
    for comparison in comparisons:
        of_baseline: dict[tuple[str, int], dict[str, Any]] = {}
        for (_, precision, size), cell in compared_cells(rows, comparison).items():
            name = baseline_name(comparison, cell)
            colour = next(kinds.index(kind) for kind in kinds if kind[0] == precision)
            series.setdefault(name, Series(name, colour, BASELINE_DASH, baseline=True))
            outcome = ENDINGS.get(cell.base_outcome, cell.base_outcome)
            point = {"series": name, "batch_size": size, "outcome": outcome, "tooltip": baseline_tooltip(cell)}
            of_baseline[name, size] = point | {"baseline": True} | _plotted(cell.base)
        points += of_baseline.values()
    first = rows[0]
    capacities = [_capacity_bytes(row) for row in rows if not pandas.isna(row["memory_share"])]
    memory = BY_NAME["peak_memory_bytes"]
    return ChartData(
        where=f"{first['model']}, {first['workload']}, on {first['machine']}",
        series=list(series.values()),
        points=points,
        reference_lines={memory.name: (max(capacities) * memory.scale, "capacity")} if capacities else {},
    )


def _point(row: Row, series: str) -> dict[str, Any]:
    outcome = ENDINGS.get(row["outcome"], row["outcome"])
    point = {"series": series, "batch_size": row["batch_size"], "outcome": outcome, "tooltip": tooltip(row)}
    if warnings := warnings_of(row):
        point["warnings"] = warnings
    return point | (_plotted(row) if outcome == "ok" else {})


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
