"""Charts as Vega-Lite: what every definition keeps to, and what an SVG shows."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import replace

import jsonschema
import pytest
from altair.vegalite.v6.schema.core import load_schema
from made_up import OLD, grid, make_cell, make_oom, make_record, records_of, results_of, sample_records, with_figures
from running import PUBLISHED

from inference_benchmark.compare import comparing, result_set
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.records.results import cell_results
from inference_benchmark.render import drawing, palette, vega
from inference_benchmark.render.charts import CHARTS, CONTEXT_CHARTS, ChartData, chart_data, context_data


def of_grid() -> ChartData:
    """Two engines, intervals, cells that do not fit, baselines, limits, energy, and a capacity that is drawn."""
    records = records_of(grid())
    base = result_set.load(PUBLISHED, "a100-80gb")
    return chart_data(results_of(records), [comparing.compare(base, result_set.of_records(records))])


#: Of Vega-Lite. Altair comes with it, and takes eight times as long to read a chart.
SCHEMA = jsonschema.Draft7Validator(load_schema())
QUALITY = {"text_kl_mean_nats": (0.02, 0.018, 0.022)}
DATA = {
    "grid": of_grid(),
    "quality": chart_data([with_figures(each, **QUALITY) for each in results_of(records_of(grid()))]),
    "ends of each kind": chart_data(cell_results(sample_records())),
    "nothing fits": chart_data(cell_results([make_oom(make_cell(batch_size=b)) for b in (1, 2)])),
}


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_definitions_keep_to_the_schema_of_vega_lite(chart, data):
    for colours, legend in ((palette.PAGE, False), (palette.LIGHT, True)):
        SCHEMA.validate(drawing.definition(chart, data, colours, legend))


@pytest.mark.parametrize("chart", CONTEXT_CHARTS, ids=lambda chart: chart.name)
def test_definitions_over_the_prompt_length_keep_to_it_too(chart):
    workloads = (Workload(9, 100), Workload(100, 100), Workload(1000, 100))
    results = results_of(records_of(grid(workloads=workloads, batch_sizes=(1, 128))))
    for batch_size in (1, 128):  # at 128 some do not fit
        SCHEMA.validate(drawing.definition(chart, context_data(results, batch_size), palette.PAGE, legend=False))


@pytest.mark.parametrize("n_engines", [2, 4, 5, 12])
def test_no_two_lines_have_the_same_colour_and_dash(n_engines):
    cells = [make_cell(engine=f"e{n}", precision=name) for n in range(n_engines) for name in ("fp32", "bf16")]
    lines = chart_data(cell_results([make_record(cell) for cell in cells])).lines
    assert len({(each.colour, each.dash) for each in lines}) == 2 * n_engines
    assert len({each.colour for each in lines}) == min(2 * n_engines, len(palette.PAGE.series)), "not by dashes alone"


def test_lines_are_named_by_environment_where_there_are_several():
    cells = [make_cell(precision=name, environment=each) for each in ({}, OLD) for name in ("fp32", "bf16")]
    lines = chart_data(cell_results([make_record(cell) for cell in cells])).lines
    assert [each.name for each in lines] == ["current fp32", "current bf16", "old fp32", "old bf16"]
    old = chart_data(cell_results([make_record(cell) for cell in cells[2:]])).lines
    assert [each.name for each in old] == ["fp32", "bf16"]


def test_the_schema_finds_a_misspelt_key_anywhere():
    for path in (["vconcat", 0, "layer", 0, "mark"], ["vconcat", 1, "encoding", "y", "axis"], ["config", "axis"], []):
        wrong = deepcopy(drawing.definition(CHARTS[0], DATA["grid"], palette.PAGE, legend=False))
        part = wrong
        for key in path:
            part = part[key]
        part["strokeWidht"] = 1
        with pytest.raises(jsonschema.ValidationError):
            SCHEMA.validate(wrong)


def tick_labels(svg: str) -> list[list[str]]:
    """What is written at each axis of numbers."""
    groups = [
        re.findall(r"<text[^>]*>([^<]*)</text>", group) for group in re.findall(r"<g[^>]*>((?:<text.*?</text>)+)", svg)
    ]
    return [
        texts
        for texts in groups
        if len(texts) > 1 and all(re.fullmatch(r"[\d.,e\u2212-]+[%+]?", text) for text in texts)
    ]


@pytest.mark.parametrize("faster", [1e-4, 0.03, 1, 70, 1e5])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_no_two_ticks_of_an_axis_have_the_same_label(faster, logarithmic):
    results = results_of(records_of(grid(batch_sizes=(1, 2, 64)), faster), faster / 1e5)
    data = chart_data([with_figures(each, **QUALITY) for each in results])
    for chart in CHARTS:
        axes = tick_labels(drawn(chart, data, logarithmic))
        assert len(axes) == 2, axes
        assert all(len(set(texts)) == len(texts) for texts in axes), axes


def drawn(chart, data: ChartData, logarithmic: bool = False) -> str:
    """The chart as an SVG, on the scale that a reader of the page chooses."""
    definition = json.dumps(drawing.definition(chart, data, palette.PAGE, legend=False))
    linear = '"type": "linear", "zero": true'
    assert linear in definition
    spec = json.loads(definition.replace(linear, '"type": "log"') if logarithmic else definition)
    return vega.svg(drawing.with_data(spec, chart, data))


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


THROUGHPUT, LATENCY, OVER_KL = (
    next(each for each in CHARTS if each.name == name) for name in ("throughput", "latency", "quality")
)


def ends(**outcomes: str) -> ChartData:
    """Cells of two precisions whose batch sizes double from 1: ``.`` fits, ``o`` does not, ``n`` is not supported."""
    records = []
    for precision, letters in outcomes.items():
        for n, letter in enumerate(letters):
            cell = make_cell(precision=precision, batch_size=2**n)
            not_ok = replace(make_oom(cell), outcome={"o": "oom", "n": "unsupported"}.get(letter, "oom"))
            records.append(make_record(cell) if letter == "." else not_ok)
    return chart_data(cell_results(records))


@pytest.mark.parametrize(
    ("outcomes", "sizes", "strip", "signs"),
    [
        ({"fp32": "..", "bf16": ".."}, ["1", "2"], None, ""),
        ({"fp32": "..o", "bf16": "..o"}, ["1", "2", "4"], "out of memory", ""),
        ({"fp32": "..ooo", "bf16": ".oooo"}, ["1", "2", "4+"], "out of memory", "×"),
        ({"fp32": "..on", "bf16": "nn.o"}, ["1", "2", "4", "8"], "out of memory or not available", "×––"),
        ({"fp32": "oo", "bf16": "oo"}, ["1", "2"], None, "××××"),
    ],
)
def test_an_axis_ends_with_what_fits_and_a_strip_is_for_what_does_not(outcomes, sizes, strip, signs):
    svg = drawn(THROUGHPUT, ends(**outcomes))
    assert sizes in tick_labels(svg)
    assert [text for text in texts(svg) if text.startswith(("out of", "not "))] == ([strip] if strip else [])
    assert "".join(text for text in texts(svg) if text in ("×", "–")) == signs
    places = re.findall(r'middle" transform="translate\(([\d.]+),15\)"[^>]*>[\d+]+<', svg)
    last = places[-2] if strip else places[-1]
    assert float(last) > 0.8 * vega.WIDTH


@pytest.mark.parametrize("logarithmic", [False, True])
def test_no_interval_of_a_time_goes_below_zero(logarithmic):
    data = ends(fp32="..")
    points = [{**point, "latency_s": 1.0, "latency_low_s": -6.0, "latency_high_s": 1.2} for point in data.points]
    svg = drawn(LATENCY, replace(data, points=points), logarithmic)
    assert "NaN" not in svg
    assert [labels[0] for labels in tick_labels(svg)] == ["1", "0.01" if logarithmic else "0.0"]


@pytest.mark.parametrize("times", [1.1, 40])
def test_an_interval_far_above_all_figures_does_not_flatten_them(times):
    data = chart_data(results_of(records_of(grid(batch_sizes=(1, 2)))))
    points = [{"series": data.lines[0].name, "batch_size": size, "outcome": "ok"} for size in (1, 2)]
    for point, value in zip(points, (100, 200), strict=True):
        point |= dict(zip(THROUGHPUT.y.columns, (value, value / times, value * times), strict=True))
    svg = drawn(THROUGHPUT, replace(data, points=points))
    axes = tick_labels(svg)
    assert svg.count('fill="var(--series-0)"') == (4 if times > 2 else 2), "an arrow where an interval goes on"
    assert max(float(text.replace(",", "").replace("\u2212", "-")) for texts in axes for text in texts) <= 300


@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_frontier_leaves_out_what_another_beats_and_the_reference_has_a_place_at_0(logarithmic):
    data, points = ends(fp32="."), []
    for kl, throughput in ((0, 10), (0, 5), (6e-11, 8), (0.001, 20), (0.01, 15), (0.3, 30)):
        figures = dict(zip(OVER_KL.x.columns, (kl, kl, kl), strict=True)) | {OVER_KL.y.name: throughput}
        points.append({"series": data.lines[0].name, "batch_size": 1, "outcome": "ok", **figures})
    svg = drawn(OVER_KL, replace(data, points=points), logarithmic)
    assert "NaN" not in svg
    assert ["0", "0.0001", "0.001", "0.01", "0.1"] in tick_labels(svg)
    assert "nats (linear below 0.0001)" in texts(svg), "one title, of all layers"
    dots = re.findall(r'translate\(([\d.]+),([\d.]+)\)" d="[^"]+" fill="var\(--series-0\)"', svg)
    (x0, y0), _, (x2, _), (x3, y3), (x4, _), (x5, y5) = ([*map(float, dot)] for dot in dots)
    assert 0 == x0 <= x2 < 1 < x3 < x4 < x5 == vega.WIDTH
    corners = re.search(r'd="M([^"]+)"[^>]* stroke="var\(--soft\)"', svg)[1]
    path = [x0, y0, x3, y0, x3, y3, x5, y3, x5, y5]
    assert [*map(float, re.split("[,L]", corners))] == pytest.approx(path, abs=0.01)
