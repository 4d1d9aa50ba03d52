"""How charts are drawn: one Altair definition each, for a page, for a page without scripts, and for files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair

from inference_benchmark import files
from inference_benchmark.analysis.figures import Figure
from inference_benchmark.render.charts import Chart, ChartData
from inference_benchmark.render.palette import Palette

_WIDTH, _HEIGHT, _LANE = 520, 260, 16
#: What a lane shows for a cell without a figure, and what it means.
LANE_SIGNS = {"oom": ("×", "out of memory"), "n/a": ("–", "not available")}
#: A reference line is drawn where some value is at least this part of it; else it would flatten all curves.
_DRAWN_SHARE = 0.2
#: Series named in the parameter ``hidden`` were switched off.
_VISIBLE = "indexof(hidden, datum.series) < 0"


#: A point of a line; and attributes that a browser or the page sets anyway. Without them a page of many charts is half
#: the size.
_CIRCLE = re.compile(r'<path transform="translate\(([\d.]+),([\d.]+)\)" d="M([\d.]+),0A[^"]*" fill="([^"]*)"[^>]*/>')
_LONG_NUMBER = re.compile(r"\d+\.\d{2,}")
_NEEDLESS = re.compile(
    r'<path class="background"[^>]*/>| (?:role|class|aria-[a-z]+|pointer-events|font-family)="[^"]*"'
    r'| opacity="1"| stroke-width="1"| [xy]2="0"| transform="translate\(0,0\)"| font-weight="normal"'
)


def definition(chart: Chart, data: ChartData, palette: Palette, legend: bool = True) -> dict[str, Any]:
    """A chart as Vega-Lite. Its data source is named ``cells`` and is not part of it: with_data puts the points in.

    Series named in its parameter ``hidden`` are left out. legend: whether it has a title and legend of its own.
    """
    draw = _over_batch_size if chart.x is None else _over_figure
    panel = draw(chart, data, palette, legend)
    description = f"{chart.heading}: {data.where}"
    if legend:
        panel = panel.properties(title=altair.Title(description, anchor="start", fontSize=13, color=palette.ink))
    panel = panel.properties(description=description).add_params(altair.param(name="hidden", value=[]))
    return _styled(panel, palette).to_dict(format="vega-lite")


def with_data(spec: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A definition with the points that it draws."""
    return {**spec, "datasets": {**spec.get("datasets", {}), "cells": list(points)}}


def svg(spec: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> str:
    """A definition as an SVG element that fills the width it is given and needs no script."""
    import vl_convert

    text = vl_convert.vegalite_to_svg(with_data(spec, points))
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)"', r"\1", text, count=1)
    # Places and lengths, never what is written at an axis or in a lane.
    text = re.sub(r"<[^>]*>", lambda tag: _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.1f}", tag[0]), text)
    text = _CIRCLE.sub(r'<circle cx="\1" cy="\2" r="\3" fill="\4"/>', text)
    return _NEEDLESS.sub("", text)


def save(chart: Chart, data: ChartData, palette: Palette, stem: Path) -> None:
    """The chart as two files, .svg and .png."""
    import vl_convert

    spec = with_data(definition(chart, data, palette), data.points) | {"background": palette.paper}
    files.write(vl_convert.vegalite_to_svg(spec), stem.with_name(f"{stem.name}.svg"))
    files.write(vl_convert.vegalite_to_png(spec, scale=2), stem.with_name(f"{stem.name}.png"))


# -- panels ----------------------------------------------------------------------------------------


