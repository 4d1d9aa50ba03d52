"""The blocks of a README that are made from results."""

from collections.abc import Iterable
from pathlib import Path

from inference_benchmark.experiment.outputs import FILE_CHARTS, THEMES, chart_file
from inference_benchmark.results.cell_result import CellResult

#: The first and the last line of each block.
RESULTS = ("<!-- results: begin (made by `snakemake readme`) -->", "<!-- results: end -->")
CHARTS = ("<!-- charts: begin (made by `snakemake readme`) -->", "<!-- charts: end -->")


class MarkerError(ValueError):
    """A page that has no single place for a block."""


def pictures(results: Iterable[CellResult], folder: Path) -> str:
    """The charts of each model and workload in a folder as Markdown, for the theme of the reader."""
    shown = []
    for model, workload in dict.fromkeys((cell.column.model, cell.column.workload) for cell in results):
        for chart in FILE_CHARTS:
            light, dark = (folder / f"{chart_file(model, workload, chart, theme)}.svg" for theme in THEMES)
            about = f"{chart} over batch size, with 95 % intervals: {model}, {workload}"
            shown.append(
                f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
                f'<img alt="{about}" src="{light}" width="49%"></picture>'
            )
    return "\n".join(shown)


def insert(page: str, block: str, markers: tuple[str, str] = RESULTS) -> str:
    """The page with the block between its markers, and the rest as it was. Raises MarkerError."""
    begin, end = markers
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise MarkerError(f"it must hold the line {begin} once and, after it, the line {end} once")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{block.strip()}\n{end}{after}"
