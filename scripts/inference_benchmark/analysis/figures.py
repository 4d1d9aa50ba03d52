"""The catalogue of figures: one row for every number in summary.csv, with its name, its texts and its formula.

summary.csv, tables, charts, tooltips, the report, comparisons and docs/method.md all read this table. To add a figure,
write its formula in metrics.py and its row here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter, itemgetter, methodcaller
from typing import Any, Literal, get_args

from inference_benchmark.analysis import metrics, quality
from inference_benchmark.analysis.batch_invariance import NEAR_TIE
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.analysis.timeline import KINDS
from inference_benchmark.units import format_figure

#: What figures are about, and what the formulas of a group take; those of the last two are given as they are.
Group = Literal[
    "performance",  # a MeasuredCell: has a table and a chart
    "samples",  # a MeasuredCell
    "limits",  # a MeasuredCell
    "largest batch",  # a BatchLimit
    "answers",  # the result of a divergence study
    "batch",  # BatchAnswers
    "quality",  # the results of a quality study
    "steps",  # a Timeline
    "kinds",  # a Timeline with a profile
    "ratios",  # to the same cell of another column
    "process",  # seconds, bytes and parameters of the measuring processes
]


#: The timed calls of a cell: the whole ones, and those for one token.
Calls = Literal["whole_s", "first_token_s"]


@dataclass(frozen=True)
class Figure:
    """A figure of a cell.

    name: its column in summary.csv, the unit at its end. title, unit: as people read them. definition: how it is worked
    out, for the text above its table. formula: from what its group takes; None where a cell does not have the figure.
    interval: where its interval comes from; None for a figure without one. spec: format of a printed value, unless that
    is too small for it (units.format_figure). scale: what turns a value into the printed unit.

    For the group ``performance`` alone: key: its name on command lines and in the names of files. better: which values
    are. samples: the calls that it is a mean or rate of, so that two cells can be compared in it. rests_on: the calls
    that must repeat well for it. side_by_side_with: the figure in whose table it is printed. phase: of which it is the
    share of the limit; what the limit is due to is printed behind the value. warnings: those of a cell that are about
    it. best: what the best value of a grid is called at the top of the report. headline: has a table and chart files
    even where nothing was measured.
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
    samples: Calls | None = None
    rests_on: tuple[Calls, ...] = ("whole_s",)
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

    def in_unit(self, value: float) -> float:
        """A value in the unit that people read, a share in percent."""
        return value * (100 if self.is_share else self.scale)

    def text(self, value: float | None) -> str:
        """A value as tables print it, with its sign if the format has one; blank for None."""
        if value is None:
            return ""
        value *= self.scale
        return format(value, self.spec) if self.spec.startswith("+") else format_figure(value, self.spec)

    def text_of(self, estimate: Estimate | None) -> str:
        """An estimate with its interval: ``1.12 (1.08 to 1.16)``; blank for None."""
        if estimate is None:
            return ""
        value, low, high = map(self.text, estimate)
        return f"{value} ({low} to {high})" if low else value

    def estimate(self, source: Any) -> Estimate | None:
        """Its value, with the interval if it has one, from what its group takes."""
        value = self.formula(source)
        return value if value is None or isinstance(value, Estimate) else Estimate(value)

    def _end(self, which: str) -> str:
        stem, unit = re.fullmatch(r"(.+?)((?:_tok)?(?:_per)?_[a-z]+)", self.name).groups()
        return f"{stem}_{which}{unit}"


def _limit(phase: str, title: str, unit: str, definition: str, **more: Any) -> Figure:
    formula, warnings = partial(metrics.limit_share, phase=phase), ("flags", "limit_flags")
    about = {"interval": "that of the measured time", "spec": ".1%", "better": "higher", "warnings": warnings}
    return Figure(f"{phase}_limit_share", title, unit, definition, formula, phase=phase, **about, **more)


