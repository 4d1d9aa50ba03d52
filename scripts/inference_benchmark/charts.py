"""Charts of the summary: one Altair definition each, drawn as SVG that needs no script and no network."""

from __future__ import annotations

import re

import altair
import pandas

from inference_benchmark.metrics import interval_columns
from inference_benchmark.tables import ENDINGS, Column, column_of, columns

#: Okabe and Ito's colours, told apart by colour-blind readers too; dark enough and light enough for
#: both themes.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
#: Stands for the page's own text colour: an SVG inside a page takes it from there.
_INK = "#010203"
#: Lines of different engines.
DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]]
_WIDTH, _HEIGHT, _LANE = 560, 280, 18

THROUGHPUT = ("throughput_tok_per_s", "throughput (tokens/sec)")
LATENCY = ("latency_s", "latency of one call (sec)")
FIRST_TOKEN = ("first_token_s", "time to first token (sec)")
DECODE = ("decode_tok_per_s", "decode throughput (tokens/sec)")
LIMIT = ("whole_limit_share", "part of the limit reached")


def over_batch(rows: pandas.DataFrame, figure: tuple[str, str], description: str) -> altair.VConcatChart:
    """A figure over the batch size with its 95 % intervals, where it has any, one line per column of the tables, and
    below it a lane per column for cells without a figure: at zero they would read as a value."""
    column, title = figure
    names = _names(rows)
    rows = rows.assign(column=[names[column_of(row)] for row in rows.to_dict("records")])
    sizes = sorted(set(rows["batch_size"]))
    powers = [2**n for n in range(20) if sizes[0] <= 2**n <= sizes[-1]] or sizes
    x = altair.X(
        "batch_size:Q",
        scale=altair.Scale(type="log", base=2, domain=[sizes[0] * 0.9, sizes[-1] * 1.1], nice=False),
        axis=altair.Axis(title="batch size", values=powers, format="d", grid=False),
    )
    legend = altair.Legend(
        title=None, orient="top", columns=3, labelLimit=300, columnPadding=30, symbolType="stroke", symbolSize=500
    )
    colour = altair.Color("column:N", scale=_scale(names, COLOURS, part=1), legend=legend)
    dash = altair.StrokeDash("column:N", scale=_scale(names, DASHES, part=0), legend=legend)
    axis = altair.Axis(format="%") if figure == LIMIT else altair.Axis()
    y = altair.Y(f"{column}:Q", title=title, scale=altair.Scale(zero=True), axis=axis)
    plain_x = x.copy(deep=True).axis(labels=False, title=None, grid=False, values=powers)
    measured = altair.Chart(rows[rows["outcome"] == "ok"])
    lines = (
        measured.mark_line(point=altair.OverlayMarkDef(size=40, filled=True), strokeWidth=2)
        .encode(x=plain_x, y=y, color=colour, strokeDash=dash)
        .properties(width=_WIDTH, height=_HEIGHT)
    )
    if figure != LIMIT:
        low, high = interval_columns(column)
        lines += measured.mark_rule(strokeWidth=1.5).encode(
            x=plain_x, y=altair.Y(f"{low}:Q", title=title), y2=altair.Y2(f"{high}:Q"), color=colour
        )
    lanes = (
        altair.Chart(rows[rows["outcome"] != "ok"].replace({"outcome": ENDINGS}))
        .mark_text(fontSize=10)
        .encode(
            x=x,
            y=altair.Y("column:N", title=None, scale=altair.Scale(domain=list(names.values())), sort=None),
            text=altair.Text("outcome:N"),
            color=colour,
        )
        .properties(width=_WIDTH, height=_LANE * len(names))
    )
    chart = altair.vconcat(lines, lanes, spacing=4).resolve_scale(color="shared")
    return _styled(chart.properties(description=description))


def max_batch(rows: pandas.DataFrame, description: str) -> altair.LayerChart:
    """The largest batch that fits as a bar per column of the tables for which it is known."""
    names = _names(rows)
    known = rows[rows["max_batch_fits"].notna()]
    known = known.assign(column=[names[column_of(row)] for row in known.to_dict("records")]).drop_duplicates("column")
    colour = altair.Color("column:N", scale=_scale(names, COLOURS, part=1), legend=None)
    bars = altair.Chart(known[["column", "max_batch_fits"]]).encode(
        x=altair.X("max_batch_fits:Q", title="largest batch that fits"),
        y=altair.Y("column:N", title=None, sort=list(names.values())),
    )
    values = bars.mark_text(align="left", dx=4, color=_INK).encode(text="max_batch_fits:Q")
    chart = (bars.mark_bar(height=14).encode(color=colour) + values).properties(width=_WIDTH, height={"step": 26})
    return _styled(chart.properties(description=description))


def _names(rows: pandas.DataFrame) -> dict[Column, str]:
    """The columns of the tables, each with a name for one line; the engine is named where there are several."""
    keys = list(columns(rows))
    several = len({engine for engine, _, _ in keys}) > 1
    return {key: " ".join(filter(None, key if several else key[1:])) for key in keys}


def _scale(names: dict[Column, str], values: list, part: int) -> altair.Scale:
    """Columns that share a part of their key (0: engine, 1: precision) share a value; variants of one do not."""
    kinds = list(dict.fromkeys((key[part], key[2]) if part else key[part] for key in names))
    chosen = [values[kinds.index((key[part], key[2]) if part else key[part]) % len(values)] for key in names]
    return altair.Scale(domain=list(names.values()), range=chosen)


def _styled(chart: altair.TopLevelMixin) -> altair.TopLevelMixin:
    return (
        chart.configure(
            background="transparent",
            font="system-ui, sans-serif",
            padding={"left": 25, "right": 5, "top": 5, "bottom": 5},
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelLimit=300,
            labelColor=_INK,
            titleColor=_INK,
            domainColor=_INK,
            tickColor=_INK,
            gridColor=_INK,
            gridOpacity=0.12,
        )
        .configure_legend(labelColor=_INK)
    )


def svg(chart: altair.TopLevelMixin) -> str:
    """The chart as an SVG element whose text takes the colour of the page around it."""
    import vl_convert

    text = vl_convert.vegalite_to_svg(chart.to_dict(format="vega-lite"))
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)"', r"\1", text, count=1)
    return text.replace(_INK, "currentColor").replace("rgb(1, 2, 3)", "currentColor")
