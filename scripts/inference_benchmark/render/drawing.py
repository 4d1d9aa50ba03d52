"""How charts are drawn: one Altair definition each, for a page, for a page without script, and for files.

A definition is drawn in a *look*: the colours of a page, which follow its theme, or those of a light or a dark file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair

from inference_benchmark import files
from inference_benchmark.analysis.metrics import interval_columns
from inference_benchmark.render.charts import FRONTIER, LIMIT, MEMORY, Chart, Picture


class Look(NamedTuple):
    """Colours: of text, of lines behind, behind everything, and of series."""

    ink: str
    grid: str
    paper: str
    series: Sequence[str]


#: After Okabe and Ito, told apart by colour-blind readers too; darker on light paper, lighter on dark.
LIGHT = Look("#1a1d21", "#e4e8ec", "#ffffff", ("#0068a8", "#c24e00", "#00825f", "#a8528a", "#8f6000", "#3f7fa0"))
DARK = Look("#e6e9ed", "#2c333b", "#15181c", ("#56b4f0", "#f08a4b", "#2fc79a", "#e39ac4", "#e3b23c", "#9ad0f5"))
LOOKS = {"light": LIGHT, "dark": DARK}
#: A page's own colours by name: an SVG inside the page takes them from there.
PAGE = Look("var(--ink)", "var(--grid)", "var(--paper)", tuple(f"var(--series-{i})" for i in range(len(LIGHT.series))))

_WIDTH, _HEIGHT, _LANE = 520, 260, 16
#: What a lane shows for a cell without a figure, and what it means.
LANE_SIGNS = {"oom": ("×", "out of memory"), "n/a": ("–", "not available")}
#: A capacity is drawn where the memory taken is at least this part of it; else it would flatten everything.
_DRAWN_SHARE = 0.2
#: Points without a figure have no place; those whose series is named in ``hidden`` were switched off.
_VISIBLE = "indexof(hidden, datum.series) < 0"


#: A point of a line; and what is as a browser or the page would have it anyway. A page of many charts is half the size
#: without.
_CIRCLE = re.compile(r'<path transform="translate\(([\d.]+),([\d.]+)\)" d="M([\d.]+),0A[^"]*" fill="([^"]*)"[^>]*/>')
_NEEDLESS = re.compile(
    r'<path class="background"[^>]*/>| (?:role|class|aria-[a-z]+|pointer-events|font-family)="[^"]*"'
    r'| opacity="1"| stroke-width="1"| [xy]2="0"| transform="translate\(0,0\)"| font-weight="normal"'
)


def definition(chart: Chart, shown: Picture, look: Look, legend: bool = True) -> dict[str, Any]:
    """A chart as Vega-Lite. Its data are a source named ``cells``, which it does not hold: the points of the picture.
    Series named in its parameter ``hidden`` are left out. legend: whether it has title and legend of its own."""
    panel = _frontier(shown, look, legend) if chart is FRONTIER else _over_batch(chart, shown, look, legend)
    description = f"{chart.heading}: {shown.where}"
    if legend:
        panel = panel.properties(title=altair.Title(description, anchor="start", fontSize=13, color=look.ink))
    panel = panel.properties(description=description).add_params(altair.param(name="hidden", value=[]))
    return _styled(panel, look).to_dict(format="vega-lite")


def with_data(spec: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A definition with the points that it draws."""
    return {**spec, "datasets": {**spec.get("datasets", {}), "cells": list(points)}}


def svg(spec: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> str:
    """A definition drawn as an SVG element that fills the width it is given and needs no script."""
    import vl_convert

    text = vl_convert.vegalite_to_svg(with_data(spec, points))
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)"', r"\1", text, count=1)
    text = re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", text)
    text = _CIRCLE.sub(r'<circle cx="\1" cy="\2" r="\3" fill="\4"/>', text)
    return _NEEDLESS.sub("", text)


def save(chart: Chart, shown: Picture, look: Look, stem: Path) -> None:
    """The chart as two files, .svg and .png."""
    import vl_convert

    spec = with_data(definition(chart, shown, look), shown.points) | {"background": look.paper}
    files.write(vl_convert.vegalite_to_svg(spec), stem.with_name(f"{stem.name}.svg"))
    files.write(vl_convert.vegalite_to_png(spec, scale=2), stem.with_name(f"{stem.name}.png"))


