"""The summary as Markdown: one table per figure, one row per batch size, one column per precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas

from inference_benchmark import markdown, metrics
from inference_benchmark.comparison import ComparedCell, Comparison
from inference_benchmark.comparison_text import SIGNS, ratio_text
from inference_benchmark.engines import ENGINES
from inference_benchmark.metrics import interval_columns
from inference_benchmark.statistics import Estimate
from inference_benchmark.units import format_bytes

ENDINGS = {"oom": "oom", "unsupported": "n/a"}
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
    if figure:
        value, low, high = (row[column] for column in (figure, *interval_columns(figure)))
        width = "" if pandas.isna(low) else f" ±{Estimate(value, low, high).half_width:.1%}"
        marks = width + marks
    return text + marks if text else ""


def said(row: Mapping[str, Any], column: str) -> str:
    """A text of the summary; "" where there is none."""
    return "" if pandas.isna(row[column]) else str(row[column])


class Shown(NamedTuple):
    """A table as it is shown. cells: a row per batch size, the batch size first. foot: rows that hold for columns."""

    title: str
    explanation: str
    headings: list[str]
    cells: list[list[str]]
    foot: list[list[str]]


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


#: What makes a column: cells of one engine, one precision and, where records are split, one variant.
Column = tuple[str, str, str]


def columns(rows: pandas.DataFrame) -> dict[Column, str]:
    """The columns of a table in the summary's order, each with its heading, lines parted by ``<br>``.

    The engine is named where there are several.
    """
    keys = list(dict.fromkeys(column_of(row) for row in rows.to_dict("records")))
    several = len({engine for engine, _, _ in keys}) > 1
    return {
        (engine, precision, variant): "<br>".join(
            part for part in (engine if several else "", heading(engine, precision), variant) if part
        )
        for engine, precision, variant in keys
    }


def heading(engine: str, precision: str) -> str:
    """A precision and, in a line of its own, what it means in this engine."""
    entry = ENGINES.get(engine)
    meaning = entry.precisions.get(precision) if entry else None
    return f"{precision}<br>{meaning}" if meaning else precision


def column_of(row: Mapping[str, Any]) -> Column:
    return row["engine"], row["precision"], said(row, "variant")


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


# -- baselines -------------------------------------------------------------------------------------


def cells_of(rows: pandas.DataFrame, comparison: Comparison) -> dict[tuple[str, str, int], ComparedCell]:
    """The compared cells among rows of one model and workload, by engine, precision and batch size."""
    first = rows.iloc[0]
    here = {key: first[key] for key in ("model", "prompt_tokens", "new_tokens")}
    return {
        (cell.where["engine"], cell.where["precision"], cell.where["batch_size"]): cell
        for cell in comparison.cells
        if all(cell.where[key] == value for key, value in here.items())
    }


def baseline_name(comparison: Comparison, cell: ComparedCell) -> str:
    """What a column of a baseline is called, the engine where it names one."""
    return " ".join(filter(None, (comparison.base, cell.base_engine, cell.where["precision"])))


def baseline_columns(
    rows: pandas.DataFrame, comparison: Comparison, show: Show, figure: str | None
) -> tuple[list[str], list[list[str]]]:
    """(headings, cells by batch size) of what a baseline has of one figure; no columns where it has none."""
    shown: dict[str, dict[int, str]] = {}
    found = cells_of(rows, comparison).values()
    if not any(figure in cell.base for cell in found):
        return [], [[] for _ in sorted(set(rows["batch_size"]))]
    for cell in found:
        text = ENDINGS.get(cell.base_outcome, "")
        if figure in cell.base:
            text = show({**cell.base, "ms_per_token": metrics.ms_per_token(cell.base["throughput_tok_per_s"])})
        shown.setdefault(baseline_name(comparison, cell), {})[cell.where["batch_size"]] = text
    headings = [f"{comparison.base}<br>{name.removeprefix(comparison.base).strip()}" for name in shown]
    return headings, [[texts.get(b, "") for texts in shown.values()] for b in sorted(set(rows["batch_size"]))]


def ratio_table(rows: pandas.DataFrame, comparison: Comparison) -> Shown:
    """How many times the throughput of a baseline, cell by cell; in the last row the largest batches that fit."""
    found = cells_of(rows, comparison)
    names = columns(rows)
    kept = {key: text for key, text in names.items() if any(cell[:2] == key[:2] for cell in found)}
    cells = [
        [str(b), *(ratio_text(found[e, p, b]) if (e, p, b) in found else "" for e, p, _ in kept)]
        for b in sorted({b for _, _, b in found})
    ]
    edges = {(each.where["engine"], each.where["precision"]): each for each in comparison.columns if _is_of(rows, each)}
    largest = [f"{edges[e, p].new_largest or 'none'}, was {edges[e, p].base_largest or 'none'}" for e, p, _ in kept]
    return Shown(
        f"Against {comparison.base} (times its throughput)",
        f"above 1 is faster; {SIGNS['faster']} faster, {SIGNS['slower']} slower, {SIGNS['same']} no difference shown, "
        "by a test on the samples for all cells together; no sign: significance unknown.",
        ["batch_size", *kept.values()],
        cells,
        [["largest batch", *largest]],
    )


def _is_of(rows: pandas.DataFrame, column: Any) -> bool:
    first = rows.iloc[0]
    return all(column.where[key] == first[key] for key in ("model", "prompt_tokens", "new_tokens"))


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
