"""One HTML page from the summary and its provenance: no network, no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas

from inference_benchmark import charts, tables
from inference_benchmark.provenance import sentence
from inference_benchmark.units import format_bytes


def render(summary: pandas.DataFrame, provenance: Mapping[str, Any], template: Path) -> str:
    """The page as text. Names from configuration and records are escaped, whatever they hold."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["bytes"] = format_bytes
    environment.globals["marked"] = tables.marked
    return environment.get_template(template.name).render(
        provenance=provenance,
        origin=sentence(provenance),
        sections=[_section(*group) for group in tables.groups(summary)],
    )


#: What makes a column of the tables.
KEY = ("engine", "precision", "variant")


def _section(model: str, workload: str, rows: pandas.DataFrame) -> dict[str, Any]:
    first = rows.iloc[0]
    where = f"{model}, {workload}, on {first['machine']}"
    measured = rows[rows["outcome"] == "ok"]
    return {
        "model": model,
        "workload": workload,
        "first": first,
        "parameters": None if pandas.isna(first["parameters"]) else int(first["parameters"]),
        "engines": list(dict.fromkeys(rows["engine"])),
        "counts": rows["outcome"].value_counts().to_dict(),
        "best": []
        if measured.empty
        else [_best(group) for _, group in measured.fillna({"variant": ""}).groupby(list(KEY), sort=False)],
        "charts": [
            charts.svg(charts.over_batch(rows, figure, f"{title} over batch size: {where}"))
            for figure, title in (
                (charts.THROUGHPUT, "Throughput"),
                (charts.LATENCY, "Latency"),
                (charts.FIRST_TOKEN, "Time to first token"),
                (charts.DECODE, "Decode throughput"),
                (charts.LIMIT, "Part of the limit reached"),
            )
            if measured[figure[0]].notna().any() or figure in (charts.THROUGHPUT, charts.LATENCY)
        ],
        "max_batch": charts.svg(charts.max_batch(rows, f"Largest batch that fits: {where}"))
        if rows["max_batch_fits"].notna().any()
        else None,
        "tables": [
            (
                title,
                explanation,
                [text.split("<br>") for text in headings],
                [[cell.replace("\\|", "|") for cell in row] for row in cells],
            )
            for title, explanation, headings, cells in tables.tables(rows)
        ],
        "doubts": [
            row | {"why": ", ".join(filter(None, (tables.said(row, c) for c in ("unstable_because", "flags"))))}
            for row in measured.astype(object).fillna("").to_dict("records")
            if row["unstable_because"] or row["flags"]
        ],
        "endings": rows[rows["outcome"] != "ok"].astype(object).fillna("").to_dict("records"),
    }


def _best(rows: pandas.DataFrame) -> dict[str, Any]:
    """The row of the highest throughput in one column of the tables."""
    return rows.loc[rows["throughput_tok_per_s"].idxmax()].to_dict()
