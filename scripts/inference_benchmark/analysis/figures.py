"""The catalogue of figures: one row for each, with its name, its texts and its formula.

summary.csv, tables, charts, tooltips, the report, comparisons and docs/method.md all read this table. To add a figure,
write its formula in metrics.py and its row here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.metrics import MeasuredCell
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.units import format_figure


@dataclass(frozen=True)
class Figure:
    """A figure of a measured cell.

    name: its column in summary.csv, the unit at its end. key: its name on command lines and in the names of files.
    title, unit: as people read them. better: the direction of better. definition: how it is worked out, for the text
    above its table. formula: None where a cell does not have the figure. interval: where its interval comes from; None
    for a figure without one. samples: the calls that it is a mean or rate of, so that two cells can be compared in it.
    spec: format of a printed value, unless it is too small for it (units.format_figure); scale: what the value is
    multiplied by to be printed in the unit.
    beside: the figure in whose table it is printed, behind that figure. qualifier: a column whose first letter is
    printed behind the value. warnings: columns that name warnings about it. best: what the best value of a grid is
    called at the top of the report.
    headline: has a table and chart files even where nothing was measured.
    """

    name: str
    key: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    definition: str
    formula: Callable[[MeasuredCell], Estimate | None]
    interval: str | None = None
    samples: Literal["whole_s", "first_token_s"] | None = None
    spec: str = ".2f"
    scale: float = 1
    beside: str | None = None
    qualifier: str | None = None
    warnings: tuple[str, ...] = ("flags",)
    best: str | None = None
    headline: bool = False
    has_table: bool = True
    has_chart: bool = True

    @cached_property
    def low(self) -> str:
        """The column with the lower end of its interval: ``latency_s`` -> ``latency_low_s``."""
        return self._end("low")

    @cached_property
    def high(self) -> str:
        """The column with the upper end of its interval."""
        return self._end("high")

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns in summary.csv."""
        return (self.name, self.low, self.high) if self.interval else (self.name,)

    @property
    def is_share(self) -> bool:
        """Whether it is printed in percent."""
        return self.spec.endswith("%")

    def text(self, value: float) -> str:
        """A value as tables print it."""
        return format_figure(value * self.scale, self.spec)

    def _end(self, which: str) -> str:
        stem, unit = re.fullmatch(r"(.+?)((?:_tok)?(?:_per)?_[a-z]+)", self.name).groups()
        return f"{stem}_{which}{unit}"


def _limit(phase: str, unit: str, **more: Any) -> Figure:
    return Figure(
        name=f"{phase}_limit_share",
        unit=unit,
        better="higher",
        formula=partial(metrics.limit_share, phase=phase),
        interval="that of the measured time",
        spec=".1%",
        qualifier=f"{phase}_bound_by",
        warnings=("flags", "limit_flags"),
        **more,
    )


#: In the order of tables and charts.
FIGURES = (
    Figure(
        name="throughput_tok_per_s",
        key="throughput",
        title="Throughput",
        unit="tokens/sec",
        better="higher",
        definition="tokens/sec = batch_size x new tokens / latency, prompt processing inside",
        formula=metrics.throughput_tok_per_s,
        interval="that of the latency",
        samples="whole_s",
        best="best throughput",
        headline=True,
    ),
    Figure(
        name="ms_per_token",
        key="time-per-token",
        title="Time per token of the whole batch",
        unit="msec/token",
        better="lower",
        definition="msec/token = 1000 / (tokens/sec)",
        formula=metrics.time_per_token_ms,
        samples="whole_s",
        beside="throughput_tok_per_s",
        has_chart=False,
    ),
    Figure(
        name="latency_s",
        key="latency",
        title="Latency",
        unit="sec",
        better="lower",
        definition="mean time of one generate call for the whole batch",
        formula=metrics.latency_s,
        interval="the calls of one process, or the means of several",
        samples="whole_s",
        best="lowest latency",
        headline=True,
    ),
    Figure(
        name="first_token_s",
        key="first-token",
        title="Time to first token",
        unit="msec",
        better="lower",
        definition="TTFT, prefill: mean time of a call of the same shape with max_new_tokens=1",
        formula=metrics.first_token_s,
        interval="the calls of one process, or the means of several",
        samples="first_token_s",
        spec=".1f",
        scale=1000,
    ),
    Figure(
        name="prompt_tok_per_s",
        key="prompt-throughput",
        title="Prompt throughput",
        unit="prompt tokens/sec",
        better="higher",
        definition="prompt tokens/sec, prefill throughput = batch_size x prompt tokens / TTFT",
        formula=metrics.prompt_tok_per_s,
        interval="that of the TTFT",
        spec=".1f",
        beside="first_token_s",
    ),
    Figure(
        name="decode_tok_per_s",
        key="decode",
        title="Decode",
        unit="tokens/sec",
        better="higher",
        definition="tokens/sec = batch_size x (new tokens - 1) / (latency - TTFT); blank where the 95 % interval of "
        "latency - TTFT reaches zero",
        formula=metrics.decode_tok_per_s,
        interval="that of latency - TTFT",
    ),
    Figure(
        name="time_per_output_token_s",
        key="time-per-output-token",
        title="Time per output token",
        unit="msec/token of a row",
        better="lower",
        definition="time per output token, TPOT = (latency - TTFT) / (new tokens - 1)",
        formula=metrics.time_per_output_token_s,
        interval="that of latency - TTFT",
        scale=1000,
        beside="decode_tok_per_s",
        best="fastest token",
        has_chart=False,
    ),
    _limit(
        "whole",
        "% of limit",
        key="limit",
        title="Distance from the limit",
        definition="% of limit = the least time that the machine's memory bandwidth and arithmetic allow / the "
        "measured time; m: bound by memory, a: by arithmetic; ?: limit unknown, because the cell is faster than that",
        best="nearest to the limit",
    ),
    _limit(
        "prefill",
        "% in prefill",
        key="prefill-limit",
        title="Distance of prefill from its limit",
        definition="% in prefill: the same for the first token",
        beside="whole_limit_share",
        has_chart=False,
    ),
    _limit(
        "decode",
        "% in decode",
        key="decode-limit",
        title="Distance of decode from its limit",
        definition="% in decode: the same for all tokens after it",
        beside="whole_limit_share",
        has_chart=False,
    ),
    Figure(
        name="energy_per_token_j",
        key="energy",
        title="Energy",
        unit="joules/token",
        better="lower",
        definition="counted by the device over the timed calls, prefill inside",
        formula=metrics.energy_per_token_j,
        interval="the resolution of the counter",
        spec=".3g",
        best="least energy",
    ),
    Figure(
        name="peak_memory_bytes",
        key="memory",
        title="Peak memory",
        unit="GB",
        better="lower",
        definition="the most that a process took: allocated on the device, or resident of the host",
        formula=metrics.peak_memory_bytes,
        spec=".3g",
        scale=1e-9,
        has_table=False,
    ),
)
BY_NAME: Mapping[str, Figure] = {figure.name: figure for figure in FIGURES}
#: The figures that two cells can be compared in, by the name on a command line.
COMPARED: Mapping[str, Figure] = {figure.key: figure for figure in FIGURES if figure.samples}


def table_of(figure: Figure) -> tuple[Figure, ...]:
    """The figures that are printed side by side in the table of a figure, itself first."""
    return (figure, *(other for other in FIGURES if other.beside == figure.name))