def _over_batch_size(chart: Chart, data: ChartData, palette: Palette, legend: bool) -> altair.VConcatChart:
    """A figure over the batch size, with a line and intervals per series. Below it a lane per series shows the cells
    without a figure: at zero they would look like a value."""
    sizes = sorted({point["batch_size"] for point in data.points}) or [1]
    powers = [2**n for n in range(30) if sizes[0] <= 2**n <= sizes[-1]] or sizes
    lanes = _lanes(chart, data)

    def x(axis: altair.Axis) -> altair.X:
        scale = altair.Scale(type="log", base=2, domain=[sizes[0] * 0.9, sizes[-1] * 1.1], nice=False)
        return altair.X("batch_size:Q", scale=scale, axis=axis)

    titled = altair.Axis(title="batch size", values=powers, format="d", grid=False)
    bare = altair.Axis(title=None, values=powers, labels=False, grid=False)
    colours = _series_encodings(data, palette, legend)
    figures = _curves(chart, data, x(bare if lanes else titled), colours)
    if (reference := _reference_line(chart, data)) is not None:
        value, label = reference
        line = altair.Chart(altair.InlineData([{"reference": value}])).encode(y="reference:Q")
        text = line.mark_text(align="left", dx=4, dy=-5, color=palette.ink, x=0).encode(text=altair.value(label))
        figures += line.mark_rule(strokeDash=[4, 4], color=palette.ink) + text
    figures = figures.properties(width=_WIDTH, height=_HEIGHT)
    if not lanes:
        return altair.vconcat(figures)
    return altair.vconcat(figures, _lane_panel(lanes, data, x(titled), colours["color"], palette), spacing=4)


def _lanes(chart: Chart, data: ChartData) -> list[str]:
    """The series that have cells without a figure; of baselines only those that have a line in this chart."""
    here = {each.name for each in data.series if not each.baseline}
    here |= {point["series"] for point in data.points if chart.y.name in point}
    without = {point["series"] for point in data.points if point["outcome"] != "ok"}
    return [each.name for each in data.series if each.name in here & without]


def _lane_panel(
    lanes: Sequence[str], data: ChartData, x: altair.X, colour: altair.Color, palette: Palette
) -> altair.Chart:
    """A row per series with a sign at each batch size without a figure."""
    signs = {outcome: LANE_SIGNS[outcome] for outcome in LANE_SIGNS if outcome in {p["outcome"] for p in data.points}}
    explained = altair.Title(
        "   ".join(" ".join(each) for each in signs.values()),
        anchor="end", fontSize=11, fontWeight="normal", color=palette.ink, offset=2,
    )  # fmt: skip
    chosen = " : ".join([*(f"datum.outcome == '{outcome}' ? '{sign}'" for outcome, (sign, _) in signs.items()), "''"])
    rows = altair.Y("series:N", title=None, scale=altair.Scale(domain=lanes), sort=None, axis=altair.Axis(ticks=False))
    return (
        altair.Chart(altair.NamedData("cells"))
        .transform_filter(f"datum.outcome != 'ok' && {_among(lanes)} && {_VISIBLE}")
        .transform_calculate(sign=chosen)
        .mark_text(fontSize=12, fontWeight="bold", tooltip=altair.TooltipContent("data"))
        .encode(x=x, y=rows, text="sign:N", color=colour)
        .properties(width=_WIDTH, height=_LANE * len(lanes), title=explained)
    )


def _among(names: Sequence[str]) -> str:
    """An expression: whether a point is of one of these series. In JSON a name stays text, whatever it holds."""
    return f"indexof({json.dumps(list(names))}, datum.series) >= 0"


def _curves(chart: Chart, data: ChartData, x: altair.X, colours: Mapping[str, Any]) -> altair.LayerChart:
    """Line, points and intervals of a figure over x. The y scale is linear; a page may make it logarithmic."""
    y = altair.Y(f"{chart.y.name}:Q", **_scale_and_axis(chart.y))
    measured = _measured(chart.y)
    layers = [measured.mark_line(strokeWidth=2).encode(x=x, y=y, **colours)]
    if chart.y.interval:
        rules = measured.transform_filter(f"isValid(datum.{chart.y.low})").mark_rule(strokeWidth=1.5)
        low, high = altair.Y(f"{chart.y.low}:Q", title=chart.y.unit), altair.Y2(f"{chart.y.high}:Q")
        layers.append(rules.encode(x=x, y=low, y2=high, color=colours["color"]))
    # Points come last: a layer above them would take the pointer.
    return altair.layer(*layers, _points(measured, data).encode(x=x, y=y, color=colours["color"]))


