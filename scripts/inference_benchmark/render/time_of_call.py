"""Where the time of a call goes, by the timelines of cells: their steps, and parts by kind of work beside the floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas

from inference_benchmark.analysis.timeline import KINDS
from inference_benchmark.records.summary import SHARES
from inference_benchmark.render.columns import FLAGGED, Row, Rows, TableView, column_names, column_of, text_of
from inference_benchmark.units import format_figure

#: The columns of the table of steps: heading, and the text of a cell.
_STEPS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("first step (ms)", lambda row: _text(row, "first_step_s", ".2f", 1000)),
    ("p50", lambda row: _text(row, "step_p50_s", ".2f", 1000)),
    ("p95", lambda row: _text(row, "step_p95_s", ".2f", 1000)),
    ("p99", lambda row: _text(row, "step_p99_s", ".2f", 1000)),
    ("last step", lambda row: _text(row, "last_step_s", ".2f", 1000)),
    ("growth", lambda row: _text(row, "step_growth", "+.1%")),
    ("memory growth (MB)", lambda row: _text(row, "step_memory_growth_bytes", "+,.1f", 1e-6)),
    ("all steps | latency (sec)", lambda row: _sums_text(row)),
    ("cost of timing", lambda row: _text(row, "steps_cost", "+.1%")),
)


_STEPS_EXPLANATION = (
    "times of each step on the device, in calls beside the timed ones. The first step is prefill; percentiles are of "
    "all other steps of all calls; growth is by how much they become longer over the answer. Memory growth is from the "
    "end of the first step to that of the last. ≠: the steps together are outside the interval of the latency. Cost of "
    "timing: by how much longer these calls took than those that nothing observed, in turn with them."
)
_SHARES_EXPLANATION = (
    "by torch's profiler. Outside kernels: Python, launching kernels, and waiting for that. Floor: the least time that "
    "memory bandwidth (m) and arithmetic (a) of the machine allow. Cost of profiling: by how much longer the profiled "
    "call took; the parts are of a call without it."
)


class Bar(NamedTuple):
    """The time of a call as one bar.

    parts: (kind, its name, from, width, text), all in percent of the call. floor: the least time that the machine could
    take, in percent; None where it is not known. bound_by: what the floor is due to.
    """

    name: str
    parts: list[tuple[str, str, float, float, str]]
    floor: float | None
    bound_by: str

    @property
    def floor_text(self) -> str:
        return "" if self.floor is None else f"{self.floor:.1f}%{self.bound_by[:1]}"


def time_tables(rows: Rows) -> list[TableView]:
    """The tables for the rows of one model and workload; none without a timeline."""
    seen = [(name, row) for name, row in _named(rows) if not pandas.isna(row["first_step_s"])]
    bars = time_bars(rows)
    views = []
    if seen:
        headings = [("cell",), *((heading,) for heading, _ in _STEPS)]
        cells = [[name, *(text(row) for _, text in _STEPS)] for name, row in seen]
        views.append(TableView("Steps of a call", _STEPS_EXPLANATION, headings, cells, []))
    if bars:
        headings = [("cell",), *((name,) for name in KINDS.values()), ("floor",), ("cost of profiling",)]
        cells = [
            [bar.name, *(text for *_, text in bar.parts), bar.floor_text, _text(row, "profile_cost", "+.0%")]
            for bar, row in bars
        ]
        views.append(TableView("Where the time goes (% of a call)", _SHARES_EXPLANATION, headings, cells, []))
    return views


def time_bars(rows: Rows) -> list[tuple[Bar, Row]]:
    """The bar of each cell that was profiled, among the rows of one model and workload."""
    return [(_bar(name, row), row) for name, row in _named(rows) if not pandas.isna(row[SHARES["outside"]])]


def _named(rows: Rows) -> list[tuple[str, Row]]:
    """Measured cells with their names, those of one batch size together."""
    names = column_names(rows)
    measured = [row for row in rows if row["outcome"] == "ok"]
    return [
        (f"{names[column_of(row)]} batch {row['batch_size']}{FLAGGED * bool(text_of(row, 'timeline_flags'))}", row)
        for row in sorted(measured, key=lambda row: row["batch_size"])  # stable: columns stay in the grid's order
    ]


def _bar(name: str, row: Row) -> Bar:
    parts, begins = [], 0.0
    for kind, title in KINDS.items():
        percent = 100 * row[SHARES[kind]]
        parts.append((kind, title, begins, percent, f"{percent:.1f}%"))
        begins += percent
    share = row["whole_limit_share"]
    return Bar(name, parts, None if pandas.isna(share) else 100 * share, text_of(row, "whole_bound_by"))


def _text(row: Row, name: str, spec: str, scale: float = 1) -> str:
    """A value with its sign where the format has one."""
    if pandas.isna(row[name]):
        return ""
    value = row[name] * scale
    return format(value, spec) if spec.startswith("+") else format_figure(value, spec)


def _sums_text(row: Row) -> str:
    """All steps together beside the latency; ≠ where they are outside its interval."""
    low, high = row["latency_low_s"], row["latency_high_s"]
    is_outside = not pandas.isna(low) and not low <= row["steps_s"] <= high
    return f"{_text(row, 'steps_s', '.3f')} {'≠' if is_outside else '|'} {_text(row, 'latency_s', '.3f')}"
