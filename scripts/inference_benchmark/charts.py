"""Charts of the summary: one Altair definition each, drawn as SVG that needs no script and no network."""

from __future__ import annotations

import re

import altair
import pandas

from inference_benchmark.metrics import interval_columns
from inference_benchmark.tables import column_of, columns

#: Okabe and Ito's colours, told apart by colour-blind readers too; dark enough and light enough for
#: both themes.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
#: Stands for the page's own text colour: an SVG inside a page takes it from there.
_INK = "#010203"
_WIDTH, _HEIGHT, _LANE = 560, 280, 18

THROUGHPUT = ("throughput_tok_per_s", "throughput (tokens/sec)")
LATENCY = ("latency_s", "latency of one call (sec)")
FIRST_TOKEN = ("first_token_s", "time to first token (sec)")
DECODE = ("decode_tok_per_s", "decode throughput (tokens/sec)")


def over_batch(rows: pandas.DataFrame, figure: tuple[str, str], description: str) -> altair.VConcatChart:
    """A figure over the batch size with its 95 % intervals, one line per column of the tables, and below it a
    lane per column for cells without a figure: at zero they would read as a value."""
    column, title = figure
    names = {key: heading.replace("<br>", " ") for key, heading in columns(rows).items()}
    rows = rows.assign(column=[names[column_of(row)] for row in rows.to_dict("records")])
    sizes = sorted(set(rows["batch_size"]))
    powers = [2**n for n in range(20) if sizes[0] <= 2**n <= sizes[-1]] or sizes
    x = altair.X(
        "batch_size:Q",
        scale=altair.Scale(type="log", base=2, domain=[sizes[0] * 0.9, sizes[-1] * 1.1], nice=False),
        axis=altair.Axis(title="batch size", values=powers, format="d", grid=False),
    )
    colour = altair.Color(
        "column:N",
        scale=altair.Scale(domain=list(names.values()), range=COLOURS),
        legend=altair.Legend(title=None, orient="top"),
    )
    y = altair.Y(f"{column}:Q", title=title, scale=altair.Scale(zero=True))
    plain_x = x.copy(deep=True).axis(labels=False, title=None, grid=False, values=powers)
    measured = altair.Chart(rows[rows["outcome"] == "ok"])
    low, high = interval_columns(column)
    lines = (
        measured.mark_line(point=altair.OverlayMarkDef(size=40, filled=True), strokeWidth=2)
        .encode(x=plain_x, y=y, color=colour)
        .properties(width=_WIDTH, height=_HEIGHT)
    )
    whiskers = measured.mark_rule(strokeWidth=1.5).encode(
        x=plain_x, y=altair.Y(f"{low}:Q", title=title), y2=altair.Y2(f"{high}:Q"), color=colour
    )
    lanes = (
        altair.Chart(rows[rows["outcome"] != "ok"])
        .mark_text(fontSize=10)
        .encode(
            x=x,
            y=altair.Y("column:N", title=None, scale=altair.Scale(domain=list(names.values())), sort=None),
            text=altair.Text("outcome:N"),
            color=colour,
        )
        .properties(width=_WIDTH, height=_LANE * len(names))
    )
    return (
        altair.vconcat(altair.layer(lines, whiskers), lanes, spacing=4)
        .resolve_scale(color="shared")
        .properties(description=description)
        .configure(background="transparent", font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=_INK, titleColor=_INK, domainColor=_INK, tickColor=_INK, gridColor=_INK, gridOpacity=0.12
        )
        .configure_legend(labelColor=_INK)
    )


def svg(chart: altair.VConcatChart) -> str:
    """The chart as an SVG element whose text takes the colour of the page around it."""
    import vl_convert

    text = vl_convert.vegalite_to_svg(chart.to_dict(format="vega-lite"))
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)"', r"\1", text, count=1)
    return text.replace(_INK, "currentColor").replace("rgb(1, 2, 3)", "currentColor")
