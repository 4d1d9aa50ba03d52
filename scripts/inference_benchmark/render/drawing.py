"""How charts are drawn: one Vega-Lite definition each, for a page, for a page without scripts, and for files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.analysis.figures import Figure
from inference_benchmark.analysis.yardstick import NAMES, TOLERANCE
from inference_benchmark.render.charts import Chart, ChartData
from inference_benchmark.render.columns import Axis
from inference_benchmark.render.palette import Palette

#: A chart or a part of one as Vega-Lite. A test holds whole charts to its schema.
Spec = dict[str, Any]

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_WIDTH, _HEIGHT, _LANE = 520, 260, 16
#: How far above the largest figure an axis goes for the end of an interval, as a part of that figure.
_REACH = 1.5
#: An SVG is laid out with the widths of Arial; a reader's font may be wider by this part, and labels grow to the left.
_WIDER = 0.25
#: Of labels, in pixels at Arial's widths: where they are shortened, and a letter.
_LABEL_LIMIT, _LETTER = 200, 5.5
#: What a lane shows for a cell without a figure, and what it means.
LANE_SIGNS = {"oom": ("×", "out of memory"), "n/a": ("–", "not available")}
#: A reference line is drawn where some value is at least this part of it; else it would flatten all curves.
_DRAWN_SHARE = 0.2
#: Series named in the parameter ``hidden`` were switched off.
_VISIBLE = "indexof(hidden, datum.series) < 0"
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
#: The page's tooltip gets the whole point.
_TOOLTIP = {"content": "data"}


#: A point; a straight line; several of the same look, one after the other; and attributes and elements that a browser
#: or page.css makes needless. Drawn one by one, and with all of them, a page of many charts would be twice the size.
_POINT = re.compile(r'<path transform="translate\(([\d.]+),([\d.]+)\)" d="M([\d.]+),0A[^"]*" fill="([^"]*)"[^>]*/>')
_LINE = re.compile(r'<line(?: transform="translate\(([^,]+),([^)]+)\)")? ([xy])2="([^"]+)"([^>]*)/>')
_ALIKE = re.compile(r'<path d="[^"]*"([^>]*)/>(?:<path d="[^"]*"\1/>)+')
_LONG_NUMBER = re.compile(r"\d+\.\d{2,}")
_NEEDLESS = re.compile(
    r'<path class="background"[^>]*/>| (?:role|class|aria-[a-z]+|pointer-events|font-family)="[^"]*"'
    r'| opacity="1"| stroke-width="1"| [xy]2="0"| transform="translate\(0,0\)"| font-weight="normal"'
    r'| (?:stroke|fill)="var\(--ink\)"| font-size="10px"|<path[^>]* d=""[^>]*/>'
)


def definition(chart: Chart, data: ChartData, palette: Palette, legend: bool = True) -> Spec:
    """A chart as Vega-Lite. Its data source is named ``cells`` and is not part of it: with_data puts the points in.

    Series named in its parameter ``hidden`` are left out. legend: whether it has a title and legend of its own.
    """
    draw = _over_axis if isinstance(chart.x, Axis) else _over_figure
    description = f"{chart.heading}: {data.where}"
    title = {"text": description, "anchor": "start", "fontSize": 13, "color": palette.ink}
    return {
        "$schema": _SCHEMA,
        "description": description,
        **({"title": title} if legend else {}),
        "data": {"name": "cells"},
        "params": [{"name": "hidden", "value": []}],
        **draw(chart, data, palette, legend),
        "padding": {"left": _left_of_labels(chart, data), "right": 20, "top": 5, "bottom": 5},
        "config": _config(palette),
    }


def with_data(spec: Spec, chart: Chart, data: ChartData) -> Spec:
    """The definition of a chart with its points, without their other figures and tooltips: these are most of them."""
    columns = {"series", "batch_size", "outcome", *chart.y.columns, *chart.x.columns}
    cells = [{name: point[name] for name in columns & point.keys()} for point in data.points]
    return {**spec, "datasets": {"cells": cells}}


def svg(spec: Spec) -> str:
    """A definition with its data as an SVG element that fills the width it is given, with page.css and no script."""
    import vl_convert

    text = vl_convert.vegalite_to_svg(spec)
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)"', r"\1", text, count=1)
    # Places and lengths, never what is written at an axis or in a lane.
    text = re.sub(r"<[^>]*>", lambda tag: _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.1f}", tag[0]), text)
    text = _NEEDLESS.sub("", _POINT.sub(_dot, text))
    return _ALIKE.sub(_one_path, _LINE.sub(_straight, text))


def _dot(point: re.Match[str]) -> str:
    """A point as a line of no length with round ends."""
    x, y, radius, colour = point.groups()
    return f'<path d="M{x},{y}h0" stroke="{colour}" stroke-width="{2 * float(radius):.1f}" stroke-linecap="round"/>'


def _straight(line: re.Match[str]) -> str:
    x, y, along, length, look = line.groups("0")
    return f'<path d="M{x},{y}{"h" if along == "x" else "v"}{length}"{look}/>'


def _one_path(paths: re.Match[str]) -> str:
    way = "".join(re.findall(r' d="([^"]*)"', paths[0]))
    return f'<path d="{way}"{paths[1]}/>'


def machine_speed(over_time: Sequence[Mapping[str, Any]], palette: Palette) -> str:
    """The speed of a machine over its run, as an SVG element like that of svg.

    over_time: ``at`` and, for each kernel of the yardstick, the part of the machine's best, from records.machine_speed.
    """
    points = [{"at": each["at"], "series": name, "share": each[name]} for each in over_time for name in NAMES]
    slow = 1 - TOLERANCE
    colours = {"domain": list(NAMES), "range": list(palette.series[: len(NAMES)])}
    legend = {"title": None, "orient": "top", "symbolType": "stroke", "symbolSize": 500}
    clock = {"grid": False, "tickCount": 8, "format": {"hours": "%H:%M", "minutes": "%H:%M", "seconds": "%H:%M:%S"}}
    drawn = {
        "x": {"field": "at", "type": "temporal", "title": "time (UTC)", "scale": {"type": "utc"}, "axis": clock},
        "y": _quantity("share", title="% of the best", scale={"domain": [0, 1]}, axis={"format": "%"}),
        "color": _name("series", scale=colours, legend=legend),
    }
    limit = {"data": {"values": [{"limit": slow}]}, "encoding": {"y": _quantity("limit")}}
    panel = {
        "$schema": _SCHEMA,
        "data": {"values": points},
        "layer": [
            limit | {"mark": {"type": "rule", "strokeDash": [4, 4], "color": palette.ink}},
            {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": drawn},
            # A point each would make the page of a large grid twice as large.
            {
                "transform": [{"filter": f"datum.share < {slow}"}],
                "mark": {"type": "point", "filled": True, "opacity": 1, "size": 30},
                "encoding": drawn,
            },
        ],
        "width": _WIDTH,
        "height": _HEIGHT // 2,
        "config": _config(palette),
    }
    return svg(panel)


def over_time(data: ChartData, steps: Sequence[str], figure: Figure, palette: Palette) -> str:
    """A figure over time with a line and intervals per series, as an SVG element like that of svg.

    data: its points have ``at``, an ISO date. steps: the dates of dashed lines across the chart.
    """
    place = {
        "x": {"field": "at", "type": "temporal", "title": "measured (UTC)", "scale": {"type": "utc"}, "axis": _DAYS},
        "y": _quantity(figure.name, **_scale_and_axis(figure, data)),
    }
    at_steps = {"data": {"values": [{"at": at} for at in steps]}, "encoding": {"x": place["x"]}}
    colours = _series_encodings(data, palette, legend=True)
    ends = {"y": _quantity(figure.low), "y2": {"field": figure.high}}
    panel = {
        "$schema": _SCHEMA,
        "params": [{"name": "hidden", "value": []}],
        "data": {"values": list(data.points)},
        "layer": [
            at_steps | {"mark": {"type": "rule", "strokeDash": [4, 4], "color": palette.ink}},
            _measured(figure, {"type": "line", "strokeWidth": 2}, place | colours),
            _interval(figure, figure, place | ends | {"color": colours["color"]}),
            _points(figure, data, place | {"color": colours["color"]}),
        ],
        "width": _WIDTH,
        "height": _HEIGHT,
        "config": _config(palette),
    }
    return svg(panel)


def save(chart: Chart, data: ChartData, palette: Palette, stem: Path) -> None:
    """The chart as two files, .svg and .png."""
    import vl_convert

    spec = with_data(definition(chart, data, palette), chart, data) | {"background": palette.paper}
    files.write(vl_convert.vegalite_to_svg(spec), stem.with_name(f"{stem.name}.svg"))
    files.write(vl_convert.vegalite_to_png(spec, scale=2), stem.with_name(f"{stem.name}.png"))


# -- panels ----------------------------------------------------------------------------------------


def _over_axis(chart: Chart, data: ChartData, palette: Palette, legend: bool) -> Spec:
    """A figure over an axis, with a line and intervals per series. Below it a lane per series shows the cells without
    a figure: at zero they would look like a value."""
    values = sorted({point[chart.x.name] for point in data.points}) or [1]
    powers = [2**n for n in range(30) if values[0] <= 2**n <= values[-1]]
    ticks = values if chart.x.few else powers or values
    scale = {"type": "log", "base": 2, "domain": [values[0] * 0.9, values[-1] * 1.1], "nice": False}
    x = _quantity(chart.x.name, scale=scale)
    titled = x | {"axis": {"title": chart.x.title, "values": ticks, "format": "d", "grid": False}}
    bare = x | {"axis": {"title": None, "values": ticks, "labels": False, "grid": False}}
    lanes = _lanes(chart, data)
    colours = _series_encodings(data, palette, legend)
    layers = _curves(chart, data, bare if lanes else titled, colours)
    if (reference := _reference_line(chart, data)) is not None:
        layers += _reference_layers(*reference, palette)
    figures = {"layer": layers, "width": _WIDTH, "height": _HEIGHT}
    if not lanes:
        return {"vconcat": [figures]}
    return {"vconcat": [figures, _lane_panel(lanes, data, titled, colours["color"], palette)], "spacing": 4}


def _lanes(chart: Chart, data: ChartData) -> list[str]:
    """The series that have cells without a figure; of baselines only those that have a line in this chart."""
    here = {each.name for each in data.series if not each.baseline}
    here |= {point["series"] for point in data.points if chart.y.name in point}
    without = {point["series"] for point in data.points if point["outcome"] != "ok"}
    return [each.name for each in data.series if each.name in here & without]


def _left_of_labels(chart: Chart, data: ChartData) -> int:
    """Pixels to leave at the left, for the longest label of a lane in a wide font."""
    letters = max(map(len, _lanes(chart, data)), default=0) if isinstance(chart.x, Axis) else 0
    return max(25, round(min(_LETTER * letters, _LABEL_LIMIT) * _WIDER))


def _lane_panel(lanes: Sequence[str], data: ChartData, x: Spec, colour: Spec, palette: Palette) -> Spec:
    """A row per series with a sign at each place of the axis without a figure."""
    signs = {outcome: LANE_SIGNS[outcome] for outcome in LANE_SIGNS if outcome in {p["outcome"] for p in data.points}}
    explained = {
        "text": "\u00a0\u00a0 ".join(" ".join(each) for each in signs.values()),
        "anchor": "end", "fontSize": 11, "fontWeight": "normal", "color": palette.ink, "offset": 2,
    }  # fmt: skip
    chosen = " : ".join([*(f"datum.outcome == '{outcome}' ? '{sign}'" for outcome, (sign, _) in signs.items()), "''"])
    rows = _name("series", title=None, scale={"domain": list(lanes)}, sort=None, axis={"ticks": False})
    return {
        "transform": [
            {"filter": f"datum.outcome != 'ok' && {_among(lanes)} && {_VISIBLE}"},
            {"calculate": chosen, "as": "sign"},
        ],
        "mark": {"type": "text", "fontSize": 12, "fontWeight": "bold", "tooltip": _TOOLTIP},
        "encoding": {"x": x, "y": rows, "text": _name("sign"), "color": colour},
        "width": _WIDTH,
        "height": _LANE * len(lanes),
        "title": explained,
    }


def _among(names: Sequence[str]) -> str:
    """An expression: whether a point is of one of these series. In JSON a name stays text, whatever it holds."""
    return f"indexof({json.dumps(list(names))}, datum.series) >= 0"


def _curves(chart: Chart, data: ChartData, x: Spec, colours: Mapping[str, Spec]) -> list[Spec]:
    """Line, points and intervals of a figure over x."""
    figure = chart.y
    y = _quantity(figure.name, **_scale_and_axis(figure, data))
    layers = [_measured(figure, {"type": "line", "strokeWidth": 2}, {"x": x, "y": y, **colours})]
    if figure.interval:
        ends = {"y": _quantity(figure.low, title=figure.unit), "y2": {"field": figure.high}}
        layers.append(_interval(figure, figure, {"x": x, **ends, "color": colours["color"]}))
    # Points come last: a layer above them would take the pointer.
    return [*layers, _points(figure, data, {"x": x, "y": y, "color": colours["color"]})]


def _over_figure(chart: Chart, data: ChartData, palette: Palette, legend: bool) -> Spec:
    """A figure over another figure, with a point per batch size, joined in their order."""
    colours = _series_encodings(data, palette, legend)
    place = {
        axis: _quantity(figure.name, **_scale_and_axis(figure, data))
        for axis, figure in (("x", chart.x), ("y", chart.y))
    }
    layers = [
        _measured(chart.x, {"type": "line", "strokeWidth": 2}, place | colours | {"order": _quantity("batch_size")})
    ]
    for axis, figure in (("y", chart.y), ("x", chart.x)):
        ends = {axis: _quantity(figure.low), f"{axis}2": {"field": figure.high}}
        layers.append(_interval(chart.x, figure, place | ends | {"color": colours["color"]}))
    layers.append(_points(chart.x, data, place | {"color": colours["color"]}))
    return {"layer": layers, "width": _WIDTH, "height": _HEIGHT}


def _measured(figure: Figure, mark: Spec, encoding: Spec) -> Spec:
    """A layer of the visible points that have a figure."""
    return {
        "transform": [{"filter": f"isValid(datum.{figure.name}) && {_VISIBLE}"}],
        "mark": mark,
        "encoding": encoding,
    }


def _interval(figure: Figure, of: Figure, encoding: Spec) -> Spec:
    """A layer of the intervals of a figure, at the points that have the first figure."""
    layer = _measured(figure, {"type": "rule", "strokeWidth": 1.5, "clip": True}, encoding)
    return layer | {"transform": [*layer["transform"], {"filter": f"isValid(datum.{of.low})"}]}


def _points(figure: Figure, data: ChartData, encoding: Spec) -> Spec:
    """A layer of points, those of baselines small."""
    baselines = [each.name for each in data.series if each.baseline]
    size = {"condition": {"test": _among(baselines), "value": 16}, "value": 45}
    mark = {"type": "point", "filled": True, "opacity": 1, "tooltip": _TOOLTIP}
    return _measured(figure, mark, encoding | {"size": size})


def _quantity(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", **more}


def _name(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "nominal", **more}


def _scale_and_axis(figure: Figure, data: ChartData) -> Spec:
    """The scale is linear; a page may make it logarithmic. An interval that ends far above all figures runs out of the
    chart, or it would press them onto the axis."""
    axis = {"format": "%"} if figure.is_share else {}
    scale = {"type": "linear", "zero": True}
    largest, highest = (
        max((point.get(name) or 0 for point in data.points), default=0) for name in (figure.name, figure.high)
    )
    if highest > _REACH * largest > 0:
        scale["domainMax"] = _REACH * largest
    return {"title": figure.unit, "scale": scale, "axis": axis}


def _reference_layers(value: float, label: str, palette: Palette) -> list[Spec]:
    """A dashed line across the chart, and its label."""
    at = {"data": {"values": [{"reference": value}]}}
    y = _quantity("reference")
    text = {"type": "text", "align": "left", "dx": 4, "dy": -5, "color": palette.ink, "x": 0}
    return [
        at | {"mark": {"type": "rule", "strokeDash": [4, 4], "color": palette.ink}, "encoding": {"y": y}},
        at | {"mark": text, "encoding": {"y": y, "text": {"value": label}}},
    ]


def _reference_line(chart: Chart, data: ChartData) -> tuple[float, str] | None:
    """(value, label) of the line that belongs to a chart; None where it would be far above all values."""
    line = data.reference_lines.get(chart.y.name)
    values = [point[chart.y.name] for point in data.points if chart.y.name in point]
    return line if line and values and max(values) >= _DRAWN_SHARE * line[0] else None


# -- colours ---------------------------------------------------------------------------------------


def _series_encodings(data: ChartData, palette: Palette, legend: bool) -> dict[str, Spec]:
    """Colour and dash of a line: a colour per precision, a dash per engine, dots for baselines."""
    names = [each.name for each in data.series]
    entry = {
        "title": None, "orient": "top", "columns": 3, "labelLimit": 300, "columnPadding": 30,
        "symbolType": "stroke", "symbolSize": 500,
    } if legend else None  # fmt: skip
    colours = [palette.series[each.colour % len(palette.series)] for each in data.series]
    dashes = [list(each.dash) for each in data.series]
    return {
        "color": _name("series", scale={"domain": names, "range": colours}, legend=entry),
        "strokeDash": _name("series", scale={"domain": names, "range": dashes}, legend=entry),
    }


def _config(palette: Palette) -> Spec:
    return {
        "aria": False,  # a chart has a description; its figures can be read in the tables
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {
            "labelLimit": _LABEL_LIMIT,
            "gridColor": palette.grid,
            "titleFontWeight": "normal",
            "labelColor": palette.ink,
            "titleColor": palette.ink,
            "domainColor": palette.ink,
            "tickColor": palette.ink,
        },
        "axisLeft": {"titlePadding": 10},  # room for tick labels in a wider font
        "legend": {"labelColor": palette.ink},
    }
