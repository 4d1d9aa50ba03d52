"""Plain text as Markdown."""

import html
import re
from collections.abc import Callable, Sequence

from inference_benchmark.cli import printable

#: What Markdown reads as more than text, anywhere in a line. An underscore inside a word, as in batch_size, is text.
_ACTIVE = re.compile(r"[\\`*\[\]~#$]|(?<![^\W_])_|_(?![^\W_])")
#: The beginning of a line, or the number there, before what Markdown reads as a list, a heading or a line across.
_LEADING = re.compile(r"^(?:(?=[-+=])|\d{1,9}(?=[.)](?: |$)))")


def escape(text: str) -> str:
    """A text as one line that Markdown shows as it is: no markup, no HTML and no control characters."""
    line = html.escape(printable(" ".join(text.split())), quote=False)
    return _LEADING.sub(r"\g<0>\\", _ACTIVE.sub(r"\\\g<0>", line))


def escape_cell(text: str) -> str:
    """The same inside a table, where | ends a cell."""
    return escape(text).replace("|", "\\|")


def table(headings: Sequence[str | Sequence[str]], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of plain text, aligned to be readable as it is. headings: of each column, a text or lines."""
    heads = ["<br>".join(map(escape_cell, [each] if isinstance(each, str) else each)) for each in headings]
    cells = [[escape_cell(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]

    def line(texts: Sequence[str], align: Callable[[str, int], str]) -> str:
        return "| " + " | ".join(align(text, width) for text, width in zip(texts, widths, strict=True)) + " |\n"

    rule = "|" + "|".join(f":{'-' * width}:" for width in widths) + "|\n"
    return line(heads, str.center) + rule + "".join(line(row, str.ljust) for row in cells)
