"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned to be read as text too: headings centred, cells to the left."""
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]

    def line(texts: Sequence[str], align: Callable[[str, int], str]) -> str:
        return "| " + " | ".join(align(text, width) for text, width in zip(texts, widths, strict=True)) + " |\n"

    rule = "|" + "|".join(f":{'-' * width}:" for width in widths) + "|\n"
    return line(headings, str.center) + rule + "".join(line(row, str.ljust) for row in cells)
