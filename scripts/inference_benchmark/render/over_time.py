"""Charts over time: a figure in many result sets, and the speed of a machine over its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference_benchmark.analysis.figures import Figure
from inference_benchmark.analysis.yardstick import NAMES, TOLERANCE
from inference_benchmark.render import vega
from inference_benchmark.render.charts import ChartData
from inference_benchmark.render.drawing import HIDDEN, figure_layers, line_colours, scale_and_axis
from inference_benchmark.render.palette import Palette
from inference_benchmark.render.vega import Spec, nominal, quantity

#: The ticks of an axis over hours, days or months, and of one over a run.
_DAYS = {
    **dict.fromkeys(("year", "quarter", "month"), "%Y-%m"),
    **dict.fromkeys(("week", "date", "day"), "%m-%d"),
    **dict.fromkeys(("hours", "minutes", "seconds"), "%H:%M"),
}
_CLOCK = {"hours": "%H:%M", "minutes": "%H:%M", "seconds": "%H:%M:%S"}


def figure_over_time(data: ChartData, steps: Sequence[str], figure: Figure, palette: Palette) -> str:
    """A figure with a line and intervals per line of the data, as an SVG element like that of vega.svg. data: its
    points have ``at``, an ISO date. steps: the dates of dashed lines across the chart."""
    place = {"x": _time("measured (UTC)", _DAYS), "y": quantity(figure.name, **scale_and_axis(figure, data))}
    dates = {"data": {"values": [{"at": at} for at in steps]}, "encoding": {"x": place["x"]}}
    layers = figure_layers(figure, [("y", figure)], place, line_colours(data, palette, legend=True))
    return _svg([dates | {"mark": vega.dashed(palette)}, *layers], data.points, vega.HEIGHT, palette)


def machine_speed(speeds: Sequence[Mapping[str, Any]], palette: Palette) -> str:
    """The speed of a machine over its run, as an SVG element like that of vega.svg. speeds: ``at`` and, for each kernel
    of the yardstick, the part of the median, from records.machine_speed."""
    slow = 1 - TOLERANCE
    colours = {"domain": list(NAMES), "range": list(palette.series[: len(NAMES)])}
    drawn = {
        "x": _time("time (UTC)", _CLOCK),
        "y": quantity("share", title="% of the median", scale={"zero": True}, axis={"format": "%"}),
        "color": nominal("series", scale=colours, legend=vega.LEGEND),
    }
    limit = {"data": {"values": [{"limit": slow}]}, "encoding": {"y": quantity("limit")}}
    line, point = {"type": "line", "strokeWidth": 1.5}, {"type": "point", "filled": True, "opacity": 1, "size": 30}
    layers = [
        limit | {"mark": vega.dashed(palette)},
        {"mark": line, "encoding": drawn},
        # A point each would make the page of a large grid twice as large.
        {"transform": [{"filter": f"datum.share < {slow}"}], "mark": point, "encoding": drawn},
    ]
    points = [{"at": each["at"], "series": kernel, "share": each[kernel]} for each in speeds for kernel in NAMES]
    return _svg(layers, points, vega.HEIGHT // 2, palette)


def _time(title: str, formats: Mapping[str, str]) -> Spec:
    axis = {"grid": False, "tickCount": 8, "format": formats}
    return {"field": "at", "type": "temporal", "title": title, "scale": {"type": "utc"}, "axis": axis}


def _svg(layers: Sequence[Spec], points: Sequence[Mapping[str, Any]], height: int, palette: Palette) -> str:
    """Layers over the same points."""
    size = {"width": vega.WIDTH, "height": height}
    data = {"params": HIDDEN, "data": {"values": list(points)}, "layer": layers}
    return vega.svg({"$schema": vega.SCHEMA, **data, **size, "config": vega.config(palette)})
