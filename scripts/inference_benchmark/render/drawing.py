"""How charts of cells are drawn: one Vega-Lite definition each, for a page with and without scripts, and for files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from inference_benchmark.analysis.figures import Figure
from inference_benchmark.render import vega
from inference_benchmark.render.charts import Chart, ChartData
from inference_benchmark.render.context import Axis
from inference_benchmark.render.palette import Palette
from inference_benchmark.render.vega import Spec, nominal, quantity

#: How far above the largest figure an axis goes for the end of an interval, as a part of that figure.
_REACH = 1.5
#: Of an axis with more values only powers of two have ticks.
_MOST_TICKS = 8
#: How far an axis goes beyond its first and last value, and how far behind the last the strip of what does not fit has
#: its middle and its end; as parts of the distance between the two.
_MARGIN, _STRIP_MIDDLE, _STRIP_END = 0.04, 0.1, 0.16
#: What a lane shows for a cell without a figure, and what it means.
LANE_SIGNS = {"oom": ("×", "out of memory"), "n/a": ("–", "not available")}
_PADDING = {"left": 25, "right": 20, "top": 5, "bottom": 5}
#: The parameters of a chart. Lines named in ``hidden`` were switched off.
HIDDEN = [{"name": "hidden", "value": []}]
_VISIBLE = "indexof(hidden, datum.series) < 0"
#: The page's tooltip gets the whole point.
_TOOLTIP = {"content": "data"}


def definition(chart: Chart, data: ChartData, palette: Palette, legend: bool = True) -> Spec:
    """A chart as Vega-Lite. Its data source is named ``cells`` and is not part of it: with_data puts the points in.
    Lines named in its parameter ``hidden`` are left out. legend: whether it has a title and legend of its own."""
    draw = _over_axis if isinstance(chart.x, Axis) else _over_figure
    title = {"text": chart.heading, "subtitle": data.where, "anchor": "start", "fontSize": 13, "offset": 8}
    return {
        "$schema": vega.SCHEMA,
        "description": f"{chart.heading}: {data.where}",
        **({"title": title} if legend else {}),
        "data": {"name": "cells"},
        "params": HIDDEN,
        "padding": _PADDING,
        **draw(chart, data, palette, line_colours(data, palette, legend)),
        "config": vega.config(palette),
    }


def with_data(spec: Spec, chart: Chart, data: ChartData) -> Spec:
    """The definition of a chart with its points, without their other figures and tooltips: these are most of them."""
    columns = {"series", "batch_size", "outcome", "baseline", *chart.y.columns, *chart.x.columns}
    cells = [{column: point[column] for column in columns & point.keys()} for point in data.points]
    return {**spec, "datasets": {"cells": cells}}


def figure_layers(
    shown: Figure, intervals: Iterable[tuple[str, Figure]], place: Spec, colours: Mapping[str, Spec]
) -> list[Spec]:
    """Lines, intervals and points of the visible points that have a figure.

    intervals: the figures whose intervals are drawn, each with its axis. place: the encoding of where a point is.
    colours: of line_colours, and what else only lines have.
    """
    layers = [_layer(shown, {"type": "line", "strokeWidth": 2}, place | colours)]
    place = place | {"color": colours["color"]}
    for axis, figure in intervals:
        ends = {axis: quantity(figure.low, title=place[axis]["title"]), f"{axis}2": {"field": figure.high}}
        layer = _layer(shown, {"type": "rule", "strokeWidth": 1.5, "clip": True}, place | ends)
        # No figure can be below zero, so no interval is drawn there. A logarithmic axis has no zero.
        above_zero = {"calculate": f"max(datum.{figure.low}, datum.{figure.name} / 100)", "as": figure.low}
        layer["transform"] += [{"filter": f"isValid(datum.{figure.low})"}, above_zero]
        layers.append(layer)
        if (most := place[axis]["scale"].get("domainMax")) is not None:
            edge = {"y": {"value": 0}} if axis == "y" else {"x": {"value": "width"}}
            arrow = {"type": "point", "shape": "triangle-up" if axis == "y" else "triangle-right", "filled": True}
            goes_on = _layer(shown, arrow | {"size": 40, "opacity": 1}, place | edge)
            goes_on["transform"].append({"filter": f"datum.{figure.high} > {most}"})
            layers.append(goes_on)
    # Points come last: a layer above them would take the pointer.
    size = {"condition": {"test": "datum.baseline", "value": 16}, "value": 45}
    mark = {"type": "point", "filled": True, "opacity": 1, "tooltip": _TOOLTIP}
    return [*layers, _layer(shown, mark, place | {"size": size})]


def scale_and_axis(figure: Figure, data: ChartData) -> Spec:
    """The scale is linear; a page may make it logarithmic. An interval that ends far above all figures runs out of the
    chart, with an arrow at its edge, or it would press them onto the axis."""
    columns = (figure.name, figure.high)
    largest, highest = (max((point.get(name, 0) for point in data.points), default=0) for name in columns)
    reach = {"domainMax": _REACH * largest} if highest > _REACH * largest > 0 else {}
    axis = {"format": "%"} if figure.is_share else {}
    return {"title": figure.unit, "scale": {"type": "linear", "zero": True, **reach}, "axis": axis}


def line_colours(data: ChartData, palette: Palette, legend: bool) -> dict[str, Spec]:
    """Colour and dash of a line."""
    names = [line.name for line in data.lines]
    entry = vega.LEGEND | {"columns": 3, "labelLimit": 300, "columnPadding": 30} if legend else None
    colours = [palette.series[line.colour] for line in data.lines]
    dashes = [list(line.dash) for line in data.lines]
    return {
        "color": nominal("series", scale={"domain": names, "range": colours}, legend=entry),
        "strokeDash": nominal("series", scale={"domain": names, "range": dashes}, legend=entry),
    }


def _layer(figure: Figure, mark: Spec, encoding: Spec) -> Spec:
    """A layer of the visible points that have a figure."""
    shown = f"isValid(datum.{figure.name}) && {_VISIBLE}"
    return {"transform": [{"filter": shown}], "mark": mark, "encoding": encoding}


def _over_figure(chart: Chart, data: ChartData, palette: Palette, colours: Mapping[str, Spec]) -> Spec:
    """A figure over another figure, with a point per batch size, joined in their order."""
    axes = [("y", chart.y), ("x", chart.x)]
    place = {axis: quantity(figure.name, **scale_and_axis(figure, data)) for axis, figure in axes}
    if chart.linear_below:
        place["x"] |= _mostly_logarithmic(chart.x, chart.linear_below, place["x"]["scale"], data)
    layers = figure_layers(chart.x, axes, place, colours | {"order": quantity("batch_size")})
    return {"layer": [_frontier(chart, place, palette), *layers], "width": vega.WIDTH, "height": vega.HEIGHT}


def _mostly_logarithmic(figure: Figure, linear_below: float, scale: Spec, data: ChartData) -> Spec:
    """A scale that is linear from 0 to a value, and its axis with a tick at that and at each power of ten beyond."""
    reaches_it = any(point.get(figure.name, 0) >= linear_below for point in data.points)
    ticks = {"values": [0, *(linear_below * 10**n for n in range(10))], "format": "~g"} if reaches_it else {}
    title = f"{figure.unit} (linear below {linear_below:g})"
    return {"title": title, "scale": scale | {"type": "symlog", "constant": linear_below, "nice": False}, "axis": ticks}


def _frontier(chart: Chart, place: Spec, palette: Palette) -> Spec:
    """The line of the visible points than which none is both higher and further left, without baselines."""
    x, y = chart.x.name, chart.y.name
    layer = _layer(chart.x, {"type": "line", "interpolate": "step-after", "color": palette.soft}, place)
    layer["transform"] += [
        {"filter": f"isValid(datum.{y}) && !datum.baseline"},
        {
            "window": [{"op": "max", "field": y, "as": "highest"}],
            "sort": [{"field": x}, {"field": y, "order": "descending"}],
            "frame": [None, 0],
        },
        {"filter": f"datum.highest == datum.{y}"},
    ]
    return layer


def _over_axis(chart: Chart, data: ChartData, palette: Palette, colours: Mapping[str, Spec]) -> Spec:
    """A figure over an axis, with a line and intervals per column. Below it a lane per column shows the cells without
    a figure: at zero they would look like a value. The axis ends with the last cell that fits; those beyond share a
    narrow strip."""
    within, beyond = _points(chart, data)
    values = sorted({point[chart.x.name] for point in within}) or [1]
    titled, strip = _axis(chart.x, values, beyond, palette)
    bare = titled | {"axis": titled["axis"] | {"title": None, "labels": False}}
    without = {point["series"] for point in within if point["outcome"] != "ok"}
    lanes = [line.name for line in data.lines if line.name in without]
    place = {"x": bare if lanes else titled, "y": quantity(chart.y.name, **scale_and_axis(chart.y, data))}
    layers = figure_layers(chart.y, [("y", chart.y)] if chart.y.interval else [], place, colours)
    layers += [*strip, *_reference_layers(chart, data, palette)]
    figures = {"layer": layers, "width": vega.WIDTH, "height": vega.HEIGHT}
    if not lanes:
        return {"vconcat": [figures]}
    panel = _lane_panel(lanes, values[-1], _signs(within), titled, colours["color"])
    # An SVG is laid out with the widths of Arial, 5.5 pixels for a letter. A reader's font may be wider by a quarter,
    # and labels grow to the left.
    left = max(_PADDING["left"], round(min(5.5 * max(map(len, lanes)), vega.LABEL_LIMIT) * 0.25))
    return {"vconcat": [figures, panel], "spacing": 4, "padding": _PADDING | {"left": left}}


def _axis(axis: Axis, values: list[int], beyond: list[Mapping[str, Any]], palette: Palette) -> tuple[Spec, list[Spec]]:
    """(the encoding of the place on an axis from the first to the last of these values, the layers of its strip)."""
    first, last = values[0], values[-1]
    powers = [2**n for n in range(30) if first <= 2**n <= last]
    ticks = values if len(values) <= _MOST_TICKS else powers or values
    length, strip, label = max(last / first, 2), [], ""
    domain = [first / length**_MARGIN, last * length**_MARGIN]
    if beyond:
        border, middle, domain[1] = domain[1], last * length**_STRIP_MIDDLE, last * length**_STRIP_END
        strip = _strip(beyond, border, middle, palette)
        least, *more = sorted({point[axis.name] for point in beyond})
        ticks, label = [*ticks, middle], f"{least}{'+' * bool(more)}"
    # With a format instead, two ticks that it makes equal would be one.
    labels = f"datum.value > {last} ? '{label}' : format(datum.value, 'd')"
    shown = {"title": axis.name.replace("_", " "), "values": ticks, "labelExpr": labels, "grid": False}
    scale = {"type": "log", "base": 2, "domain": domain, "nice": False}
    return quantity(axis.name, scale=scale, axis=shown), strip


def _points(chart: Chart, data: ChartData) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The points of the lines of a chart over an axis, up to the last place where a cell fits, and those beyond it. Of
    baselines only those that have its figure. If nothing fits, no point is beyond."""
    here = {line.name for line in data.lines if not line.baseline}
    here |= {point["series"] for point in data.points if chart.y.name in point}
    points = [point for point in data.points if point["series"] in here]
    last = max((point[chart.x.name] for point in points if point["outcome"] == "ok"), default=math.inf)
    beyond = [point for point in points if point[chart.x.name] > last]
    return [point for point in points if point[chart.x.name] <= last], beyond


