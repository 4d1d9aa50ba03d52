"""The report: the best figures first, then charts, tables, warnings, conditions and provenance."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from inference_benchmark.analysis.figures import BY_NAME, PERFORMANCE
from inference_benchmark.analysis.timeline import KINDS
from inference_benchmark.analysis.yardstick import TOLERANCE, Speed
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.compare.text import cautions, summary_line
from inference_benchmark.records.record import Record
from inference_benchmark.render import charts, choosing, context, drawing, fits, over_time, page, palette, tables, vega
from inference_benchmark.render.one_line import next_steps, provenance_text
from inference_benchmark.render.texts import marks, names_within, width_text
from inference_benchmark.render.timelines import timeline_bars
from inference_benchmark.results.cell_result import Results, columns_of
from inference_benchmark.results.choice import headline
from inference_benchmark.results.column import short_names
from inference_benchmark.results.summary_csv import to_csv
from inference_benchmark.units import format_number

_HEADLINES = [figure for figure in PERFORMANCE if figure.headline]


def render(
    results: Results,
    provenances: Sequence[Mapping[str, Any]],
    template: Path,
    comparisons: Sequence[Comparison] = (),
    notes: Sequence[str] = (),
    problems: Sequence[str] = (),
    tried: Sequence[Record] = (),
) -> str:
    """The page. provenances: provenance.json of each machine in the results. comparisons: with baselines; each is shown
    with the machine that is its new side. notes: shown first, and then problems, which may be many. tried: with fewer
    threads, on these machines."""
    by_machine = {each["machine"]: each for each in provenances}
    sections, contexts = [], []
    for model in context.models(results):
        for grid in model.workloads:
            machine = grid.cells[0].machine
            of = [each for each in comparisons if each.new == machine]
            about = {"id": f"grid-{len(sections)}", "provenance": by_machine[machine], "contexts": []}
            about["next_steps"] = next_steps(
                by_machine[machine], [record for record in tried if record.cell.machine == machine]
            )
            target = by_machine[machine]["measurement"]["target_half_width_percent"] / 100
            sections.append(section(grid, of, target) | about)
        for grid in model.contexts:
            contexts.append(context_section(grid.cells) | {"id": f"context-{len(contexts)}"})
            sections[-1]["contexts"].append(contexts[-1])
    measurements = [each["measurement"] for each in provenances]
    return page.render(
        template,
        scripts=True,
        machines=[{**each, "sentence": provenance_text(each), "speed": machine_speed(each)} for each in provenances],
        tolerance=TOLERANCE,
        headlines=[f"{figure.best} ({figure.unit})" for figure in _HEADLINES],
        figures=PERFORMANCE,
        kinds=KINDS,
        limits=choosing.limits(results),
        choosing=choosing.page_data(results),
        choosing_note=choosing.NOTE,
        overview=[BY_NAME[name].best for name in ("throughput_tok_per_s", "latency_s", "whole_limit_share")],
        measurements=[each for n, each in enumerate(measurements) if each not in measurements[:n]],
        sections=sections,
        contexts=contexts,
        compared=[(each, [summary_line(each), *cautions(each)]) for each in comparisons if each.cells],
        notes=notes,
        problems=problems,
        csv=to_csv(results),
    )


def machine_speed(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    """The median speed of a machine by its yardstick, and its chart over the run; None where it was not timed."""
    speed = provenance.get("machine_speed")
    if not speed:
        return None
    return {"median": Speed.of_facts(speed).texts, "svg": over_time.machine_speed(speed["over_time"], palette.PAGE)}


def section(grid: context.Grid, comparisons: Sequence[Comparison], target: float) -> dict[str, Any]:
    """Everything that the page shows of one model and workload on one machine. target: of half an interval, as a part
    of its value."""
    cells = grid.cells
    name, columns = names_within(cells), short_names(columns_of(cells))
    warned = [cell for cell in cells if cell.is_measured and cell.warnings]
    data = charts.chart_data(cells, comparisons)
    drawn = _drawn([chart for chart in charts.CHARTS if data.has(chart) or chart.in_files], data)
    return {
        "first": cells[0],
        "parameters": next((n for cell in cells if (n := cell.value("parameters")) is not None), None),
        "engines": list(dict.fromkeys(cell.column.engine for cell in cells)),
        "counts": dict(Counter(cell.outcome for cell in (*cells, *grid.unsupported)).most_common()),
        "unsupported": grid.sentence,
        "best": best(cells, target),
        "goals": [goal for goal in choosing.GOALS.values() if any(goal.name in cell.figures for cell in cells)],
        "columns": [
            _column(text, [cell for cell in cells if cell.column == each], target) for each, text in columns.items()
        ],
        "reliability": reliability(cells),
        "ceilings_warning": ceilings_warning(cells),
        "lines": data.lines,
        "capacity": data.reference_lines.get("peak_memory_bytes"),
        "charts": drawn,
        "data": {"points": data.points, "specs": {chart.name: spec for chart, spec, _ in drawn}},
        "bars": [bar for bar, _ in timeline_bars(cells)],
        "tables": list(tables.tables(cells, comparisons)),
        "warned": [[name(cell), ", ".join(cell.warnings), cell.notes] for cell in warned],
        "without_figure": [[name(cell), cell.outcome, cell.reason_phase, cell.reason] for cell in cells if cell.ending],
    }


def context_section(cells: Results) -> dict[str, Any]:
    """Everything that the page shows of one model on one machine over the length of its prompts, for one number of new
    tokens: a view per batch size, and what fits."""
    views = {size: charts.context_data(cells, size) for size in context.batch_sizes(cells)}
    return {
        "first": cells[0],
        "lines": next(iter(views.values())).lines if views else (),
        "default": context.default_batch_size(cells),
        "views": [(size, _drawn(filter(data.has, charts.CONTEXT_CHARTS), data)) for size, data in views.items()],
        "maps": fits.fit_maps(cells),
    }


def _drawn(of: Iterable[charts.Chart], data: charts.ChartData) -> list[tuple[charts.Chart, vega.Spec, str]]:
    """Charts, each with its definition and the SVG that the page shows without scripts."""
    specs = ((chart, drawing.definition(chart, data, palette.PAGE, legend=False)) for chart in of)
    return [(chart, spec, vega.svg(drawing.with_data(spec, chart, data))) for chart, spec in specs]


def best(cells: Results, target: float) -> list[dict[str, str]]:
    """The best value of each figure that has a name for it, and the cell that it is of."""
    found, name_of = [], names_within(cells)
    for figure in PERFORMANCE:
        if figure.best and (cell := headline(cells, figure, target)):
            value = format_number(figure.in_unit(cell.value(figure.name)))
            about = {"name": figure.best, "unit": figure.unit, "of": name_of(cell), "marks": marks(cell, figure)}
            found.append(about | {"value": value, "width": width_text(cell, figure)})
    return found


def reliability(cells: Results) -> dict[str, Any]:
    """How many cells have no warning, which warnings the others have, and how wide intervals are."""
    measured = [cell for cell in cells if cell.is_measured]
    throughputs = (cell.figures["throughput_tok_per_s"] for cell in measured)
    widths = sorted(each.half_width for each in throughputs if each.half_width is not None)
    return {
        "measured": len(measured),
        "reliable": sum(not cell.warnings for cell in measured),
        "warnings": Counter(warning for cell in measured for warning in cell.warnings).most_common(),
        "median_width": widths[len(widths) // 2] if widths else None,
    }


def ceilings_warning(cells: Results) -> str:
    """What is wrong with the ceilings that limits follow from, as a sentence; blank if nothing is."""
    flags = sorted({flag for cell in cells for flag in cell.limit_flags})
    if not flags:
        return ""
    again = f"snakemake --forcerun results/{cells[0].machine}/ceilings.json"
    return f"Limits rest on ceilings with warnings ({', '.join(flags)}); {again} measures them again."


def _column(name: str, cells: Results, target: float) -> dict[str, Any]:
    """The best cells of one column of the tables, and the largest batch that fits."""
    found = [(figure, headline(cells, figure, target)) for figure in _HEADLINES]
    shown = [(figure.text(cell.value(figure.name)), cell.batch_size) if cell else ("", "") for figure, cell in found]
    return {"name": name, "best": shown, "fits": fits.largest_batch_text(cells)}
