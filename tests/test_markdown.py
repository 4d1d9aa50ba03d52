"""Plain text as Markdown, read back by a real parser."""

from __future__ import annotations

import pytest
from markdown_reader import shown

from inference_benchmark import markdown

HOSTILE = [
    "*a* **b** _c_ __d__ a_*b*_c",
    "`code` ``more``",
    "[link](http://e) ![picture](http://e) [a][b] [^1]",
    "[x]: http://e",
    "<b>bold</b> <script>alert(1)</script> <!-- -->",
    "&copy; &#35; &amp;",
    r"\ \* a\|b \\|c",
    "a|b||c |",
    "~~gone~~",
    "# heading #",
    "- item",
    "+ item",
    "---",
    "===",
    "1. item",
    "12) item",
    "1.",
    "> quote",
    "    code",
    "$x$",
    "a\n\n# b\r- c\u2028* d",
    "batch_size 45.31 | 22.07 -5.0% (m)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_shown_as_it_is(text):
    plain = " ".join(text.split())
    assert shown(markdown.escape(text) + "\n") == (plain, ["p", "p"])
    assert shown(f"## {markdown.escape(text)}\n") == (plain, ["h2", "h2"])
    read, tags = shown(markdown.table([text, ["1", text]], [["2", text], [text, "3"]]))
    assert read == f"{plain} 1 {plain} 2 {plain} {plain} 3"
    assert (tags.count("td"), tags.count("th"), set(tags)) == (
        8,
        4,
        {"table", "thead", "tbody", "tr", "th", "td", "br"},
    )


def test_control_characters_are_replaced():
    assert markdown.escape("a\x1b[2Jb\u202ec") == "a\N{REPLACEMENT CHARACTER}\\[2Jb\N{REPLACEMENT CHARACTER}c"


@pytest.mark.parametrize(
    "text", ["batch_size", "45.31", "Throughput (tokens/sec | msec/token)", "1.2 GB", "LLM.int8()", "-"]
)
def test_ordinary_text_stays_readable(text):
    assert markdown.escape(text) == {"-": "\\-"}.get(text, text)