def _signs(points: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Those of LANE_SIGNS that occur."""
    outcomes = {point["outcome"] for point in points}
    return {outcome: sign for outcome, sign in LANE_SIGNS.items() if outcome in outcomes}


def _lane_panel(lanes: list[str], last: int, signs: Mapping[str, tuple[str, str]], x: Spec, colour: Spec) -> Spec:
    """A row per line with a sign at each place without a figure, up to the last of the axis."""
    explained = "\u00a0\u00a0 ".join(map(" ".join, signs.values()))
    title = {"text": explained, "anchor": "end", "fontSize": 11, "fontWeight": "normal", "offset": 2}
    # In JSON a name stays text, whatever it holds.
    here = f"indexof({json.dumps(lanes)}, datum.series) >= 0 && datum.{x['field']} <= {last} && datum.outcome != 'ok'"
    chosen = f"{json.dumps({outcome: sign for outcome, (sign, _) in signs.items()})}[datum.outcome]"
    rows = nominal("series", title=None, scale={"domain": lanes}, sort=None, axis={"ticks": False})
    return {
        "transform": [{"filter": f"{here} && {_VISIBLE}"}, {"calculate": chosen, "as": "sign"}],
        "mark": {"type": "text", "fontSize": 12, "fontWeight": "bold", "tooltip": _TOOLTIP},
        "encoding": {"x": x, "y": rows, "text": nominal("sign"), "color": colour},
        "width": vega.WIDTH,
        "height": 16 * len(lanes),
        "title": title,
    }


def _strip(points: Iterable[Mapping[str, Any]], border: float, middle: float, palette: Palette) -> list[Spec]:
    """The layers of the strip for these points, which says why they have no figure."""
    text = " or ".join(meaning for _, meaning in _signs(points).values())
    rule = vega.dashed(palette) | {"color": palette.soft}
    label = {"type": "text", "angle": 270, "color": palette.soft, "text": text}
    return [
        {"data": {"values": [{}]}, "mark": mark, "encoding": {"x": {"datum": place, "type": "quantitative"}}}
        for mark, place in ((rule, border), (label, middle))
    ]


def _reference_layers(chart: Chart, data: ChartData, palette: Palette) -> list[Spec]:
    """The dashed line that belongs to a chart, with its label; none far above all values: it would flatten them."""
    value, label = data.reference_lines.get(chart.y.name, (None, ""))
    values = [point[chart.y.name] for point in data.points if chart.y.name in point]
    if value is None or not values or max(values) < 0.2 * value:
        return []
    at, y = {"data": {"values": [{"reference": value}]}}, quantity("reference")
    text = {"type": "text", "align": "left", "dx": 4, "dy": -5, "color": palette.ink, "x": 0}
    line = at | {"mark": vega.dashed(palette), "encoding": {"y": y}}
    return [line, at | {"mark": text, "encoding": {"y": y, "text": {"value": label}}}]
