"""The block of a README that is made from results."""

from __future__ import annotations

BEGIN = "<!-- results: begin (made by `snakemake readme`) -->"
END = "<!-- results: end -->"


class MarkerError(ValueError):
    """The README has no single place for the results."""


def insert(readme: str, block: str) -> str:
    """The README with the block between its markers, all else as it was. Raises MarkerError."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise MarkerError(f"it must hold the line {BEGIN} once and, after it, the line {END} once")
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{block.strip()}\n{END}{after}"
