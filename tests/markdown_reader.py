"""Markdown as a reader sees it, by a real parser."""

from __future__ import annotations

import html
import re

from markdown_it import MarkdownIt


def shown(text: str) -> tuple[str, list[str]]:
    """The text that is shown, and the names of all tags."""
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    tags = re.findall(r"</?(\w+)", page)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split()), tags
