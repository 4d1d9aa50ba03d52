"""Where the time of a call goes, by the timelines of cells: their steps, and parts by kind of work beside the floor."""

from typing import NamedTuple

from inference_benchmark.analysis.figures import BY_GROUP, BY_NAME, Figure
from inference_benchmark.analysis.timeline import KINDS
from inference_benchmark.render.texts import FLAGGED, TableView, names_within
from inference_benchmark.results.cell_result import CellResult, Results

_STEPS, _COST = BY_NAME["steps_s"], BY_NAME["profile_cost"]
_STEPS_EXPLANATION = (
    "times of each step on the device, in calls other than the timed ones. The first step is prefill; percentiles are "
    "of all other steps of all calls; growth is by how much they become longer over the answer. Memory growth is from "
    "the end of the first step to that of the last. ≠: the steps together are outside the interval of the latency. "
    "Cost of timing: by how much longer these calls took than calls without it, made in turn with them."
)
_KINDS_EXPLANATION = (
    "by torch's profiler. Outside kernels: Python, launching kernels, and waiting. Floor: the least time that "
    "memory bandwidth (m) and arithmetic (a) of the machine allow. Cost of profiling: by how much longer the profiled "
    "call took; the parts are of a call without it."
)


class Bar(NamedTuple):
    """The time of a call as one bar. parts: (kind, its name, from, width, text), all in percent of the call. floor: the
    least time that the machine could take, in percent; None where it is not known. bound_by: what the floor is due to.
    """

    name: str
    parts: list[tuple[str, str, float, float, str]]
    floor: float | None
    bound_by: str

    @property
    def floor_text(self) -> str:
        return "" if self.floor is None else f"{self.floor:.1f}%{self.bound_by[:1]}"


def timeline_tables(cells: Results) -> list[TableView]:
    """The tables for the cells of one model and workload; none without a timeline."""
    views = []
    if seen := _named(cells, "first_step_s"):
        figures = BY_GROUP["steps"]
        heads = (f"{each.title} | latency ({each.unit})" if each is _STEPS else each.heading for each in figures)
        headings = [("cell",), *((head,) for head in heads)]
        rows = [[name, *(_text(cell, figure) for figure in figures)] for name, cell in seen]
        views.append(TableView("Steps of a call", _STEPS_EXPLANATION, headings, rows, []))
    if bars := timeline_bars(cells):
        headings = [("cell",), *((name,) for name in KINDS.values()), ("floor",), (_COST.heading,)]
        rows = [[bar.name, *(text for *_, text in bar.parts), bar.floor_text, _text(cell, _COST)] for bar, cell in bars]
        views.append(TableView("Where the time goes (% of a call)", _KINDS_EXPLANATION, headings, rows, []))
    return views


def timeline_bars(cells: Results) -> list[tuple[Bar, CellResult]]:
    """The bar of each cell that was profiled, among the cells of one model and workload."""
    return [(_bar(name, cell), cell) for name, cell in _named(cells, "outside_share")]


def _named(cells: Results, figure: str) -> list[tuple[str, CellResult]]:
    """The measured cells that have a figure, with their names, those of one batch size together."""
    name = names_within(cells)
    having = [cell for cell in cells if cell.is_measured and figure in cell.figures]
    having.sort(key=lambda cell: cell.batch_size)  # stable: columns stay in the grid's order
    return [(name(cell) + FLAGGED * bool(cell.timeline_flags), cell) for cell in having]


def _bar(name: str, cell: CellResult) -> Bar:
    parts, begins = [], 0.0
    for kind, title in KINDS.items():
        percent = 100 * cell.value(f"{kind}_share")
        parts.append((kind, title, begins, percent, f"{percent:.1f}%"))
        begins += percent
    share = cell.value("whole_limit_share")
    return Bar(name, parts, None if share is None else 100 * share, cell.bound_by.get("whole", ""))


def _text(cell: CellResult, figure: Figure) -> str:
    """A figure; behind all steps together the latency, or ≠ and the latency where they are outside its interval."""
    text = figure.text(cell.value(figure.name))
    if figure is not _STEPS:
        return text
    latency, low, high = cell.figures["latency_s"]
    is_outside = low is not None and not low <= cell.value(figure.name) <= high
    return f"{text} {'≠' if is_outside else '|'} {figure.text(latency)}"
