"""Context length as an axis: charts over it, and what fits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from made_up import (
    TEMPLATE,
    grid,
    make_cell,
    make_oom,
    make_record,
    records_of,
    report_page,
    results_of,
    sample_page,
    with_figures,
)

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.records.record import Record
from inference_benchmark.records.results import cell_results, without_record
from inference_benchmark.render import context, drawing, fits, palette, tables, vega
from inference_benchmark.render.charts import CONTEXT_CHARTS, context_data
from inference_benchmark.results.cell_result import CellResult

SHORT, LONG = Workload(4, 8), Workload(64, 8)


def results_with(outcomes: Mapping[Workload, Mapping[int, str]]) -> list[CellResult]:
    """One column with an outcome for each workload and batch size."""
    records = [
        one(make_cell(workload=workload, batch_size=size), outcome)
        for workload, of_workload in outcomes.items()
        for size, outcome in of_workload.items()
    ]
    return cell_results(records)


def one(cell, outcome: str) -> Record:
    if outcome == "ok":
        return make_record(cell, samples_s=[0.1 * cell.batch_size] * 3)
    return replace(make_oom(cell), outcome=outcome)


# -- which charts ----------------------------------------------------------------------------------


def test_only_workloads_that_differ_in_nothing_but_their_prompts_have_an_axis():
    lengths = [(9, 100), (512, 100), (9, 8), (9, 16), (64, 16)]
    of = grid(workloads=tuple(Workload(*each) for each in lengths), batch_sizes=(1, 2))
    (model,) = context.models(results_of(records_of(of)))
    assert [of.cells[0].column.grid[1:3] for of in model.workloads] == lengths
    found = [{cell.column.grid[1:3] for cell in of.cells} for of in model.contexts]
    assert found == [{(9, 100), (512, 100)}, {(9, 16), (64, 16)}]


@pytest.mark.parametrize(
    ("short", "long", "sizes", "default"),
    [
        ({1: "ok", 2: "ok", 4: "ok"}, {1: "ok", 2: "ok", 4: "oom"}, [1, 2], 2),
        ({1: "ok", 2: "ok"}, {1: "oom", 2: "oom"}, [], 2),
        ({1: "oom"}, {1: "unsupported"}, [], None),
    ],
    ids=["the largest with every length", "no line at all", "nothing measured"],
)
def test_charts_are_at_batch_sizes_with_a_line_and_first_at_the_largest_with_all_lengths(short, long, sizes, default):
    results = results_with({SHORT: short, LONG: long})
    assert context.batch_sizes(results) == sizes
    assert context.default_batch_size(results) == default


def test_where_no_batch_size_has_all_lengths_the_one_with_most_comes_first():
    longest = Workload(512, 8)
    of = {
        SHORT: dict.fromkeys((1, 2, 4), "ok"),
        LONG: {1: "ok", 2: "ok", 4: "oom"},
        longest: dict.fromkeys((1, 2, 4), "oom"),
    }
    results = results_with(of)
    assert context.default_batch_size(results) == 2


def test_of_many_batch_sizes_some_are_chosen_evenly_and_the_default_is_among_them():
    sizes = range(1, 41)
    results = results_with({SHORT: dict.fromkeys(sizes, "ok"), LONG: dict.fromkeys(sizes, "ok")})
    assert context.batch_sizes(results) == [1, 11, 21, 30, 40]
    longest = results_with({Workload(512, 8): dict.fromkeys(range(1, 29), "ok")})
    assert context.batch_sizes([*results, *longest]) == [1, 11, 21, 28, 30, 40]


# -- charts ----------------------------------------------------------------------------------------


def test_a_chart_has_a_point_per_prompt_length_and_a_strip_for_what_does_not_fit():
    results = results_with({SHORT: {1: "ok", 2: "ok"}, LONG: {1: "ok", 2: "oom"}})
    data = context_data(results, 2)
    assert data.where == "tiny, batch size 2, 8 new tokens, on box"
    shown = [[point.get(name) for name in ("prompt_tokens", "outcome", "prompt_tok_per_s")] for point in data.points]
    # 2 rows of 4 tokens in 0.1 s.
    assert shown == [[4, "ok", 80.0], [64, "oom", None]]
    assert data.points[0]["tooltip"]["prompt throughput"] == "80 prompt tokens/sec ±0.0%"
    (chart,) = (chart for chart in CONTEXT_CHARTS if chart.name == "prompt-throughput")
    definition = drawing.definition(chart, data, palette.PAGE, legend=False)
    drawn = vega.svg(drawing.with_data(definition, chart, data))
    texts = re.findall(r">([^<>]+)</text>", drawn)
    assert {"prompt tokens", "prompt tokens/sec", "out of memory", "4", "64"} <= set(texts)
    assert not {"8", "16", "32"} & set(texts), "a tick per prompt length"
    assert len(re.findall("M3.354,0A", drawn)) == 1, "one point"
    assert [len(context_data(results, 1).points), len(context_data(results, 3).points)] == [2, 0]


# -- the map ---------------------------------------------------------------------------------------


def states(found: fits.FitMap) -> dict[int, list[str]]:
    return {size: [fit.text for fit in row] for size, row in found.fits}


def test_the_map_tells_records_searches_and_what_nobody_tried_apart():
    results = results_with(
        {SHORT: {1: "ok", 2: "ok", 4: "oom", 8: "oom"}, LONG: {1: "ok", 2: "oom", 4: "unsupported", 8: "ok"}}
    )
    blank = without_record(make_cell(workload=SHORT, batch_size=16), "missing", "")
    (plain,) = fits.fit_maps([blank, *results])
    assert (plain.name, plain.prompt_tokens) == ("fp32", [4, 64])
    assert states(plain) == {
        1: ["✓ fits", "✓ fits"],
        2: ["✓ fits", "× oom"],
        4: ["× oom", "– n/a"],
        8: ["× oom", "✓ fits"],
        16: ["? untried", "? untried"],
    }
    assert plain.largest == ["2", "8 or more"]
    # Each cell of a column that has a record has the search of the column.
    found = {4: {"max_batch_fits": 3, "max_batch_fails": 4}, 64: {"max_batch_fits": 20}}
    (searched,) = fits.fit_maps([blank, *(with_figures(each, **found[each.column.prompt_tokens]) for each in results)])
    assert states(searched) == states(plain) | {16: ["× oom (searched)", "✓ fits (searched)"]}
    assert searched.largest == ["3 (searched)", "20 (searched)"]


def test_between_what_a_search_found_to_fit_and_to_fail_nothing_is_known():
    records = [make_record(make_cell(workload=workload, batch_size=1)) for workload in (SHORT, LONG)]
    blank = [without_record(make_cell(workload=SHORT, batch_size=size), "failed", "") for size in (8, 9, 10, 11)]
    searched = [with_figures(each, max_batch_fits=8, max_batch_fails=11) for each in cell_results(records)]
    (found,) = fits.fit_maps([*searched, *blank])
    shown = [texts[0] for texts in states(found).values()]
    assert shown == ["✓ fits", "✓ fits (searched)", "? untried", "? untried", "× oom (searched)"]


# -- page and tables -------------------------------------------------------------------------------

GRID = grid(
    workloads=(Workload(9, 100), Workload(100, 100), Workload(1000, 100)),
    batch_sizes=(1, 64, 128, 1024),
    engines=("hf",),
    precisions=("fp32", "bf16"),
)


def test_the_page_has_a_view_per_batch_size_with_its_charts():
    text = report_page([GRID], TEMPLATE)
    part = re.search(r'<section id="context-0".*?</section>', text, re.DOTALL)[0]
    # At 1024 only prompts of 9 tokens fit.
    assert re.findall(r"<input [^>]*>(\d+)<", part) == ["1", "64", "128"]
    assert re.findall(r"<input [^>]* checked>(\d+)<", part) == ["128"]
    names = [chart.name for chart in CONTEXT_CHARTS]
    assert re.findall(r'data-chart="([\w-]+)"><svg', part) == names * 3
    assert part.count("<caption>") == 2
    assert part.count('<td class="fits">✓ fits</td>') == 18
    # It comes right after the sections of its workloads.
    assert text.index('id="grid-2"') < text.index('id="context-0"') < text.index("Conditions and provenance")


def test_a_page_of_one_prompt_length_has_nothing_over_it():
    of = replace(GRID, workloads=(Workload(9, 100), Workload(9, 8)))
    text = report_page([of], TEMPLATE)
    for absent in ("over the prompt length", "Over the prompt length", "What fits", "context-0"):
        assert absent not in text
    assert "over the prompt length" not in tables.document(results_of(records_of(of)))


def test_prompts_from_a_text_are_said_and_stand_apart():
    lengths = [Workload(n, 100, *text) for text in ((), ("python", "0" * 64)) for n in (9, 64)]
    of = replace(GRID, workloads=tuple(lengths), batch_sizes=(1,))
    text, page = tables.document(results_of(records_of(of))), report_page([of], TEMPLATE)
    for wanted in ("over the prompt length\n", "over the prompt length of a text\n"):
        assert text.count(wanted) == 1
    assert text.count("9 prompt tokens, 100 new tokens") == text.count("9 prompt tokens of a text, 100 new tokens") == 1
    for wanted in (
        "over the prompt length:",
        "over the prompt length of a text:",
        "9 prompt tokens of a text, 100 new",
    ):
        assert page.count(wanted) == 1, wanted


def test_a_page_where_nothing_was_measured_has_the_map_alone():
    text = sample_page([make_oom(make_cell(workload=workload)) for workload in (SHORT, LONG)])
    part = re.search(r'<section id="context-0".*?</section>', text, re.DOTALL)[0]
    assert "<svg" not in part
    assert part.count('<td class="oom">× oom</td>') == 2


def test_markdown_has_two_short_tables_over_the_prompt_length():
    results = results_with({SHORT: {1: "ok", 2: "ok"}, LONG: {1: "ok", 2: "oom"}})
    text = tables.document(results)
    part = text.split("### tiny on box over the prompt length")[1]
    assert part.split("Largest batch")[0].startswith("\n\n8 new tokens per sequence; engine: fake. ")
    assert "Largest batch" + part.split("Largest batch", 1)[1] == (
        "Largest batch that fits: by the cells of the grid, or searched.\n\n"
        "| prompt_tokens |    fp32   |\n"
        "|:-------------:|:---------:|\n"
        "| 4             | 2 or more |\n"
        "| 64            | 1         |\n"
        "\n"
        "Throughput (tokens/sec | msec/token) at batch size 1: tokens/sec = batch_size x new tokens / latency, prompt "
        "processing inside; msec/token = 1000 / (tokens/sec).\n\n"
        "| prompt_tokens |         fp32         |\n"
        "|:-------------:|:--------------------:|\n"
        "| 4             | 80.00 \\| 12.50 ±0.0% |\n"
        "| 64            | 80.00 \\| 12.50 ±0.0% |\n"
    )