# -- panels ----------------------------------------------------------------------------------------


def _over_batch(chart: Chart, shown: Picture, look: Look, legend: bool) -> altair.VConcatChart:
    """A figure over the batch size, a line with intervals per series; below it a lane per series for cells without a
    figure: at zero they would read as a value."""
    sizes = sorted({point["batch_size"] for point in shown.points}) or [1]
    powers = [2**n for n in range(30) if sizes[0] <= 2**n <= sizes[-1]] or sizes
    lanes = _lanes(chart, shown)

    def x(axis: altair.Axis) -> altair.X:
        scale = altair.Scale(type="log", base=2, domain=[sizes[0] * 0.9, sizes[-1] * 1.1], nice=False)
        return altair.X("batch_size:Q", scale=scale, axis=axis)

    titled = altair.Axis(title="batch size", values=powers, format="d", grid=False)
    bare = altair.Axis(title=None, values=powers, labels=False, grid=False)
    colours = _series_encodings(shown, look, legend)
    figures = _curves(chart, shown, x(bare if lanes else titled), colours)
    if chart is MEMORY and _capacity_drawn(shown):
        line = altair.Chart(altair.InlineData([{"gb": shown.capacity_gb}])).encode(y="gb:Q")
        text = line.mark_text(align="left", dx=4, dy=-5, color=look.ink, x=0).encode(text=altair.value("capacity"))
        figures += line.mark_rule(strokeDash=[4, 4], color=look.ink) + text
    figures = figures.properties(width=_WIDTH, height=_HEIGHT)
    if not lanes:
        return altair.vconcat(figures)
    return altair.vconcat(figures, _lane_panel(lanes, shown, x(titled), colours["color"], look), spacing=4)


def _lanes(chart: Chart, shown: Picture) -> list[str]:
    """The series with cells that have no figure; of baselines those that are in this chart at all."""
    here = {each.name for each in shown.series if not each.baseline}
    here |= {point["series"] for point in shown.points if chart.figure in point}
    without = {point["series"] for point in shown.points if point["outcome"] != "ok"}
    return [each.name for each in shown.series if each.name in here & without]


