"""The summary as Markdown: one table per figure, one row per batch size, one column per precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas

from inference_benchmark import markdown
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.render.baseline_columns import baseline_columns, cells_of, ratio_table
from inference_benchmark.render.cell_texts import FLAGGED, TABLES, UNSTABLE, Show, latency_text, marked, throughput_text
from inference_benchmark.render.columns import ENDINGS, Column, Shown, column_of, columns, said
from inference_benchmark.units import format_bytes


def tables(rows: pandas.DataFrame, beside: Sequence[Comparison] = ()) -> Iterator[Shown]:
    """Every table that shows anything for these rows of one model and workload, baselines beside them."""
    for title, explanation, show, figure in TABLES:
        # Throughput and latency stand even where nothing fitted; the others only where there is a figure.
        if show not in (throughput_text, latency_text) and not any(show(r) for r in _measured(rows)):
            continue
        headings, cells = table(rows, show, figure)
        foot = column_rows(rows) if show is throughput_text else []
        for comparison in beside:
            more, texts = baseline_columns(rows, comparison, show, figure)
            headings += more
            cells = [[*row, *extra] for row, extra in zip(cells, texts, strict=True)]
            foot = [[*row, *([""] * len(more))] for row in foot]
        yield Shown(title, explanation, headings, cells, foot)
        if show is throughput_text:
            yield from (ratio_table(rows, comparison) for comparison in beside if cells_of(rows, comparison))


def _measured(rows: pandas.DataFrame) -> list[dict[str, Any]]:
    return rows[rows["outcome"] == "ok"].to_dict("records")


def groups(summary: pandas.DataFrame) -> Iterator[tuple[str, str, pandas.DataFrame]]:
    """(model, workload, their rows) in the summary's order, of one machine after the other."""
    for (_, model, workload), rows in summary.groupby(["machine", "model", "workload"], sort=False):
        yield model, workload, rows


def table(rows: pandas.DataFrame, show: Show, figure: str | None = None) -> tuple[list[str], list[list[str]]]:
    """(headings, cells) of one model and workload: what show makes of a measured cell, ``oom`` where it did
    not fit, ``n/a`` where the device or library cannot do it, blank where there is no record."""
    keys = columns(rows)
    shown: dict[tuple[Column, int], str] = {}
    for row in rows.to_dict("records"):
        text = marked(row, show(row), figure) if row["outcome"] == "ok" else ENDINGS.get(row["outcome"], "")
        shown[column_of(row), row["batch_size"]] = text
    batch_sizes = sorted(set(rows["batch_size"]))
    return ["batch_size", *keys.values()], [[str(b), *(shown.get((key, b), "") for key in keys)] for b in batch_sizes]


def max_batch_text(row: Mapping[str, Any]) -> str:
    """The largest batch that fits, of a column; blank where it was not looked for."""
    return "" if pandas.isna(row["max_batch_fits"]) else f"{row['max_batch_fits']:.0f}"


def agreement_text(row: Mapping[str, Any]) -> str:
    """How far a column's answers are those of hf in fp32; blank where they were not compared."""
    if pandas.isna(row["token_agreement"]):
        return ""
    error = row["logits_error_mean"]
    return f"{row['token_agreement']:.1%} \\| " + ("n/a" if pandas.isna(error) else f"{error:.2g}")


#: What holds for a whole column, below its batch sizes.
COLUMN_ROWS = (("max batch", max_batch_text), ("same tokens \\| logits error", agreement_text))


def column_rows(rows: pandas.DataFrame) -> list[list[str]]:
    """The rows of a table that hold for whole columns, those of them that say anything."""
    first = {column_of(row): row for row in reversed(rows.to_dict("records"))}
    found = [[title, *(show(first[key]) for key in columns(rows))] for title, show in COLUMN_ROWS]
    return [row for row in found if any(row[1:])]


def document(
    summary: pandas.DataFrame, beside: Sequence[Comparison] = (), picture: Callable[[str, str], str] | None = None
) -> str:
    """tables.md: for each model and workload every table, with what stands in it. picture: what to put before the
    tables of a model and workload."""
    parts = []
    for model, workload, rows in groups(summary):
        first = rows.iloc[0]
        engines = ", ".join(dict.fromkeys(rows["engine"]))
        parts.append(
            f"### {model} on {first['machine']}\n\n"
            f"{first['prompt_tokens']} prompt tokens, {first['new_tokens']} new tokens per sequence; "
            f"engine: {engines}. "
            f"Greedy, every row generated to full length. ± is half of the 95 % interval.{_legend(rows)}\n\n"
            + (f"{picture(model, workload)}\n\n" if picture else "")
            + "\n".join(
                f"{shown.title}: {shown.explanation}\n\n" + markdown.table(shown.headings, shown.cells + shown.foot)
                for shown in tables(rows, beside)
            )
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
        text += " `n/a`: this engine, library or device cannot do it."
    measured = _measured(rows)
    if any(said(row, "unstable_because") for row in measured):
        text += f" {UNSTABLE}: the samples do not repeat well; summary.csv says why."
    if any(said(row, "flags") for row in measured):
        text += f" {FLAGGED}: measured under conditions to know of; summary.csv has them."
    if "fake" in set(rows["engine"]):
        text += " **The engine `fake` makes up its times: these figures are no measurement.**"
    return text
