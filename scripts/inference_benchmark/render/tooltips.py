"""What a point of a chart says when it is pointed at: every figure of its cell, and the evidence for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas

from inference_benchmark.compare.comparison import ComparedCell
from inference_benchmark.render.cell_texts import width_text
from inference_benchmark.render.columns import said
from inference_benchmark.units import format_bytes, format_number

Row = Mapping[str, Any]


def _figure(column: str, unit: str, factor: float = 1) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        if pandas.isna(row[column]):
            return ""
        return f"{format_number(row[column] * factor, 4)} {unit}{width_text(row, column)}"

    return show


def _latency(row: Row) -> str:
    text = _figure("latency_s", "s")(row)
    return (
        text
        and f"{text}; median {row['latency_median_s']:.4g}, {row['latency_min_s']:.4g} to {row['latency_max_s']:.4g}"
    )


def _samples(row: Row) -> str:
    if pandas.isna(row["cycles"]):
        return ""
    outliers = "" if pandas.isna(row["outliers"]) else f", {row['outliers']:.0f} outliers"
    return f"{row['cycles']:.0f} calls in {row['processes']:.0f} process{'es' * (row['processes'] > 1)}{outliers}"


def _limit(row: Row) -> str:
    shares = (
        f"{phase} {row[f'{phase}_limit_share']:.1%} ({row[f'{phase}_bound_by']})"
        for phase in ("whole", "prefill", "decode")
        if not pandas.isna(row[f"{phase}_limit_share"])
    )
    return ", ".join(shares)


def peak_bytes(row: Mapping[str, Any]) -> float:
    """What a cell held at its most: reserved of the device, or resident of the host."""
    return row["peak_rss_bytes"] if pandas.isna(row["peak_reserved_bytes"]) else row["peak_reserved_bytes"]


def _memory(row: Row) -> str:
    if pandas.isna(row["memory_share"]):
        return ""
    return f"{format_bytes(peak_bytes(row))}, {row['memory_share']:.1%} of what there is"


def _energy(row: Row) -> str:
    if pandas.isna(row["energy_per_token_j"]):
        return ""
    return f"{row['energy_per_token_j']:.3g} ± {row['energy_per_token_resolution_j']:.1g} J/token"


#: What a tip says, in its order.
LINES: Mapping[str, Callable[[Row], str]] = {
    "throughput": _figure("throughput_tok_per_s", "tokens/sec"),
    "latency": _latency,
    "time to first token": _figure("first_token_s", "ms", 1000),
    "time per output token": _figure("time_per_output_token_s", "ms", 1000),
    "decode": _figure("decode_tok_per_s", "tokens/sec"),
    "of the limit": _limit,
    "peak memory": _memory,
    "energy": _energy,
    "samples": _samples,
    "not stable": lambda row: said(row, "unstable_because"),
    "flags": lambda row: said(row, "flags"),
    "ended during": lambda row: said(row, "reason_phase"),
    "record": lambda row: said(row, "record"),
}


def tip(row: Row) -> dict[str, str]:
    """The lines of a cell that say anything, by their names in LINES."""
    return {name: text for name, show in LINES.items() if (text := show(row))}


def baseline_tip(cell: ComparedCell) -> dict[str, str]:
    """The same of a cell of a baseline, which has figures and nothing else."""
    names = {
        "throughput_tok_per_s": ("throughput", "tokens/sec"),
        "latency_s": ("latency", "s"),
        "first_token_s": ("time to first token", "s"),
    }
    return {names[column][0]: f"{format_number(value, 4)} {names[column][1]}" for column, value in cell.base.items()}