def _points(measured: altair.Chart, data: ChartData) -> altair.Chart:
    """Points, those of baselines small."""
    baselines = [each.name for each in data.series if each.baseline]
    size = altair.condition(_among(baselines), altair.value(16), altair.value(45))
    points = measured.mark_point(filled=True, opacity=1, tooltip=altair.TooltipContent("data"))
    return points.encode(size=size)


def _over_figure(chart: Chart, data: ChartData, palette: Palette, legend: bool) -> altair.LayerChart:
    """A figure over another figure, with a point per batch size, joined in their order."""
    colours = _series_encodings(data, palette, legend)
    measured = _measured(chart.x)
    x = altair.X(f"{chart.x.name}:Q", **_scale_and_axis(chart.x))
    y = altair.Y(f"{chart.y.name}:Q", **_scale_and_axis(chart.y))
    rules = measured.mark_rule(strokeWidth=1.5)
    return altair.layer(
        measured.mark_line(strokeWidth=2).encode(x=x, y=y, order="batch_size:Q", **colours),
        rules.transform_filter(f"isValid(datum.{chart.y.low})").encode(
            x=x, y=f"{chart.y.low}:Q", y2=f"{chart.y.high}:Q", color=colours["color"]
        ),
        rules.transform_filter(f"isValid(datum.{chart.x.low})").encode(
            x=f"{chart.x.low}:Q", x2=f"{chart.x.high}:Q", y=y, color=colours["color"]
        ),
        _points(measured, data).encode(x=x, y=y, color=colours["color"]),
    ).properties(width=_WIDTH, height=_HEIGHT)


def _measured(figure: Figure) -> altair.Chart:
    """The visible points that have a figure."""
    return altair.Chart(altair.NamedData("cells")).transform_filter(f"isValid(datum.{figure.name}) && {_VISIBLE}")


def _scale_and_axis(figure: Figure) -> dict[str, Any]:
    """The scale is linear; a page may make it logarithmic."""
    axis = altair.Axis(format="%") if figure.is_share else altair.Axis()
    return {"title": figure.unit, "scale": altair.Scale(type="linear", zero=True), "axis": axis}


def _reference_line(chart: Chart, data: ChartData) -> tuple[float, str] | None:
    """(value, label) of the line that belongs to a chart; None where it would be far above all values."""
    line = data.reference_lines.get(chart.y.name)
    values = [point[chart.y.name] for point in data.points if chart.y.name in point]
    return line if line and values and max(values) >= _DRAWN_SHARE * line[0] else None


# -- colours ---------------------------------------------------------------------------------------


def _series_encodings(data: ChartData, palette: Palette, legend: bool) -> dict[str, Any]:
    """Colour and dash of a line: a colour per precision, a dash per engine, dots for baselines."""
    names = [each.name for each in data.series]
    entry = (
        altair.Legend(
            title=None, orient="top", columns=3, labelLimit=300, columnPadding=30, symbolType="stroke", symbolSize=500
        )
        if legend
        else None
    )
    colours = [palette.series[each.colour % len(palette.series)] for each in data.series]
    dashes = [list(each.dash) for each in data.series]
    return {
        "color": altair.Color("series:N", scale=altair.Scale(domain=names, range=colours), legend=entry),
        "strokeDash": altair.StrokeDash("series:N", scale=altair.Scale(domain=names, range=dashes), legend=entry),
    }


def _styled(chart: altair.TopLevelMixin, palette: Palette) -> altair.TopLevelMixin:
    colours = {
        "labelColor": palette.ink,
        "titleColor": palette.ink,
        "domainColor": palette.ink,
        "tickColor": palette.ink,
    }
    return (
        chart.configure(
            aria=False,  # a chart has a description; its figures can be read in the tables
            background="transparent",
            font="system-ui, sans-serif",
            # Room for a reader's font that is wider than the one an SVG is laid out with.
            padding={"left": 25, "right": 20, "top": 5, "bottom": 5},
        )
        .configure_view(stroke=None)
        .configure_axis(labelLimit=200, gridColor=palette.grid, titleFontWeight="normal", **colours)
        .configure_legend(labelColor=palette.ink)
    )
