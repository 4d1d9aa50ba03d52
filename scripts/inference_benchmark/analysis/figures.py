"""The catalogue of figures: one row for every number in summary.csv, with its name, its texts and its formula.

summary.csv, tables, charts, tooltips, the report, comparisons and docs/method.md all read this table. To add a figure,
write its formula in metrics.py and its row here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter, itemgetter
from typing import Any, Literal, get_args

from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.analysis.timeline import KINDS, Timeline
from inference_benchmark.units import format_figure

#: What figures are about, and what the formulas of a group take; those of the last two are given as they are.
Group = Literal[
    "performance",  # a MeasuredCell: has a table and a chart
    "samples",  # a MeasuredCell
    "limits",  # a MeasuredCell
    "largest batch",  # a BatchLimit
    "answers",  # the result of a divergence study
    "steps",  # a Timeline
    "kinds",  # a Timeline with a profile
    "ratios",  # to the same cell of another column
    "process",  # seconds, bytes and parameters of the measuring processes
]


@dataclass(frozen=True)
class Figure:
    """A figure of a cell.

    name: its column in summary.csv, the unit at its end. title, unit: as people read them. definition: how it is worked
    out, for the text above its table. formula: from what its group takes; None where a cell does not have the figure.
    interval: where its interval comes from; None for a figure without one. spec: format of a printed value, unless that
    is too small for it (units.format_figure). scale: what turns a value into the printed unit.

    For the group ``performance`` alone: key: its name on command lines and in the names of files. better: which values
    are. samples: the calls that it is a mean or rate of, so that two cells can be compared in it. side_by_side_with:
    the figure in whose table it is printed. phase: of which it is the share of the limit; what the limit is due to is
    printed behind the value. warnings: those of a cell that are about it. best: what the best value of a grid is called
    at the top of the report. headline: has a table and chart files even where nothing was measured.
    """

    name: str
    title: str
    unit: str = ""
    definition: str = ""
    formula: Callable[[Any], Any] | None = None
    group: Group = "performance"
    interval: str | None = None
    spec: str = ".2f"
    scale: float = 1
    key: str = ""
    better: Literal["higher", "lower"] = "lower"
    samples: Literal["whole_s", "first_token_s"] | None = None
    side_by_side_with: str | None = None
    phase: str | None = None
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
    def heading(self) -> str:
        """``Latency (sec)``"""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def is_share(self) -> bool:
        """Whether it is printed in percent."""
        return self.spec.endswith("%")

    def text(self, value: float | None) -> str:
        """A value as tables print it, with its sign if the format has one; blank for None."""
        if value is None:
            return ""
        value *= self.scale
        return format(value, self.spec) if self.spec.startswith("+") else format_figure(value, self.spec)

    def estimate(self, source: Any) -> Estimate | None:
        """Its value, with the interval if it has one, from what its group takes."""
        value = self.formula(source)
        return value if value is None or isinstance(value, Estimate) else Estimate(value)

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
        phase=phase,
        warnings=("flags", "limit_flags"),
        **more,
    )


_PERFORMANCE = (
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
        side_by_side_with="throughput_tok_per_s",
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
        side_by_side_with="first_token_s",
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
        side_by_side_with="decode_tok_per_s",
        best="fastest token",
        has_chart=False,
    ),
    _limit(
        "whole",
        "% of limit",
        key="limit",
        title="Share of the limit",
        definition="% of limit = the least time that the machine's memory bandwidth and arithmetic allow / the "
        "measured time; m: bound by memory, a: by arithmetic; ?: limit unknown, because the cell is faster than that",
        best="nearest to the limit",
    ),
    _limit(
        "prefill",
        "% in prefill",
        key="prefill-limit",
        title="Share of the limit of prefill",
        definition="% in prefill: the same for the first token",
        side_by_side_with="whole_limit_share",
        has_chart=False,
    ),
    _limit(
        "decode",
        "% in decode",
        key="decode-limit",
        title="Share of the limit of decode",
        definition="% in decode: the same for all tokens after it",
        side_by_side_with="whole_limit_share",
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

_OTHERS = (
    *(
        Figure(name, title, "", definition, formula, group, spec=".0f")
        for name, title, definition, formula, group in (
            ("processes", "processes", "that measured the cell, one per round", metrics.processes, "samples"),
            ("cycles", "calls", "timed whole calls of all processes", metrics.cycles, "samples"),
            ("max_batch_fits", "max batch", "the largest that fits", attrgetter("fits"), "largest batch"),
            ("max_batch_fails", "fails", "the smallest that does not fit", attrgetter("fails"), "largest batch"),
        )
    ),
    *(
        Figure(f"latency_{name}_s", title, "sec", definition, formula, "samples", spec=".4g")
        for name, title, definition, formula in (
            ("median", "median", "of all whole calls", partial(metrics.latency_percentile_s, percent=50)),
            ("sd", "standard deviation", "of all whole calls (n - 1)", metrics.latency_sd_s),
            ("p95", "95th percentile", "of all whole calls, if there are 20", metrics.latency_p95_s),
            ("min", "shortest call", "", partial(metrics.latency_percentile_s, percent=0)),
            ("max", "longest call", "", partial(metrics.latency_percentile_s, percent=100)),
        )
    ),
    Figure("outliers", "outliers", "", "calls outside Tukey's fences of their process", group="samples", spec=".0f"),
    Figure("drift", "drift", "% of the median", "from the first call to the last", group="samples", spec="+.1%"),
    *(
        Figure(
            f"{phase}_floor_s",
            f"limit of {phase}",
            "sec",
            "the least time that bandwidth and arithmetic allow",
            partial(metrics.floor_s, phase=phase),
            "limits",
            spec=".4g",
        )
        for phase in metrics.PHASES
    ),
    Figure(
        "token_agreement",
        "same tokens",
        "%",
        "tokens of the answers that are those of hf in fp32",
        itemgetter("token_agreement"),
        "answers",
        spec=".1%",
    ),
    Figure(
        "first_difference",
        "first difference",
        "token",
        "the earliest place in a row where the answers part",
        lambda result: min((step for step in result["first_difference"] if step is not None), default=None),
        "answers",
        spec=".0f",
    ),
    Figure(
        "next_token_agreement",
        "same next token",
        "%",
        "given the tokens of the reference before it",
        itemgetter("next_token_agreement"),
        "answers",
        spec=".1%",
    ),
    *(
        Figure(
            f"{name}_{what}{unit}",
            f"{title}, {what}",
            unit.strip("_"),
            definition,
            lambda result, name=name, unit=unit, what=what: result[name + unit][what],
            "answers",
            spec=".2g",
        )
        for name, unit, title, definition in (
            ("logits_error", "", "logits error", "of the reference's, as a part of their spread"),
            ("kl", "_nats", "KL divergence", "of the next token, from the reference"),
        )
        for what in ("mean", "max")
    ),
    *(
        Figure(name, title, "ms", definition, formula, "steps", scale=1000)
        for name, title, definition, formula in (
            ("first_step_s", "first step", "prefill", lambda timeline: timeline.step_s[0]),
            *(
                (
                    f"step_p{percent}_s",
                    f"p{percent}",
                    "of all later steps of all calls",
                    partial(Timeline.decode_percentile_s, percent=percent),
                )
                for percent in (50, 95, 99)
            ),
            ("last_step_s", "last step", "", lambda timeline: timeline.decode_s[-1] if timeline.decode_s else None),
        )
    ),
    Figure("step_growth", "growth", "", "of a step over the answer", attrgetter("growth"), "steps", spec="+.1%"),
    Figure(
        "step_memory_growth_bytes",
        "memory growth",
        "MB",
        "from the end of the first step to that of the last",
        attrgetter("memory_growth_bytes"),
        "steps",
        spec="+,.1f",
        scale=1e-6,
    ),
    Figure("steps_s", "all steps", "sec", "of a call, mean over the calls", attrgetter("call_s"), "steps", spec=".3f"),
    Figure(
        "steps_cost",
        "cost of timing",
        "",
        "by how much longer calls took whose steps were timed",
        attrgetter("observing_cost"),
        "steps",
        spec="+.1%",
    ),
    Figure(
        "profile_cost",
        "cost of profiling",
        "",
        "by how much longer the profiled call took",
        attrgetter("profiling_cost"),
        "kinds",
        spec="+.0%",
    ),
    *(
        Figure(
            f"{kind}_share",
            title,
            "% of a call",
            "by torch's profiler",
            lambda timeline, kind=kind: (timeline.shares or {}).get(kind),
            "kinds",
            spec=".1%",
        )
        for kind, title in KINDS.items()
    ),
    *(
        Figure(f"{axis}_ratio", f"times {what}", "", definition, group="ratios", interval="the ratios of the rounds")
        for axis, what, definition in (
            ("engine", "the engine's throughput", "of a variant of an engine"),
            ("environment", "the current environment's throughput", "of the same cell in another environment"),
        )
    ),
    *(
        Figure(name, title, unit, definition, group="process", spec=spec)
        for name, title, unit, definition, spec in (
            ("load_s", "loading", "sec", "the weights, from disk to device, in the first round", ".4g"),
            ("first_call_s", "first call", "sec", "with all one-time work", ".4g"),
            ("compile_s", "compiling", "sec", "", ".4g"),
            ("loaded_bytes", "memory after loading", "bytes", "", ",.0f"),
            ("peak_rss_bytes", "peak resident memory", "bytes", "of the host", ",.0f"),
            ("peak_allocated_bytes", "peak allocated memory", "bytes", "of tensors on the device", ",.0f"),
            ("peak_reserved_bytes", "peak reserved memory", "bytes", "by the engine's allocator on the device", ",.0f"),
            ("device_total_bytes", "memory of the device", "bytes", "", ",.0f"),
            ("memory_share", "share of the memory", "%", "peak memory of the device's, the host's or its limit", ".1%"),
            ("parameters", "parameters", "", "of the loaded model", ",.0f"),
            ("weights_bytes", "weights", "bytes", "as they are loaded", ",.0f"),
        )
    ),
)

#: Every figure, in the order of tables, charts and columns.
FIGURES = (*_PERFORMANCE, *_OTHERS)
BY_NAME: Mapping[str, Figure] = {figure.name: figure for figure in FIGURES}
BY_GROUP: Mapping[Group, tuple[Figure, ...]] = {
    group: tuple(figure for figure in FIGURES if figure.group == group) for group in get_args(Group)
}
#: The figures that have tables, charts and tooltips.
PERFORMANCE = BY_GROUP["performance"]
#: The figures that two cells can be compared in, by the name on a command line.
COMPARED: Mapping[str, Figure] = {figure.key: figure for figure in FIGURES if figure.samples}


def estimates(group: Group, source: Any) -> dict[str, Estimate]:
    """The figures of a group that follow from what it takes, by name."""
    found = ((figure.name, figure.estimate(source)) for figure in BY_GROUP[group] if figure.formula)
    return {name: estimate for name, estimate in found if estimate is not None}


def table_of(figure: Figure) -> tuple[Figure, ...]:
    """The figures that are printed side by side in the table of a figure, itself first."""
    return (figure, *(other for other in FIGURES if other.side_by_side_with == figure.name))
