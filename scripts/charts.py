#!/usr/bin/env python3
"""Draw the charts that have a place in a README, of every model and workload: light and dark, SVG and PNG."""

from __future__ import annotations

import argparse
from pathlib import Path

from inference_benchmark import charts, drawing, outputs
from inference_benchmark.cli import run
from inference_benchmark.comparison import read_all
from inference_benchmark.summary import read_summary
from inference_benchmark.tables import groups


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, type=Path, help="summary.csv as collect writes it")
    parser.add_argument("--comparison", nargs="*", type=Path, default=[], help="comparisons with baselines, as JSON")
    parser.add_argument("--folder", required=True, type=Path, help="where the charts go")
    arguments = parser.parse_args()
    beside = read_all(arguments.comparison)
    for model, workload, rows in groups(read_summary(arguments.summary)):
        shown = charts.picture(rows, beside)
        for chart in charts.FILES:
            for theme in outputs.THEMES:
                stem = outputs.chart_file(model, workload, chart.name, theme)
                drawing.save(chart, shown, drawing.LOOKS[theme], arguments.folder / stem)
    return 0


if __name__ == "__main__":
    run(main)
