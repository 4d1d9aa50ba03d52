"""The report: the best figures first, then charts, tables, warnings, conditions and provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from inference_benchmark.analysis.figures import BY_NAME, FIGURES, Figure
from inference_benchmark.analysis.timeline import KINDS
from inference_benchmark.analysis.yardstick import TOLERANCE, Speed
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.compare.text import cautions, summary_line
from inference_benchmark.records.summary import ABOVE_LIMIT, to_csv
from inference_benchmark.render import charts, choosing, context, drawing, fits, page, palette, tables, time_of_call
from inference_benchmark.render.columns import (
    ENDINGS,
    Column,
    Row,
    Rows,
    column_names,
    column_of,
    half_width,
    marks,
    text_of,
    value_of,
    warnings_of,
)
from inference_benchmark.render.one_line import provenance_text
from inference_benchmark.units import format_number

#: The figures whose best value is named for each grid where a page has several.
OVERVIEW = ("throughput_tok_per_s", "latency_s", "whole_limit_share")
#: Outcomes of cells in a preview that have no record to show.
UNFINISHED = ("failed", "refused")


def render(
    summary: pandas.DataFrame,
    provenances: Sequence[Mapping[str, Any]],
    template: Path,
    comparisons: Sequence[Comparison] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as text.

    provenances: provenance.json of each machine in the summary. comparisons: with baselines; each is shown with the
    machine that is its new side. notes: what a reader has to know before anything else.
    """
    by_machine = {each["machine"]: each for each in provenances}
    sections = []
    for model in context.models(summary):
        for rows in model.workloads:
            of = [each for each in comparisons if each.new == rows[0]["machine"]]
            sections.append(section(rows, of, by_machine) | {"contexts": []})
        sections[-1]["contexts"] = [context_section(rows) for rows in model.contexts]
    contexts = [each for of in sections for each in of["contexts"]]
    for kind, of_kind in (("grid", sections), ("context", contexts)):
        for number, each in enumerate(of_kind):
            each["id"] = f"{kind}-{number}"
    measurements: list[Any] = []
    for each in provenances:
        if each["measurement"] not in measurements:
            measurements.append(each["measurement"])
    return page.render(
        template,
        scripts=True,
        machines=[{**each, "sentence": provenance_text(each), "speed": machine_speed(each)} for each in provenances],
        tolerance=TOLERANCE,
        headlines=[f"{figure.best} ({figure.unit})" for figure in FIGURES if figure.headline],
        figures=FIGURES,
        kinds=KINDS,
        limits=choosing.LIMITS,
        choosing=choosing.page_data(),
        choosing_note=choosing.NOTE,
        n_colours=len(palette.PAGE.series),
        overview=[BY_NAME[name].best for name in OVERVIEW],
        measurements=measurements,
        sections=sections,
        contexts=contexts,
        compared=[
            {
                "name": f"{each.new} against {each.base}",
                "lines": [summary_line(each), *cautions(each)],
                "differences": each.differences,
            }
            for each in comparisons
            if each.cells
        ],
        notes=notes,
        csv=to_csv(summary),
    )