_PERFORMANCE = (
    Figure("throughput_tok_per_s", "Throughput", "tokens/sec",
           "tokens/sec = batch_size x new tokens / latency, prompt processing inside", metrics.throughput_tok_per_s,
           interval="that of the latency", key="throughput", better="higher", samples="whole_s",
           best="best throughput", headline=True),
    Figure("ms_per_token", "Time per token of the whole batch", "msec/token",
           "msec/token = 1000 / (tokens/sec)", metrics.time_per_token_ms,
           key="time-per-token", samples="whole_s", side_by_side_with="throughput_tok_per_s", has_chart=False),
    Figure("latency_s", "Latency", "sec",
           "mean time of one generate call for the whole batch", attrgetter("latency_s"),
           interval="the calls of one process, or the means of several", key="latency", samples="whole_s",
           best="lowest latency", headline=True),
    Figure("first_token_s", "Time to first token", "msec",
           "TTFT, prefill: mean time of a call of the same shape with max_new_tokens=1",
           attrgetter("first_token_latency_s"), interval="the calls of one process, or the means of several",
           spec=".1f", scale=1000, key="first-token", samples="first_token_s", rests_on=("first_token_s",)),
    Figure("prompt_tok_per_s", "Prompt throughput", "prompt tokens/sec",
           "prompt tokens/sec, prefill throughput = batch_size x prompt tokens / TTFT", metrics.prompt_tok_per_s,
           interval="that of the TTFT", spec=".1f", key="prompt-throughput", better="higher",
           rests_on=("first_token_s",),
           side_by_side_with="first_token_s"),
    Figure("decode_tok_per_s", "Decode", "tokens/sec",
           "tokens/sec = batch_size x (new tokens - 1) / (latency - TTFT); blank where the 95 % interval of "
           "latency - TTFT reaches zero", metrics.decode_tok_per_s,
           interval="that of latency - TTFT", key="decode", better="higher", rests_on=get_args(Calls)),
    Figure("time_per_output_token_s", "Time per output token", "msec/token of a row",
           "time per output token, TPOT = (latency - TTFT) / (new tokens - 1)", metrics.time_per_output_token_s,
           interval="that of latency - TTFT", scale=1000, key="time-per-output-token", rests_on=get_args(Calls),
           side_by_side_with="decode_tok_per_s", best="fastest token", has_chart=False),
    _limit("whole", "Share of the limit", "% of limit",
           "% of limit = the least time that the machine's memory bandwidth and arithmetic allow / the measured time; "
           "m: bound by memory, a: by arithmetic, l: by a link; ?: limit unknown, because the cell is faster than that",
           key="limit", best="nearest to the limit"),
    _limit("prefill", "Share of the limit of prefill", "% in prefill", "% in prefill: the same for the first token",
           key="prefill-limit", rests_on=("first_token_s",), side_by_side_with="whole_limit_share", has_chart=False),
    _limit("decode", "Share of the limit of decode", "% in decode", "% in decode: the same for all tokens after it",
           key="decode-limit", rests_on=get_args(Calls), side_by_side_with="whole_limit_share", has_chart=False),
    Figure("energy_per_token_j", "Energy", "joules/token",
           "counted by the device over the timed calls, prefill inside", metrics.energy_per_token_j,
           interval="the resolution of the counter", spec=".3g", key="energy", best="least energy"),
    Figure("peak_memory_bytes", "Peak memory", "GB",
           "the most that a process took: allocated on the device, or resident of the host", metrics.peak_memory_bytes,
           spec=".3g", scale=1e-9, key="memory", has_table=False),
)  # fmt: skip

_samples = partial(Figure, group="samples", spec=".4g")
_answers = partial(Figure, group="answers", spec=".1%")
_batch = partial(Figure, group="batch", rests_on=(), warnings=())
_quality = partial(Figure, group="quality", interval="the windows of the text")
_steps = partial(Figure, group="steps")
_ratios = partial(Figure, group="ratios", interval="the ratios of the rounds")
_process = partial(Figure, group="process", spec=",.0f")

