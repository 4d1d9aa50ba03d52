"""What all charts have in common: parts of Vega-Lite definitions, and their way to SVG and to files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.render.palette import Palette

#: A chart or a part of one as Vega-Lite. A test holds whole charts to its schema.
Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
WIDTH, HEIGHT = 520, 260
#: Of labels, in pixels: where they are shortened.
LABEL_LIMIT = 200
#: A legend of lines above a chart.
LEGEND = {"title": None, "orient": "top", "symbolType": "stroke", "symbolSize": 500}


def quantity(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", **more}


def nominal(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "nominal", **more}


def dashed(palette: Palette) -> Spec:
    """The mark of a reference line."""
    return {"type": "rule", "strokeDash": [4, 4], "color": palette.ink}


def config(palette: Palette) -> Spec:
    inks = dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor"), palette.ink)
    return {
        "aria": False,  # a chart has a description; its figures can be read in the tables
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {"labelLimit": LABEL_LIMIT, "gridColor": palette.grid, "titleFontWeight": "normal", **inks},
        "axisLeft": {"titlePadding": 10},  # room for tick labels in a wider font
        "legend": {"labelColor": palette.ink},
        "title": {"color": palette.ink, "subtitleColor": palette.ink},
    }


def svg(spec: Spec) -> str:
    """A definition with its data as an SVG element that fills the width it is given, without a script. It is hidden
    from screen readers: the chart around it has a name, and its figures are in the tables."""
    size = r'(<svg[^>]*?) width="[\d.]+" height="[\d.]+"'
    return re.sub(size, r'\1 aria-hidden="true"', drawn(spec, "svg"), count=1)


def save(spec: Spec, stem: Path) -> None:
    """A definition with its data as two files, .svg and .png."""
    files.write(drawn(spec, "svg"), stem.with_name(f"{stem.name}.svg"))
    files.write(drawn(spec, "png", scale=2), stem.with_name(f"{stem.name}.png"))


def drawn(spec: Spec, form: str, **options: Any) -> Any:
    """A definition with its data as the text of an ``svg`` or the bytes of a ``png``."""
    import vl_convert

    return getattr(vl_convert, f"vegalite_to_{form}")(spec, **options)
