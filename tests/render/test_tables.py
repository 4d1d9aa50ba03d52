"""Golden tables from the published figures, and what tables mark and explain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_up import DRIFTS, SHARED, make_cell, make_oom, make_record, sample_page, sample_records
from running import PUBLISHED

from inference_benchmark import markdown
from inference_benchmark.analysis.figures import BY_NAME
from inference_benchmark.records import summary
from inference_benchmark.records.record import Record
from inference_benchmark.render import tables
from inference_benchmark.render.columns import rows_of
from inference_benchmark.render.published import published_rows
from inference_benchmark.render.tooltips import tooltip

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize(
    ("figure", "expected"),
    [("throughput_tok_per_s", "expected_throughput_table.md"), ("latency_s", "expected_latency_table.md")],
)
def test_the_published_tables_come_out_byte_for_byte(figure, expected):
    view = tables.table(published_rows(PUBLISHED, ("fp32", "bf16", "int8")), BY_NAME[figure])
    assert markdown.table(view.headings, view.cells) == (DATA / expected).read_text()


def test_engines_are_named_where_there_are_several():
    rows = summary.summarise(sample_records())
    view = tables.table(rows_of(rows), BY_NAME["latency_s"])
    assert view.headings == [("batch_size",), ("hf", "fp32"), ("fake", "int8")]
    assert view.cells == [["1", "0.50 ±49.7%", "0.50 ±49.7%"], ["2", "oom", "n/a"]]
    assert "no measurement" in tables.document(rows)
    assert "`oom`: out of memory." in tables.document(rows)


def test_a_figure_whose_interval_is_unknown_is_marked():
    """The interval of these calls reaches below zero; that of latency - TTFT too, so that decode is blank."""
    rows = summary.summarise([make_record(samples_s=[0.2, 0.5, 0.9])])
    (row,) = rows_of(rows)
    assert tables.cell_text(row, BY_NAME["throughput_tok_per_s"]) == "30.00 | 33.33 ±?"
    assert tables.cell_text(row, BY_NAME["decode_tok_per_s"]) == ""
    assert tooltip(row)["throughput"] == "30 tokens/sec ±?"


def doubtful_records() -> list[Record]:
    first, *others = sample_records()
    return [replace(first, stability=DRIFTS, flags=SHARED), *others]


def test_a_figure_with_warnings_is_marked_and_explained():
    records = doubtful_records()
    rows = summary.summarise(records)
    text = tables.document(rows)
    assert "16.00 \\| 62.50 ±66.0%†‡" in text
    assert "†: the samples do not repeat well" in text
    assert "‡: measured under noteworthy conditions" in text
    assert sample_page(records).count("<td>drift, gpu-shared</td><td>slower; 2 others</td>") == 1
    plain = tables.document(summary.summarise(sample_records()))
    assert "†" not in plain
    assert "‡" not in plain


def test_prefill_and_decode_stand_apart_with_their_formulas():
    text = tables.document(summary.summarise(sample_records()))
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
    text = tables.document(summary.summarise([make_record(make_cell(batch_size=2), energy=energy)]))
    assert "1 ±2.0%" in text.split("Energy (joules/token)")[1]  # 48 J for 3 calls of 2 x 8 tokens


def test_the_summary_says_the_same_read_back(tmp_path):
    records = doubtful_records()
    rows = summary.summarise(records)
    rows.to_csv(tmp_path / "s.csv", index=False)
    assert tables.document(summary.read_summary(tmp_path / "s.csv")) == tables.document(rows)


def test_a_machine_where_nothing_was_measured_still_gets_tables_and_page():
    records = [make_oom(make_cell(batch_size=b)) for b in (1, 2)]
    assert "| 1          | oom  |" in tables.document(summary.summarise(records))
    assert "<svg" in sample_page(records)
