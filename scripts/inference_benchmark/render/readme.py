"""The block of a README that is made from results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inference_benchmark.experiment.outputs import FILE_CHARTS, THEMES, chart_file

BEGIN = "<!-- results: begin (made by `snakemake readme`) -->"
END = "<!-- results: end -->"


class MarkerError(ValueError):
    """A page that has no single place for a block."""


def pictures(folder: Path) -> Callable[[str, str], str]:
    """A function from model and workload to the Markdown of their charts in a folder, for the theme of the reader."""

    def of(model: str, workload: str) -> str:
        return "\n".join(_picture(folder, model, workload, chart) for chart in FILE_CHARTS)

    return of


def _picture(folder: Path, model: str, workload: str, chart: str) -> str:
    light, dark = (folder / f"{chart_file(model, workload, chart, theme)}.svg" for theme in THEMES)
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{chart} over batch size: {model}, {workload}" src="{light}" width="49%"></picture>'
    )


def insert(page: str, block: str, begin: str = BEGIN, end: str = END) -> str:
    """The page with the block between its markers, and everything else as it was. Raises MarkerError."""
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise MarkerError(f"it must hold the line {begin} once and, after it, the line {end} once")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{block.strip()}\n{end}{after}"
