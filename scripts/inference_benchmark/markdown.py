"""Plain text as Markdown."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence


def escape(text: str) -> str:
    """A text of one line that Markdown shows as it is: no HTML, and no end of a table's cell."""
    return html.escape(" ".join(text.splitlines()), quote=False).replace("|", "\\|")


def table(headings: Sequence[str | Sequence[str]], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned to be readable as text too: headings centred, cells to the left.

    headings: one for each column, as plain text or as lines of plain text. rows: plain text.
    """
    heads = [escape(each) if isinstance(each, str) else "<br>".join(map(escape, each)) for each in headings]
    cells = [[escape(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]

    def line(texts: Sequence[str], align: Callable[[str, int], str]) -> str:
        return "| " + " | ".join(align(text, width) for text, width in zip(texts, widths, strict=True)) + " |\n"

    rule = "|" + "|".join(f":{'-' * width}:" for width in widths) + "|\n"
    return line(heads, str.center) + rule + "".join(line(row, str.ljust) for row in cells)
