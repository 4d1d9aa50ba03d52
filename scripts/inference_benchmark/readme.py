"""The block of a README that is made from results."""

from __future__ import annotations

BEGIN = "<!-- results: begin (made by `snakemake readme`) -->"
END = "<!-- results: end -->"


class MarkerError(ValueError):
    """The README has no single place for the results."""


def insert(page: str, block: str, begin: str = BEGIN, end: str = END) -> str:
    """The page with the block between its markers, all else as it was. Raises MarkerError."""
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise MarkerError(f"it must hold the line {begin} once and, after it, the line {end} once")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{block.strip()}\n{end}{after}"
