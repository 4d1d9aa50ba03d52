"""What a measured cell shows in each table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas

from inference_benchmark.render.columns import half_width, said

#: Behind a figure whose samples do not repeat well, and one measured under conditions to know of.
UNSTABLE, FLAGGED = "†", "‡"

Show = Callable[[Mapping[str, Any]], str]


def throughput_text(row: Mapping[str, Any]) -> str:
    """A measured cell in the throughput table: tokens/sec, msec/token."""
    return f"{row['throughput_tok_per_s']:.2f} \\| {row['ms_per_token']:.2f}"


def latency_text(row: Mapping[str, Any]) -> str:
    """A measured cell in the latency table: seconds."""
    return f"{row['latency_s']:.2f}"


def first_token_text(row: Mapping[str, Any]) -> str:
    """A measured cell in the table of first tokens: milliseconds."""
    return f"{row['first_token_s'] * 1000:.1f}"


def decode_text(row: Mapping[str, Any]) -> str:
    """A measured cell in the decode table: tokens/sec, msec per token of a row; blank where there is no decode."""
    if pandas.isna(row["decode_tok_per_s"]):
        return ""
    return f"{row['decode_tok_per_s']:.2f} \\| {row['time_per_output_token_s'] * 1000:.2f}"


def energy_text(row: Mapping[str, Any]) -> str:
    """A measured cell in the energy table: joules per token; blank where there was no counter."""
    if pandas.isna(row["energy_per_token_j"]):
        return ""
    return f"{row['energy_per_token_j']:.3g} ± {row['energy_per_token_resolution_j']:.1g}"


def limit_text(row: Mapping[str, Any]) -> str:
    """A measured cell in the table of limits; blank where the machine's ceilings are not known."""
    if pandas.isna(row["whole_limit_share"]):
        return ""
    parts = (
        f"{row[f'{phase}_limit_share']:.1%} {row[f'{phase}_bound_by'][0]}"
        for phase in ("prefill", "decode", "whole")
        if not pandas.isna(row[f"{phase}_limit_share"])
    )
    return " \\| ".join(parts) + (FLAGGED if said(row, "limit_flags") and not said(row, "flags") else "")


class Table(NamedTuple):
    """title: its heading. explanation: what its figures are. show: what a cell shows. figure: the column of the
    summary that it shows, whose interval stands beside it; None where there is no interval."""

    title: str
    explanation: str
    show: Show
    figure: str | None


TABLES = (
    Table(
        "Throughput (tokens/sec | msec/token)",
        "tokens/sec = batch_size x new tokens / latency, prompt processing inside; msec/token = 1000 / (tokens/sec).",
        throughput_text,
        "throughput_tok_per_s",
    ),
    Table("Latency (sec)", "mean time of one generate call for the whole batch.", latency_text, "latency_s"),
    Table(
        "Time to first token (msec)",
        "TTFT, prefill: mean time of a call of the same shape with max_new_tokens=1.",
        first_token_text,
        "first_token_s",
    ),
    Table(
        "Decode (tokens/sec | msec/token of a row)",
        "tokens/sec = batch_size x (new tokens - 1) / (latency - TTFT); "
        "time per output token, TPOT = (latency - TTFT) / (new tokens - 1).",
        decode_text,
        "decode_tok_per_s",
    ),
    Table(
        "Distance from the limit (% of limit: prefill | decode | whole)",
        "% of limit = the least time that the machine's memory bandwidth and arithmetic allow / the measured time; "
        f"m: bound by memory, a: by arithmetic; {FLAGGED} also where the machine was disturbed as that was measured.",
        limit_text,
        None,
    ),
    Table("Energy (joules/token)", "counted by the device over the timed calls, prefill inside.", energy_text, None),
)


def marked(row: Mapping[str, Any], text: str, figure: str | None = None) -> str:
    """A figure with half of its 95 % interval, where that is known, and the marks that its cell deserves."""
    marks = (UNSTABLE if said(row, "unstable_because") else "") + (FLAGGED if said(row, "flags") else "")
    return text + (width_text(row, figure) if figure else "") + marks if text else ""


def width_text(row: Mapping[str, Any], figure: str) -> str:
    """Half of the 95 % interval of a figure, to stand behind it; blank where that is not known."""
    width = half_width(row, figure)
    return "" if width is None else f" ±{width:.1%}"
