#!/usr/bin/env python3
"""Draw the charts of one model for a README, of each workload: light and dark, SVG and PNG."""

import argparse
from pathlib import Path

from inference_benchmark.cli import fail, run
from inference_benchmark.compare.comparison import read_all
from inference_benchmark.experiment.outputs import THEMES, chart_file
from inference_benchmark.render import drawing, palette, vega
from inference_benchmark.render.charts import CHARTS, chart_data
from inference_benchmark.render.context import models
from inference_benchmark.results.summary_csv import read_summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, type=Path, help="summary.csv as collect writes it")
    parser.add_argument("--model", required=True, help="as the summary names it")
    parser.add_argument("--comparison", nargs="*", type=Path, default=[], help="comparisons with baselines, as JSON")
    parser.add_argument("--folder", required=True, type=Path, help="where the charts go")
    arguments = parser.parse_args()
    results = [cell for cell in read_summary(arguments.summary) if cell.column.model == arguments.model]
    if not results:
        return fail(f"{arguments.summary}: has no cell of {arguments.model}")
    comparisons = read_all(arguments.comparison)
    for cells in (grid.cells for model in models(results) for grid in model.workloads):
        data = chart_data(cells, comparisons)
        for chart in (chart for chart in CHARTS if chart.in_files):
            for theme in THEMES:
                colours = palette.THEMES[theme]
                spec = drawing.with_data(drawing.definition(chart, data, colours), chart, data)
                name = chart_file(arguments.model, cells[0].column.workload, chart.name, theme)
                vega.save(spec | {"background": colours.paper}, arguments.folder / name)
    return 0


if __name__ == "__main__":
    run(main)