def machine_speed(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    """The median speed of a machine by its yardstick, and its chart over the run; None where it was not timed."""
    speed = provenance.get("machine_speed")
    if not speed:
        return None
    return {"median": Speed.of_facts(speed).texts, "svg": drawing.machine_speed(speed["over_time"], palette.PAGE)}


def section(rows: Rows, comparisons: Sequence[Comparison], provenances: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the page shows of one model and workload on one machine."""
    first = rows[0]
    measured = [row for row in rows if row["outcome"] == "ok"]
    names = column_names(rows)
    data = charts.chart_data(rows, comparisons)
    specs = _definitions([chart for chart in charts.CHARTS if data.has(chart) or chart.in_files], data)
    return {
        "machine": first["machine"],
        "model": first["model"],
        "workload": first["workload"],
        "first": first,
        "provenance": provenances[first["machine"]],
        "parameters": next((int(n) for n in (row["parameters"] for row in rows) if not pandas.isna(n)), None),
        "engines": list(dict.fromkeys(row["engine"] for row in rows)),
        "counts": dict(Counter(row["outcome"] for row in rows).most_common()),
        "best": best(measured, names),
        "goals": choosing.goals(rows),
        "columns": [_column(name, [row for row in rows if column_of(row) == column]) for column, name in names.items()],
        "reliability": reliability(measured),
        "series": data.series,
        "capacity": data.reference_lines.get("peak_memory_bytes"),
        "charts": _drawn(specs, data),
        "data": {"points": data.points, "specs": {chart.name: spec for chart, spec in specs.items()}},
        "bars": [bar for bar, _ in time_of_call.time_bars(rows)],
        "tables": list(tables.tables(rows, comparisons)),
        "warned": [_named(row, names) for row in measured if warnings_of(row)],
        "without_figure": [_named(row, names) for row in rows if row["outcome"] in ENDINGS],
        "unfinished": [_named(row, names) for row in rows if row["outcome"] in UNFINISHED],
    }


def context_section(rows: Rows) -> dict[str, Any]:
    """Everything that the page shows of one model on one machine over the length of its prompts, for one number of new
    tokens: a view per batch size, and what fits."""
    first, default = rows[0], context.default_batch_size(rows)
    views = {size: charts.context_data(rows, size) for size in context.batch_sizes(rows)}
    return {
        "machine": first["machine"],
        "model": first["model"],
        "new_tokens": first["new_tokens"],
        "series": next(iter(views.values())).series if views else (),
        "views": [
            {
                "batch_size": size,
                "chosen": size == default,
                "charts": _drawn(_definitions([each for each in charts.CONTEXT_CHARTS if data.has(each)], data), data),
            }
            for size, data in views.items()
        ],
        "maps": fits.fit_maps(rows),
    }


def _definitions(of: Sequence[charts.Chart], data: charts.ChartData) -> dict[charts.Chart, drawing.Spec]:
    return {chart: drawing.definition(chart, data, palette.PAGE, legend=False) for chart in of}


def _drawn(specs: Mapping[charts.Chart, drawing.Spec], data: charts.ChartData) -> list[dict[str, str]]:
    """Charts as the page shows them without scripts."""
    return [
        {
            "name": chart.name,
            "heading": chart.heading,
            "note": chart.note,
            "svg": drawing.svg(drawing.with_data(spec, chart, data)),
        }
        for chart, spec in specs.items()
    ]


def best(measured: Rows, names: Mapping[Column, str]) -> list[dict[str, str]]:
    """The best value of each figure that has a name for it: the value, its unit, and the cell that it is of."""
    tiles = []
    for figure in (figure for figure in FIGURES if figure.best):
        row = _best(measured, figure)
        if row is not None:
            scale = 100 if figure.is_share else figure.scale
            tiles.append(
                {
                    "name": figure.best,
                    "value": format_number(row[figure.name] * scale),
                    "unit": figure.unit,
                    "of": f"{names[column_of(row)]}, batch {row['batch_size']}",
                    "marks": marks(row, figure.warnings),
                }
            )
    return tiles


def reliability(measured: Rows) -> dict[str, Any]:
    """How many cells have no warning, which warnings the others have, and how wide intervals are."""
    warnings = Counter(warning for row in measured for warning in warnings_of(row))
    widths = (half_width(row, BY_NAME["throughput_tok_per_s"]) for row in measured)
    widths = sorted(width for width in widths if width is not None)
    return {
        "measured": len(measured),
        "reliable": sum(not warnings_of(row) for row in measured),
        "warnings": warnings.most_common(),
        "median_width": widths[len(widths) // 2] if widths else None,
    }


def _best(measured: Rows, figure: Figure) -> Row | None:
    """The row with the best value of a figure, of those that the machine can reach; None where no row has it."""
    rows = [row for row in measured if value_of(row, figure) is not None and ABOVE_LIMIT not in warnings_of(row)]
    pick = max if figure.better == "higher" else min
    return pick(rows, key=lambda row: row[figure.name], default=None)


def _named(row: Row, names: Mapping[Column, str]) -> dict[str, Any]:
    texts = {name: text_of(row, name) for name in ("notes", "reason", "reason_phase", "outcome")}
    warnings = ", ".join(warnings_of(row))
    return {"cell": f"{names[column_of(row)]} batch {row['batch_size']}", "warnings": warnings, **texts}


def _column(name: str, cells: Rows) -> dict[str, Any]:
    """The best cells of one column of the tables, and the largest batch that fits."""
    measured = [row for row in cells if row["outcome"] == "ok"]
    best_rows = [(figure, _best(measured, figure)) for figure in FIGURES if figure.headline]
    return {
        "name": name,
        "best": [
            ("", "") if row is None else (figure.text(row[figure.name]), row["batch_size"]) for figure, row in best_rows
        ],
        "fits": fits.largest_batch_text(cells),
    }
