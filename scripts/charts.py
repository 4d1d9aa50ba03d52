#!/usr/bin/env python3
"""Draw the charts of one model for a README, of each workload: light and dark, SVG and PNG."""

from __future__ import annotations

import argparse
from pathlib import Path

from inference_benchmark.cli import fail, run
from inference_benchmark.compare.comparison import read_all
from inference_benchmark.experiment.outputs import THEMES, chart_file
from inference_benchmark.records.summary import read_summary
from inference_benchmark.render import drawing, palette
from inference_benchmark.render.charts import CHARTS, chart_data
from inference_benchmark.render.columns import rows_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, type=Path, help="summary.csv as collect writes it")
    parser.add_argument("--model", required=True, help="as the summary names it")
    parser.add_argument("--comparison", nargs="*", type=Path, default=[], help="comparisons with baselines, as JSON")
    parser.add_argument("--folder", required=True, type=Path, help="where the charts go")
    arguments = parser.parse_args()
    rows = read_summary(arguments.summary)
    rows = rows[rows["model"] == arguments.model]
    if rows.empty:
        return fail(f"{arguments.summary}: has no cell of {arguments.model}")
    comparisons = read_all(arguments.comparison)
    for workload, of_workload in rows.groupby("workload"):
        data = chart_data(rows_of(of_workload), comparisons)
        for chart in (chart for chart in CHARTS if chart.in_files):
            for theme in THEMES:
                stem = arguments.folder / chart_file(arguments.model, workload, chart.name, theme)
                drawing.save(chart, data, palette.THEMES[theme], stem)
    return 0


if __name__ == "__main__":
    run(main)
