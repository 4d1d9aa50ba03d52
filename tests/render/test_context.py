"""Context length as an axis: charts over it, and what fits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pandas
import pytest
from made_up import TEMPLATE, grid, make_cell, make_oom, make_record, records_of, report_page, sample_page, summary_of

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.records import summary
from inference_benchmark.records.record import Record
from inference_benchmark.render import context, drawing, fits, palette, tables
from inference_benchmark.render.charts import CONTEXT_CHARTS, context_data
from inference_benchmark.render.columns import Rows, rows_of

SHORT, LONG = Workload(4, 8), Workload(64, 8)


def rows_with(outcomes: Mapping[Workload, Mapping[int, str]]) -> Rows:
    """One column with an outcome for each workload and batch size."""
    records = [
        one(make_cell(workload=workload, batch_size=size), outcome)
        for workload, of_workload in outcomes.items()
        for size, outcome in of_workload.items()
    ]
    return rows_of(summary.summarise(records))


def one(cell, outcome: str) -> Record:
    if outcome == "ok":
        return make_record(cell, samples_s=[0.1 * cell.batch_size] * 3)
    return replace(make_oom(cell), outcome=outcome)


# -- which charts ----------------------------------------------------------------------------------


def test_only_workloads_that_differ_in_nothing_but_their_prompts_have_an_axis():
    lengths = [(9, 100), (512, 100), (9, 8), (9, 16), (64, 16)]
    of = grid(workloads=tuple(Workload(*each) for each in lengths), batch_sizes=(1, 2))
    (model,) = context.models(summary_of(records_of(of)))
    assert [(rows[0]["prompt_tokens"], rows[0]["new_tokens"]) for rows in model.workloads] == lengths
    found = [({row["prompt_tokens"] for row in rows}, {row["new_tokens"] for row in rows}) for rows in model.contexts]
    assert found == [({9, 512}, {100}), ({9, 64}, {16})]


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
    rows = rows_with({SHORT: short, LONG: long})
    assert context.batch_sizes(rows) == sizes
    assert context.default_batch_size(rows) == default


def test_where_no_batch_size_has_all_lengths_the_one_with_most_comes_first():
    longest = Workload(512, 8)
    of = {
        SHORT: dict.fromkeys((1, 2, 4), "ok"),
        LONG: {1: "ok", 2: "ok", 4: "oom"},
        longest: dict.fromkeys((1, 2, 4), "oom"),
    }
    rows = rows_with(of)
    assert context.default_batch_size(rows) == 2


def test_of_many_batch_sizes_some_are_chosen_evenly_and_the_default_is_among_them():
    sizes = range(1, 41)
    rows = rows_with({SHORT: dict.fromkeys(sizes, "ok"), LONG: dict.fromkeys(sizes, "ok")})
    assert context.batch_sizes(rows) == [1, 11, 21, 30, 40]
    longest = rows_with({Workload(512, 8): dict.fromkeys(range(1, 29), "ok")})
    assert context.batch_sizes([*rows, *longest]) == [1, 11, 21, 28, 30, 40]


# -- charts ----------------------------------------------------------------------------------------


def test_a_chart_has_a_point_per_prompt_length_and_a_lane_for_what_does_not_fit():
    rows = rows_with({SHORT: {1: "ok", 2: "ok"}, LONG: {1: "ok", 2: "oom"}})
    data = context_data(rows, 2)
    assert data.where == "tiny, batch size 2, 8 new tokens, on box"
    shown = [[point.get(name) for name in ("prompt_tokens", "outcome", "prompt_tok_per_s")] for point in data.points]
    # 2 rows of 4 tokens in 0.1 s.
    assert shown == [[4, "ok", 80.0], [64, "oom", None]]
    assert data.points[0]["tooltip"]["prompt throughput"] == "80 prompt tokens/sec ±0.0%"
    (chart,) = (chart for chart in CONTEXT_CHARTS if chart.name == "prompt-throughput")
    definition = drawing.definition(chart, data, palette.PAGE, legend=False)
    drawn = drawing.svg(drawing.with_data(definition, chart, data))
    texts = re.findall(r">([^<>]+)</text>", drawn)
    assert {"prompt tokens", "prompt tokens/sec", "× out of memory", "×", "4", "64"} <= set(texts)
    assert not {"8", "16", "32"} & set(texts), "a tick per prompt length"
    assert drawn.count('h0"') == 1
    assert [len(context_data(rows, 1).points), len(context_data(rows, 3).points)] == [2, 0]


# -- the map ---------------------------------------------------------------------------------------


def states(found: fits.FitMap) -> dict[int, list[str]]:
    return {size: [fit.text for fit in row] for size, row in found.fits}


def test_the_map_tells_records_searches_and_what_nobody_tried_apart():
    rows = rows_with(
        {SHORT: {1: "ok", 2: "ok", 4: "oom", 8: "oom"}, LONG: {1: "ok", 2: "oom", 4: "unsupported", 8: "ok"}}
    )
    blank = [summary.blank_row(make_cell(workload=SHORT, batch_size=16), "missing", ""), *rows]
    table = pandas.DataFrame(blank, columns=summary.COLUMNS)
    (plain,) = fits.fit_maps(rows_of(table))
    assert (plain.name, plain.prompt_tokens) == ("fp32", [4, 64])
    assert states(plain) == {
        1: ["✓ fits", "✓ fits"],
        2: ["✓ fits", "× oom"],
        4: ["× oom", "– n/a"],
        8: ["× oom", "✓ fits"],
        16: ["? untried", "? untried"],
    }
    assert plain.largest == ["2", "8 or more"]
    # The search of a column stands in each of its rows that has a record.
    table.loc[
        (table["prompt_tokens"] == 4) & (table["outcome"] != "missing"), ["max_batch_fits", "max_batch_fails"]
    ] = 3, 4
    table.loc[table["prompt_tokens"] == 64, "max_batch_fits"] = 20
    (searched,) = fits.fit_maps(rows_of(table))
    assert states(searched) == states(plain) | {16: ["× oom (searched)", "✓ fits (searched)"]}
    assert searched.largest == ["3 (searched)", "20 (searched)"]


def test_between_what_a_search_found_to_fit_and_to_fail_nothing_is_known():
    records = [make_record(make_cell(workload=workload, batch_size=1)) for workload in (SHORT, LONG)]
    blank = [summary.blank_row(make_cell(workload=SHORT, batch_size=size), "failed", "") for size in (8, 9, 10, 11)]
    table = pandas.concat([summary.summarise(records), pandas.DataFrame(blank, columns=summary.COLUMNS)])
    table.loc[table["outcome"] == "ok", ["max_batch_fits", "max_batch_fails"]] = 8, 11
    (found,) = fits.fit_maps(rows_of(table))
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
    assert "over the prompt length" not in tables.document(summary_of(records_of(of)))


def test_a_page_where_nothing_was_measured_has_the_map_alone():
    text = sample_page([make_oom(make_cell(workload=workload)) for workload in (SHORT, LONG)])
    part = re.search(r'<section id="context-0".*?</section>', text, re.DOTALL)[0]
    assert "<svg" not in part
    assert part.count('<td class="oom">× oom</td>') == 2


def test_markdown_has_two_short_tables_over_the_prompt_length():
    rows = rows_with({SHORT: {1: "ok", 2: "ok"}, LONG: {1: "ok", 2: "oom"}})
    text = tables.document(pandas.DataFrame(rows, columns=summary.COLUMNS))
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
