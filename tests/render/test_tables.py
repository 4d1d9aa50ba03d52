"""Golden tables from the published figures, and what tables mark and explain."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import (
    DRIFTS,
    SHARED,
    grid,
    make_cell,
    make_oom,
    make_record,
    records_of,
    results_of,
    sample_page,
    sample_records,
    with_figures,
)
from running import PUBLISHED

from inference_benchmark import markdown
from inference_benchmark.analysis.figures import BY_NAME, PERFORMANCE
from inference_benchmark.compare import comparing, result_set
from inference_benchmark.records.parts import Note, Stability
from inference_benchmark.records.record import Record
from inference_benchmark.records.results import cell_results
from inference_benchmark.render import context, tables
from inference_benchmark.render.charts import chart_data
from inference_benchmark.render.texts import cell_text, tooltip
from inference_benchmark.results.summary_csv import read_summary, to_csv


def make_unsupported(cell) -> Record:
    return replace(make_oom(cell), outcome="unsupported")


DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "expected_throughput_table.md"), (1, "expected_latency_table.md")]
)
def test_the_published_tables_come_out_byte_for_byte(number, expected):
    view = tables.published_views(PUBLISHED, ("fp32", "bf16", "int8"), "hf")[number]
    assert markdown.table(view.headings, view.cells) == (DATA / expected).read_text()


def test_engines_are_named_where_there_are_several():
    results = cell_results(sample_records())
    view = tables.table(results, BY_NAME["latency_s"])
    assert view.headings == [("batch_size",), ("hf", "fp32"), ("fake", "int8")]
    assert view.cells == [["1", "0.50 ±51.8%", "0.50 ±51.8%"], ["2", "oom", "n/a"]]
    assert "no measurement" in tables.document(results)
    assert "`oom`: out of memory." in tables.document(results)


def test_a_figure_whose_interval_is_unknown_is_marked_and_one_that_is_noise_is_blank():
    (cell,) = cell_results([make_record(samples_s=[0.4, 0.5, 0.6], first_token_s=[0.1, 0.4, 0.5])])
    cell = with_figures(cell, throughput_tok_per_s=32)
    assert cell_text(cell, BY_NAME["throughput_tok_per_s"]) == "32.00 | 31.25 ±?"
    assert tooltip(cell)["throughput"] == "32 tokens/sec ±?"
    assert cell_text(cell, BY_NAME["decode_tok_per_s"]) == ""


def doubtful_records() -> list[Record]:
    first, *others = sample_records()
    return [replace(first, stability=DRIFTS, flags=SHARED), *others]


def test_only_figures_that_rest_on_calls_that_do_not_repeat_are_marked():
    def marked(reason: str) -> list[str]:
        doubt = Stability(stable=False, reasons=(Note(reason, "m"),), outliers=None, drift=None)
        (cell,) = cell_results([make_record(stability=doubt)])
        return [figure.key for figure in PERFORMANCE if cell_text(cell, figure).endswith("†")]

    assert marked("first-token-extreme") == ["first-token", "prompt-throughput", "decode", "time-per-output-token"]
    of_whole = ["throughput", "time-per-token", "latency", "decode", "time-per-output-token", "memory"]
    assert marked("extreme") == of_whole


def test_a_figure_with_warnings_is_marked_and_explained():
    records = doubtful_records()
    text = tables.document(cell_results(records))
    assert "16.00 \\| 62.50 ±51.8%†‡" in text
    assert "†: the samples do not repeat well" in text
    assert "‡: measured under noteworthy conditions" in text
    assert sample_page(records).count("<td>drift, gpu-shared</td><td>slower; 2 others</td>") == 1
    plain = tables.document(cell_results(sample_records()))
    assert "†" not in plain
    assert "‡" not in plain


#: Of the columns fp32, bf16 and int8 the second is not supported, and the third at batch 2.
UNSUPPORTED = [
    make_record(cell) if (precision, size) in {("fp32", 1), ("fp32", 2), ("int8", 1)} else make_unsupported(cell)
    for precision in ("fp32", "bf16", "int8")
    for size in (1, 2)
    for cell in [make_cell(precision=precision, batch_size=size)]
]


def test_a_column_that_is_not_supported_at_all_is_named_once():
    text = tables.document(cell_results(UNSUPPORTED))
    assert " Not supported: bf16 (m). " in text
    assert text.count("bf16") == 1
    throughput = text.split("Throughput (")[1].split("Latency (")[0]
    assert throughput.count("n/a") == 1, "int8 is supported at batch 1"
    assert "`n/a`: not supported" in text
    page = sample_page(UNSUPPORTED)
    assert re.findall('data-series="([^"]*)"', page) == ["fp32", "int8"]
    shown = re.sub("<script.*?</script>", "", page, flags=re.DOTALL)
    assert shown.count("bf16") == 1
    assert "Not supported: bf16 (m)." in shown
    assert "3 ok, 3 unsupported" in shown


def test_a_model_that_no_column_supports_keeps_its_columns():
    text = tables.document(cell_results(UNSUPPORTED[2:4]))
    assert "| 1          | n/a  |" in text
    assert "Not supported: " not in text


def test_a_baseline_has_no_column_for_one_that_is_not_supported_here():
    records = [make_unsupported(each.cell) if each.cell.precision == "bf16" else each for each in records_of(grid())]
    ours = result_set.of_records(records)
    beside = comparing.compare(result_set.load(PUBLISHED, "a100-80gb"), ours)
    (model,) = context.models(results_of(records))
    (of,) = model.workloads
    assert {line.name for line in chart_data(of.cells, [beside]).lines if line.baseline} == {"a100-80gb fp32"}
    assert next(view.headings[-1] for view in tables.tables(of.cells, [beside])) == ("a100-80gb", "fp32")


def test_prefill_and_decode_stand_apart_with_their_formulas():
    text = tables.document(cell_results(sample_records()))
    # 0.5 s for 8 tokens of which the first took 0.1 s: 0.4 s for 7 more.
    assert "tokens/sec = batch_size x new tokens / latency" in text
    assert "tokens/sec = batch_size x (new tokens - 1) / (latency - TTFT)" in text
    assert "100.0" in text.split("Time to first token")[1].split("Decode")[0]
    assert "17.50 \\| 57.14" in text.split("Decode (")[1]
    assert "Energy" not in text


def test_energy_has_a_table_where_there_is_a_counter():
    energy = {
        "source": "nvml",
        "scope": "GPU board",
        "joules": 48.0,
        "resolution_j": 0.96,
        "seconds": 1.5,
        "update_interval_s": 0.1,
    }
    text = tables.document(cell_results([make_record(make_cell(batch_size=2), energy=energy)]))
    assert "1 ±2.0%" in text.split("Energy (joules/token)")[1]  # 48 J for 3 calls of 2 x 8 tokens


def test_the_summary_says_the_same_read_back(tmp_path):
    records = doubtful_records()
    results = cell_results(records)
    (tmp_path / "s.csv").write_text(to_csv(results))
    assert tables.document(read_summary(tmp_path / "s.csv")) == tables.document(results)


def test_a_machine_where_nothing_was_measured_still_gets_tables_and_page():
    records = [make_oom(make_cell(batch_size=b)) for b in (1, 2)]
    assert "| 1          | oom  |" in tables.document(cell_results(records))
    assert "<svg" in sample_page(records)
