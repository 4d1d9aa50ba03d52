"""The summary as Markdown: throughput and latency, one row per batch size, one column per precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas

from inference_benchmark.precision import PRECISIONS
from inference_benchmark.units import format_bytes

ENDINGS = {"oom": "oom", "unsupported": "n/a"}

Show = Callable[[Mapping[str, Any]], str]


def throughput_text(row: Mapping[str, Any]) -> str:
    """A measured cell in the throughput table: tokens/sec, msec/token."""
    return f"{row['throughput_tok_per_s']:.2f} \\| {row['ms_per_token']:.2f}"


def latency_text(row: Mapping[str, Any]) -> str:
    """A measured cell in the latency table: seconds."""
    return f"{row['latency_s']:.2f}"


def groups(summary: pandas.DataFrame) -> Iterator[tuple[str, str, pandas.DataFrame]]:
    """(model, workload, their rows) in the summary's order."""
    for (model, workload), rows in summary.groupby(["model", "workload"], sort=False):
        yield model, workload, rows


def columns(rows: pandas.DataFrame) -> list[tuple[str, str]]:
    """The (engine, precision) pairs that make the columns, in the summary's order."""
    return list(dict.fromkeys(zip(rows["engine"], rows["precision"], strict=True)))


def heading(engine: str, precision: str, several_engines: bool) -> str:
    """A column's heading; the engine is named where there are several."""
    return f"{engine}<br>{PRECISIONS[precision].heading}" if several_engines else PRECISIONS[precision].heading


def table(rows: pandas.DataFrame, show: Show) -> tuple[list[str], list[list[str]]]:
    """(headings, cells) of one model and workload: what show makes of a measured cell, ``oom`` where it did
    not fit, ``n/a`` where the device or library cannot do it, blank where there is no record."""
    pairs = columns(rows)
    several = len({engine for engine, _ in pairs}) > 1
    headings = ["batch_size", *(heading(engine, precision, several) for engine, precision in pairs)]
    shown: dict[tuple[str, str, int], str] = {}
    for row in rows.to_dict("records"):
        text = show(row) if row["outcome"] == "ok" else ENDINGS.get(row["outcome"], "")
        shown[row["engine"], row["precision"], row["batch_size"]] = text
    batch_sizes = sorted(set(rows["batch_size"]))
    return headings, [[str(b), *(shown.get((*pair, b), "") for pair in pairs)] for b in batch_sizes]


def markdown(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned to be read as text too: headings centred, cells to the left."""
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]

    def line(texts: Sequence[str], align: Callable[[str, int], str]) -> str:
        return "| " + " | ".join(align(text, width) for text, width in zip(texts, widths, strict=True)) + " |\n"

    rule = "|" + "|".join(f":{'-' * width}:" for width in widths) + "|\n"
    return line(headings, str.center) + rule + "".join(line(row, str.ljust) for row in cells)


def document(summary: pandas.DataFrame) -> str:
    """tables.md: for each model and workload both tables, with what stands in them."""
    parts = []
    for model, _, rows in groups(summary):
        first = rows.iloc[0]
        engines = ", ".join(dict.fromkeys(rows["engine"]))
        parts.append(
            f"### {model} on {first['machine']}\n\n"
            f"{first['prompt_tokens']} prompt tokens, {first['new_tokens']} new tokens per sequence; "
            f"engine: {engines}. "
            "Greedy, every row generated to full length; prompt processing is inside every figure."
            f"{_legend(rows)}\n\n"
            "Throughput (tokens/sec | msec/token): tokens/sec = batch_size x new tokens x cycles / total time, "
            "msec/token = 1000 / (tokens/sec).\n\n"
            f"{markdown(*table(rows, throughput_text))}\n"
            "Latency (sec): mean time of one generate call for the whole batch.\n\n"
            f"{markdown(*table(rows, latency_text))}"
        )
    return "\n".join(parts)


def _legend(rows: pandas.DataFrame) -> str:
    """What the words in the cells mean, for those that occur."""
    text = ""
    if "oom" in set(rows["outcome"]):
        limit = rows["memory_limit_bytes"].iloc[0]
        within = "" if pandas.isna(limit) else f" under a memory limit of {format_bytes(limit)}"
        text += f" `oom`: out of memory{within}."
    if "unsupported" in set(rows["outcome"]):
        text += " `n/a`: this device or library cannot do it."
    if "fake" in set(rows["engine"]):
        text += " **The engine `fake` makes up its times: these figures are no measurement.**"
    return text
