"""Charts over time: a figure in many result sets, and the speed of a machine over its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference_benchmark.analysis.figures import Figure
from inference_benchmark.analysis.yardstick import NAMES, TOLERANCE
from inference_benchmark.render import vega
from inference_benchmark.render.charts import ChartData
from inference_benchmark.render.drawing import figure_layers, line_colours, scale_and_axis
from inference_benchmark.render.palette import Palette
from inference_benchmark.render.vega import Spec, nominal, quantity

#: The axis of a chart over hours, days or months.
_DAYS = {
    "grid": False,
    "tickCount": 8,
    "labelOverlap": True,
    "format": {
        **dict.fromkeys(("year", "quarter", "month"), "%Y-%m"),
        **dict.fromkeys(("week", "date", "day"), "%m-%d"),
        **dict.fromkeys(("hours", "minutes", "seconds"), "%H:%M"),
    },
}
_CLOCK = {"grid": False, "tickCount": 8, "format": {"hours": "%H:%M", "minutes": "%H:%M", "seconds": "%H:%M:%S"}}


def figure_over_time(data: ChartData, steps: Sequence[str], figure: Figure, palette: Palette) -> str:
    """A figure with a line and intervals per line of the data, as an SVG element like that of vega.svg.

    data: its points have ``at``, an ISO date. steps: the dates of dashed lines across the chart.
    """
    place = {"x": _time("measured (UTC)", _DAYS), "y": quantity(figure.name, **scale_and_axis(figure, data))}
    at_steps = {"data": {"values": [{"at": at} for at in steps]}, "encoding": {"x": place["x"]}}
    layers = figure_layers(figure, [("y", figure)], place, line_colours(data, palette, legend=True), data)
    return vega.svg(
        {
            "params": [{"name": "hidden", "value": []}],
            "layer": [at_steps | {"mark": vega.dashed(palette)}, *layers],
            **_panel(data.points, vega.HEIGHT, palette),
        }
    )


def machine_speed(speeds: Sequence[Mapping[str, Any]], palette: Palette) -> str:
    """The speed of a machine over its run, as an SVG element like that of vega.svg.

    speeds: ``at`` and, for each kernel of the yardstick, the part of the machine's best, from records.machine_speed.
    """
    slow = 1 - TOLERANCE
    colours = {"domain": list(NAMES), "range": list(palette.series[: len(NAMES)])}
    drawn = {
        "x": _time("time (UTC)", _CLOCK),
        "y": quantity("share", title="% of the best", scale={"domain": [0, 1]}, axis={"format": "%"}),
        "color": nominal(
            "series", scale=colours, legend={"title": None, "orient": "top", "symbolType": "stroke", "symbolSize": 500}
        ),
    }
    limit = {"data": {"values": [{"limit": slow}]}, "encoding": {"y": quantity("limit")}}
    points = [{"at": each["at"], "series": kernel, "share": each[kernel]} for each in speeds for kernel in NAMES]
    return vega.svg(
        {
            "layer": [
                limit | {"mark": vega.dashed(palette)},
                {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": drawn},
                # A point each would make the page of a large grid twice as large.
                {
                    "transform": [{"filter": f"datum.share < {slow}"}],
                    "mark": {"type": "point", "filled": True, "opacity": 1, "size": 30},
                    "encoding": drawn,
                },
            ],
            **_panel(points, vega.HEIGHT // 2, palette),
        }
    )


def _time(title: str, axis: Spec) -> Spec:
    return {"field": "at", "type": "temporal", "title": title, "scale": {"type": "utc"}, "axis": axis}


def _panel(points: Sequence[Mapping[str, Any]], height: int, palette: Palette) -> Spec:
    return {
        "$schema": vega.SCHEMA,
        "data": {"values": list(points)},
        "width": vega.WIDTH,
        "height": height,
        "config": vega.config(palette),
    }
