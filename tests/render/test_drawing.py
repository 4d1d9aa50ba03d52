"""Charts as Vega-Lite: what every definition keeps to, and what an SVG shows."""

from __future__ import annotations

from copy import deepcopy

import altair
import jsonschema
import pytest
from made_up import grid, make_cell, make_oom, records_of, sample_records, summary_of
from running import PUBLISHED

from inference_benchmark.compare import comparison, result_set
from inference_benchmark.records import summary
from inference_benchmark.render import drawing, palette
from inference_benchmark.render.charts import CHARTS, ChartData, chart_data
from inference_benchmark.render.columns import rows_of


def of_grid() -> ChartData:
    """Two engines, intervals, cells that do not fit, baselines, limits, energy, and a capacity that is drawn."""
    records = records_of(grid())
    base = result_set.load(PUBLISHED, "a100-80gb")
    return chart_data(rows_of(summary_of(records)), [comparison.compare(base, result_set.of_records(records))])


DATA = {
    "grid": of_grid(),
    "ends of each kind": chart_data(rows_of(summary.summarise(sample_records()))),
    "nothing fits": chart_data(rows_of(summary.summarise([make_oom(make_cell(batch_size=b)) for b in (1, 2)]))),
}


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_definitions_keep_to_the_schema_of_vega_lite(chart, data):
    for colours, legend in ((palette.PAGE, False), (palette.LIGHT, True)):
        altair.Chart.from_dict(drawing.definition(chart, data, colours, legend))


def test_the_schema_finds_a_misspelt_key_anywhere():
    for path in (["vconcat", 0, "layer", 0, "mark"], ["vconcat", 1, "encoding", "y", "axis"], ["config", "axis"], []):
        wrong = deepcopy(drawing.definition(CHARTS[0], DATA["grid"], palette.PAGE, legend=False))
        part = wrong
        for key in path:
            part = part[key]
        part["strokeWidht"] = 1
        with pytest.raises(jsonschema.ValidationError):
            altair.Chart.from_dict(wrong)