def _lane_panel(lanes: Sequence[str], shown: Picture, x: altair.X, colour: altair.Color, look: Look) -> altair.Chart:
    """A row per series with a sign at each batch size without a figure."""
    signs = {outcome: LANE_SIGNS[outcome] for outcome in LANE_SIGNS if outcome in {p["outcome"] for p in shown.points}}
    explained = altair.Title(
        "   ".join(" ".join(each) for each in signs.values()),
        anchor="end", fontSize=11, fontWeight="normal", color=look.ink, offset=2,
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
    """An expression: whether a point is of one of these series. As JSON, a name stays a text whatever it holds."""
    return f"indexof({json.dumps(list(names))}, datum.series) >= 0"


def _curves(chart: Chart, shown: Picture, x: altair.X, colours: Mapping[str, Any]) -> altair.LayerChart:
    """Line, points and intervals of a figure over x. The y scale is linear; a page may make it logarithmic."""
    y = altair.Y(
        f"{chart.figure}:Q",
        title=chart.axis,
        scale=altair.Scale(type="linear", zero=True),
        axis=altair.Axis(format="%") if chart is LIMIT else altair.Axis(),
    )
    measured = altair.Chart(altair.NamedData("cells")).transform_filter(f"isValid(datum.{chart.figure}) && {_VISIBLE}")
    layers = [measured.mark_line(strokeWidth=2).encode(x=x, y=y, **colours)]
    ends = _interval(chart.figure)
    if ends:
        rules = measured.transform_filter(f"isValid(datum.{ends[0]})").mark_rule(strokeWidth=1.5)
        low, high = (f"{end}:Q" for end in ends)
        layers.append(rules.encode(x=x, y=altair.Y(low, title=chart.axis), y2=altair.Y2(high), color=colours["color"]))
    # Points come last: what lies above them would keep them from being pointed at.
    return altair.layer(*layers, _points(measured, shown).encode(x=x, y=y, color=colours["color"]))


def _points(measured: altair.Chart, shown: Picture) -> altair.Chart:
    """Points, those of baselines small."""
    baselines = [each.name for each in shown.series if each.baseline]
    size = altair.condition(_among(baselines), altair.value(16), altair.value(45))
    points = measured.mark_point(filled=True, opacity=1, tooltip=altair.TooltipContent("data"))
    return points.encode(size=size)


def _interval(figure: str) -> tuple[str, str] | None:
    """The columns with the ends of a figure's interval; None for memory, which is a peak."""
    if re.fullmatch(r".+_(tok_per_s|s)", figure):
        return interval_columns(figure)
    return {
        "energy_per_token_j": ("energy_low_j", "energy_high_j"),
        "whole_limit_share": ("limit_low", "limit_high"),
    }.get(figure)


def _frontier(shown: Picture, look: Look, legend: bool) -> altair.LayerChart:
    """What a user waits for each token against what the machine does for all: a point per batch size, in their order
    along the line. Up and to the left is better."""
    measured = altair.Chart(altair.NamedData("cells")).transform_filter(
        f"isValid(datum.{FRONTIER.figure}) && {_VISIBLE}"
    )
    colours = _series_encodings(shown, look, legend)
    x = altair.X(f"{FRONTIER.figure}:Q", title=FRONTIER.axis, scale=altair.Scale(type="linear", zero=True))
    y = altair.Y("throughput_tok_per_s:Q", title="tokens/sec", scale=altair.Scale(type="linear", zero=True))
    low, high = interval_columns("throughput_tok_per_s")
    left, right = interval_columns(FRONTIER.figure)
    rules = measured.mark_rule(strokeWidth=1.5)
    return altair.layer(
        measured.mark_line(strokeWidth=2).encode(x=x, y=y, order="batch_size:Q", **colours),
        rules.transform_filter(f"isValid(datum.{low})").encode(
            x=x, y=f"{low}:Q", y2=f"{high}:Q", color=colours["color"]
        ),
        rules.transform_filter(f"isValid(datum.{left})").encode(
            x=f"{left}:Q", x2=f"{right}:Q", y=y, color=colours["color"]
        ),
        _points(measured, shown).encode(x=x, y=y, color=colours["color"]),
    ).properties(width=_WIDTH, height=_HEIGHT)


def _capacity_drawn(shown: Picture) -> bool:
    """Whether the chart of memory has the line of the capacity."""
    peaks = [point["peak_gb"] for point in shown.points if "peak_gb" in point]
    return shown.capacity_gb is not None and bool(peaks) and max(peaks) >= _DRAWN_SHARE * shown.capacity_gb


# -- colours ---------------------------------------------------------------------------------------


def _series_encodings(shown: Picture, look: Look, legend: bool) -> dict[str, Any]:
    """Colour and dash of a line: a colour per precision, a dash per engine, dots for baselines."""
    names = [each.name for each in shown.series]
    entry = (
        altair.Legend(
            title=None, orient="top", columns=3, labelLimit=300, columnPadding=30, symbolType="stroke", symbolSize=500
        )
        if legend
        else None
    )
    colours = [look.series[each.colour % len(look.series)] for each in shown.series]
    dashes = [list(each.dash) for each in shown.series]
    return {
        "color": altair.Color("series:N", scale=altair.Scale(domain=names, range=colours), legend=entry),
        "strokeDash": altair.StrokeDash("series:N", scale=altair.Scale(domain=names, range=dashes), legend=entry),
    }


def _styled(chart: altair.TopLevelMixin, look: Look) -> altair.TopLevelMixin:
    colours = {"labelColor": look.ink, "titleColor": look.ink, "domainColor": look.ink, "tickColor": look.ink}
    return (
        chart.configure(
            aria=False,  # a chart has a description; its figures can be read in the tables
            background="transparent",
            font="system-ui, sans-serif",
            padding={"left": 5, "right": 10, "top": 5, "bottom": 5},
        )
        .configure_view(stroke=None)
        .configure_axis(labelLimit=200, gridColor=look.grid, titleFontWeight="normal", **colours)
        .configure_legend(labelColor=look.ink)
    )