_OTHERS = (
    _samples("processes", "processes", "", "that measured the cell, one per round",
             lambda cell: len(cell.whole_s), spec=".0f"),
    _samples("cycles", "calls", "", "timed whole calls of all processes",
             lambda cell: len(cell.whole_calls_s), spec=".0f"),
    Figure("max_batch_fits", "max batch", "", "the largest that fits", attrgetter("fits"), "largest batch", spec=".0f"),
    Figure("max_batch_fails", "fails", "", "the smallest that does not fit", attrgetter("fails"), "largest batch",
           spec=".0f"),
    _samples("latency_median_s", "median", "sec", "of all whole calls",
             partial(metrics.latency_percentile_s, percent=50)),
    _samples("latency_sd_s", "standard deviation", "sec", "of all whole calls (n - 1)", metrics.latency_sd_s),
    _samples("latency_p95_s", "95th percentile", "sec", "of all whole calls, if there are 20", metrics.latency_p95_s),
    _samples("latency_min_s", "shortest call", "sec", "", partial(metrics.latency_percentile_s, percent=0)),
    _samples("latency_max_s", "longest call", "sec", "", partial(metrics.latency_percentile_s, percent=100)),
    _samples("outliers", "outliers", "", "calls outside Tukey's fences of their process", spec=".0f"),
    _samples("drift", "drift", "% of the median", "from the first call to the last", spec="+.1%"),
    *(Figure(f"{phase}_floor_s", f"limit of {phase}", "sec", "the least time that bandwidth and arithmetic allow",
             partial(metrics.floor_s, phase=phase), "limits", spec=".4g") for phase in metrics.PHASES),
    _answers("token_agreement", "same tokens", "%", "tokens of the answers that are those of hf in fp32",
             itemgetter("token_agreement")),
    _answers("first_difference", "first difference", "token", "the earliest place in a row where the answers part",
             lambda result: min((step for step in result["first_difference"] if step is not None), default=None),
             spec=".0f"),
    _answers("next_token_agreement", "same next token", "%", "given the tokens of the reference before it",
             itemgetter("next_token_agreement")),
    *(_answers(f"logits_error_{what}", f"logits error, {what}", "", "of the reference's, as a part of their spread",
               lambda result, what=what: result["logits_error"][what], spec=".2g") for what in ("mean", "max")),
    *(_answers(f"kl_{what}_nats", f"KL divergence, {what}", "nats", "of the next token, from the reference",
               lambda result, what=what: result["kl_nats"][what], spec=".2g") for what in ("mean", "max")),
    _batch("batch_token_agreement", "Same tokens as at batch 1", "% of tokens",
           "% of tokens = those that are the same when a row is answered alone, at batch 1 of the same column",
           attrgetter("token_agreement"), spec=".1%"),
    _batch("batch_gap", "gap", "gap", "gap = the largest distance of both tokens' logits where a row first differs, in "
           "standard deviations of all logits", attrgetter("gap"), spec=".2g",
           side_by_side_with="batch_token_agreement"),
    _batch("batch_gap_errors", "gap, times the logits error", "gap / logits error",
           f"gap / logits error of the column: up to {NEAR_TIE} rounding explains the difference, a near-tie",
           attrgetter("gap_errors"), spec=".2g", side_by_side_with="batch_token_agreement"),
    _quality("text_perplexity", "perplexity", "", "of the text that grid.DEVICE.quality names", quality.perplexity),
    _quality("text_perplexity_ratio", "perplexity, times that of hf fp32", "", "window by window",
             quality.perplexity_ratio, spec=".3f"),
    _quality("text_kl_mean_nats", "KL divergence over the text, mean", "nats", "of the next token, from hf in fp32",
             quality.kl_mean_nats, spec=".2g"),
    _quality("text_kl_p99_nats", "KL divergence over the text, p99", "nats", "the same, of all scored tokens",
             quality.kl_p99_nats, spec=".2g"),
    _quality("text_next_token_agreement", "same best token over the text", "%",
             "as that of hf in fp32, given the text before it", quality.same_best, spec=".1%"),
    _steps("first_step_s", "first step", "ms", "prefill", lambda timeline: timeline.step_s[0], scale=1000),
    *(_steps(f"step_p{percent}_s", f"p{percent}", "ms", "of all later steps of all calls",
             methodcaller("decode_percentile_s", percent), scale=1000) for percent in (50, 95, 99)),
    _steps("last_step_s", "last step", "ms", "",
           lambda timeline: timeline.decode_s[-1] if timeline.decode_s else None, scale=1000),
    _steps("step_growth", "growth", "", "of a step over the answer", attrgetter("growth"), spec="+.1%"),
    _steps("step_memory_growth_bytes", "memory growth", "MB", "from the end of the first step to that of the last",
           attrgetter("memory_growth_bytes"), spec="+,.1f", scale=1e-6),
    _steps("steps_s", "all steps", "sec", "of a call, mean over the calls", attrgetter("call_s"), spec=".3f"),
    _steps("steps_cost", "cost of timing", "", "by how much longer calls took whose steps were timed",
           attrgetter("observing_cost"), spec="+.1%"),
    Figure("profile_cost", "cost of profiling", "", "by how much longer the profiled call took",
           attrgetter("profiling_cost"), "kinds", spec="+.0%"),
    *(Figure(f"{kind}_share", title, "% of a call", "by torch's profiler",
             lambda timeline, kind=kind: (timeline.shares or {}).get(kind), "kinds", spec=".1%")
      for kind, title in KINDS.items()),
    _ratios("engine_ratio", "times the engine's throughput", "", "of a variant of an engine"),
    _ratios("environment_ratio", "times the current environment's throughput", "",
            "of the same cell in another environment"),
    _process("load_s", "loading", "sec", "the weights, from disk to device, in the first round", spec=".4g"),
    _process("first_call_s", "first call", "sec", "with all one-time work", spec=".4g"),
    _process("compile_s", "compiling", "sec", spec=".4g"),
    _process("waited_s", "waiting", "sec", "for others to leave the CPUs alone, in all rounds", spec=".3g"),
    _process("retakes", "retakes", "", "measurements set aside because they were disturbed, in all rounds"),
    _process("loaded_bytes", "memory after loading", "bytes"),
    _process("peak_rss_bytes", "peak resident memory", "bytes", "of the host"),
    _process("peak_allocated_bytes", "peak allocated memory", "bytes", "of tensors on the device"),
    _process("peak_reserved_bytes", "peak reserved memory", "bytes", "by the engine's allocator on the device"),
    _process("device_total_bytes", "memory of the device", "bytes"),
    _process("memory_share", "share of the memory", "%", "peak memory of the device's, the host's or its limit",
             spec=".1%"),
    _process("parameters", "parameters", "", "of the loaded model"),
    _process("weights_bytes", "weights", "bytes", "as they are loaded"),
)  # fmt: skip

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
