"""Results as CSV, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up import DRIFTS, OLD, SHARED, make_cell, make_oom, make_record
from running import PUBLISHED

from inference_benchmark.cli import ProblemsError
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.records.results import cell_result, cell_results, without_record
from inference_benchmark.results import summary_csv
from inference_benchmark.results.summary_csv import COLUMNS, read_summary, to_csv


def test_results_come_back_from_a_summary_without_their_samples(tmp_path):
    variant = {"engine": "hf-x", "options": {"engine": "hf", "attention": "sdpa", "cache": "static"}}
    of_text = {"workload": Workload(4, 8, "python", "0" * 64)}
    cells = [
        make_cell(**variant),
        make_cell(batch_size=4),
        make_cell(environment=OLD, **of_text),
        make_cell(precision="bf16"),
    ]
    results = cell_results(
        [
            make_record(cells[0], stability=DRIFTS, flags=SHARED),
            make_oom(cells[1]),
            make_record(cells[2]),
        ]
    )
    results.append(without_record(cells[3], "failed", "x.log: killed"))
    (tmp_path / "s.csv").write_text(to_csv(results))
    back = read_summary(tmp_path / "s.csv")
    assert back == [replace(each, whole_s=(), first_token_s=(), rounds=()) for each in results]
    assert to_csv(back) == to_csv(results)
    assert {name for each in results for name in summary_csv.row(each)} <= set(COLUMNS)


def test_a_cell_is_stable_where_no_rule_is_broken():
    assert [summary_csv.row(cell_result(make_record(**how)))["stable"] for how in ({}, {"stability": DRIFTS})] == [
        True,
        False,
    ]
    assert summary_csv.row(cell_result(make_oom()))["stable"] is None


def test_names_in_a_summary_stay_text(tmp_path):
    cell = make_cell(model={"name": "nan", "hub": "x", "revision": "1e5"}, machine="007")
    (tmp_path / "s.csv").write_text(to_csv(cell_results([make_record(cell)])))
    (back,) = read_summary(tmp_path / "s.csv")
    assert (back.column.model, back.machine, back.batch_size) == ("nan", "007", 2)


def test_a_summary_that_a_spreadsheet_saved_reads_the_same(tmp_path):
    text = to_csv(cell_results([make_record(stability=DRIFTS)]))
    (tmp_path / "s.csv").write_text(text)
    (tmp_path / "saved.csv").write_text("\ufeff" + text.replace(",", ";"), newline="\r\n")
    plain, saved = (read_summary(tmp_path / name) for name in ("s.csv", "saved.csv"))
    assert saved == plain
    assert plain[0].unstable_because == ("drift",)


@pytest.mark.parametrize(
    ("column", "text", "said"),
    [
        ("latency_s", "0,5", f"row 1: {len(COLUMNS) + 1} fields under a header of {len(COLUMNS)}"),
        ("latency_s", '"1,234.5"', "row 1: latency_s: '1,234.5' is not a number"),
        ("latency_s", "nan", "row 1: latency_s: 'nan' is not a number"),
        ("batch_size", "x" * 1000, "row 1: batch_size: 'xxxxxxxxxxxx...xxxxxxxxxxxxx' is not a number"),
        ("latency_s", "1", "row 1: batch_size is blank"),
    ],
)
def test_a_summary_with_a_field_that_does_not_fit_is_refused(tmp_path, column, text, said):
    row = ["" for _ in COLUMNS]
    row[COLUMNS.index(column)] = text
    (tmp_path / "s.csv").write_text(f"{','.join(COLUMNS)}\n{','.join(row)}\n")
    with pytest.raises(ProblemsError) as caught:
        read_summary(tmp_path / "s.csv")
    assert said in str(caught.value)


def test_a_table_of_figures_is_no_summary():
    with pytest.raises(ProblemsError, match=r"bloom_a100_80gb\.csv: has no column machine, device, model"):
        read_summary(PUBLISHED)


def test_texts_from_records_are_only_texts():
    """A spreadsheet does not obey them."""
    text = to_csv(cell_results([make_record(started_at="=HYPERLINK(1)")]))
    assert ",'=HYPERLINK(1)" in text
