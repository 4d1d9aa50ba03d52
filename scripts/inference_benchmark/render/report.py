"""The report: the answer first, then charts, tables, what to take with care, conditions and provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.compare.text import cautions, summary_line
from inference_benchmark.render import charts, drawing, page, tables
from inference_benchmark.render.cell_texts import marked
from inference_benchmark.render.columns import ENDINGS, Column, column_names, column_of, half_width, said
from inference_benchmark.render.one_line import sentence
from inference_benchmark.units import format_number


def render(
    summary: pandas.DataFrame,
    provenances: Sequence[Mapping[str, Any]],
    template: Path,
    beside: Sequence[Comparison] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as text.

    provenances: what collect found out, for each machine in the summary. beside: comparisons with baselines; each
    is shown with the machine that is its new side. notes: what a reader has to know before anything else.
    """
    known = {each["machine"]: each for each in provenances}
    sections = [
        section(rows, [each for each in beside if each.new == rows.iloc[0]["machine"]], known)
        for _, _, rows in tables.groups(summary)
    ]
    for number, each in enumerate(sections):
        each["id"] = f"grid-{number}"
    measurements: list[Any] = []
    for each in provenances:
        if each["measurement"] not in measurements:
            measurements.append(each["measurement"])
    return page.render(
        template,
        scripts=True,
        machines=[{**each, "sentence": sentence(each)} for each in provenances],
        answers=["best throughput", "lowest latency", "nearest to the limit"],
        measurements=measurements,
        sections=sections,
        compared=[
            {
                "name": f"{each.new} against {each.base}",
                "lines": [f"{summary_line(each)}.", *cautions(each)],
                "differences": each.differences,
            }
            for each in beside
            if each.cells
        ],
        notes=notes,
        csv=summary.to_csv(index=False),
    )


def section(rows: pandas.DataFrame, beside: Sequence[Comparison], known: Mapping[str, Any]) -> dict[str, Any]:
    """All that the page says of one model and workload on one machine."""
    first = rows.iloc[0]
    cells = rows.to_dict("records")
    measured = [row for row in cells if row["outcome"] == "ok"]
    shown = charts.picture(rows, beside)
    drawn = [chart for chart in charts.CHARTS if shown.shows(chart) or chart in charts.FILES]
    specs = {chart.name: drawing.definition(chart, shown, drawing.PAGE, legend=False) for chart in drawn}
    names = column_names(rows)
    return {
        "machine": first["machine"],
        "model": first["model"],
        "workload": first["workload"],
        "first": first,
        "provenance": known[first["machine"]],
        "parameters": next((int(n) for n in rows["parameters"] if not pandas.isna(n)), None),
        "engines": list(dict.fromkeys(rows["engine"])),
        "counts": rows["outcome"].value_counts().to_dict(),
        "answer": answer(measured, names),
        "columns": [
            _column(name, [row for row in cells if column_of(row) == column]) for column, name in names.items()
        ],
        "trust": trust(measured),
        "series": shown.series,
        "capacity_gb": shown.capacity_gb,
        "charts": [
            {"name": c.name, "heading": c.heading, "svg": drawing.svg(specs[c.name], shown.points)} for c in drawn
        ],
        "data": {"points": shown.points, "specs": specs},
        "tables": [
            shown._replace(
                headings=[text.split("<br>") for text in shown.headings],
                cells=[[text.replace("\\|", "|") for text in row] for row in shown.cells],
                foot=[[text.replace("\\|", "|") for text in row] for row in shown.foot],
            )
            for shown in tables.tables(rows, beside)
        ],
        "doubts": [_named(row, names) for row in measured if _reasons(row)],
        "endings": [_named(row, names) for row in cells if row["outcome"] in ENDINGS],
        "undone": [_named(row, names) for row in cells if row["outcome"] in UNDONE],
    }


#: Outcomes of cells in a preview that have no record to show.
UNDONE = ("failed", "refused")


def answer(measured: Sequence[Mapping[str, Any]], names: Mapping[Column, str]) -> list[dict[str, str]]:
    """The figures that people come for: a name, the value, its unit, and the cell that it is of."""
    tiles = []
    for name, column, unit, best, factor in (
        ("best throughput", "throughput_tok_per_s", "tokens/sec", max, 1),
        ("lowest latency", "latency_s", "sec per call", min, 1),
        ("fastest token", "time_per_output_token_s", "msec/token", min, 1000),
        ("nearest to the limit", "whole_limit_share", "% of limit", max, 100),
        ("least energy", "energy_per_token_j", "joules/token", min, 1),
    ):
        having = [row for row in measured if not pandas.isna(row[column])]
        if having:
            row = best(having, key=lambda row: row[column])
            value = row[column] * factor
            tiles.append(
                {
                    "name": name,
                    "value": format_number(value),
                    "unit": unit,
                    "of": f"{names[column_of(row)]}, batch {row['batch_size']}",
                    "marks": marked(row, " ").strip(),
                }
            )
    return tiles


def trust(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many figures have nothing against them, what is said against the others, and how wide intervals are."""
    reasons = Counter(reason for row in measured for reason in _reasons(row))
    known = (half_width(row, "throughput_tok_per_s") for row in measured)
    widths = sorted(width for width in known if width is not None)
    return {
        "measured": len(measured),
        "clean": sum(not _reasons(row) for row in measured),
        "reasons": reasons.most_common(),
        "width": widths[len(widths) // 2] if widths else None,
    }


def _named(row: Mapping[str, Any], names: Mapping[Column, str]) -> dict[str, Any]:
    why = ", ".join(_reasons(row))
    texts = {name: said(row, name) for name in ("notes", "reason", "reason_phase", "outcome")}
    return {"cell": f"{names[column_of(row)]} batch {row['batch_size']}", "why": why, **texts}


def _reasons(row: Mapping[str, Any]) -> list[str]:
    """The names of all that speaks against a figure."""
    texts = (said(row, name) for name in ("unstable_because", "flags"))
    return [reason for text in texts for reason in text.split(", ") if reason]


def _column(name: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is best in one column of the tables, and how far it goes."""
    measured = [row for row in cells if row["outcome"] == "ok"]
    ooms = [row["batch_size"] for row in cells if row["outcome"] == "oom"]
    found = cells[0]["max_batch_fits"]
    largest = max((row["batch_size"] for row in measured), default=None)
    if not pandas.isna(found):
        edge = f"{found:,.0f}"
    elif largest is None:
        edge = "none" if ooms else ""
    else:
        edge = f"{largest:,}" if any(size > largest for size in ooms) else f"{largest:,} or more"
    return {
        "name": name,
        "throughput": max(measured, key=lambda row: row["throughput_tok_per_s"], default=None),
        "latency": min(measured, key=lambda row: row["latency_s"], default=None),
        "edge": edge,
        "searched": not pandas.isna(found),
    }
