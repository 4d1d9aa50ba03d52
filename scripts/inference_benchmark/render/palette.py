"""The colours of charts and pages, light and dark; the only place where they are named."""

from collections.abc import Sequence
from typing import NamedTuple


class Palette(NamedTuple):
    """ink: of text. grid: of lines behind a chart. paper: behind everything. soft: of lesser text. line: of borders.
    wash: behind headings. accent: of links. warn: of warnings. series: of the lines of charts."""

    ink: str
    grid: str
    paper: str
    soft: str
    line: str
    wash: str
    accent: str
    warn: str
    series: Sequence[str]


#: Series after Okabe and Ito, told apart by colour-blind readers too; darker on light paper, lighter on dark. The
#: second six are the first in another shade.
LIGHT = Palette(
    ink="#1a1d21", grid="#e4e8ec", paper="#ffffff", soft="#59626e",
    line="#d8dde3", wash="#f5f7f9", accent="#0068a8", warn="#c24e00",
    series=("#0068a8", "#c24e00", "#00825f", "#a8528a", "#8f6000", "#3f7fa0",
            "#003557", "#6b2b00", "#00412f", "#5c2d4c", "#4d3400", "#22465a"),
)  # fmt: skip
DARK = Palette(
    ink="#e6e9ed", grid="#2c333b", paper="#15181c", soft="#9aa5b1",
    line="#333a42", wash="#1d2126", accent="#56b4f0", warn="#f08a4b",
    series=("#56b4f0", "#f08a4b", "#2fc79a", "#e39ac4", "#e3b23c", "#9ad0f5",
            "#2f80b5", "#b5612c", "#1f8f6d", "#a8678c", "#a57f22", "#6493b3"),
)  # fmt: skip
_PRINT = LIGHT._replace(ink="#000000", soft="#444444", line="#bbbbbb", wash="#ffffff")
THEMES = {"light": LIGHT, "dark": DARK}
#: The colours of a page, by the names of its CSS variables: an SVG inside the page follows its theme.
PAGE = Palette(
    *(f"var(--{name})" for name in Palette._fields if name != "series"),
    series=tuple(f"var(--series-{i})" for i in range(len(LIGHT.series))),
)


def css() -> str:
    """The CSS variables of a page for every theme, and a class per series."""
    light, dark, print_ = map(_variables, (LIGHT, DARK, _PRINT))
    chosen = ":root, :root:not([data-theme=light]), :root[data-theme=dark]"
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {dark} }} }}\n"
        f":root[data-theme=dark] {{ color-scheme: dark; {dark} }}\n"
        ":root[data-theme=light] { color-scheme: light; }\n"
        f"@media print {{ {chosen} {{ color-scheme: light; {print_} }} }}\n"
        + "".join(f".series-{i} {{ stroke: {colour}; }}\n" for i, colour in enumerate(PAGE.series))
    )


def _variables(palette: Palette) -> str:
    named = palette._asdict() | {f"series-{i}": colour for i, colour in enumerate(palette.series)}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items() if name != "series")
