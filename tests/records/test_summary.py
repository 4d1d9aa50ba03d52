"""The summary: one row per cell."""

from __future__ import annotations

import pandas
import pytest
from made_up import DRIFTS, OOM, SHARED, make_cell, make_record
from running import PUBLISHED

from inference_benchmark.cli import ProblemsError
from inference_benchmark.records import summary


def test_a_summary_row_holds_the_figures_of_its_samples(tmp_path):
    row = summary.row(make_record(samples_s=[0.4, 0.5, 0.7], stability=DRIFTS, flags=SHARED))
    assert row["throughput_tok_per_s"] == pytest.approx(2 * 8 * 3 / 1.6)
    assert row["ms_per_token"] == pytest.approx(1000 * 1.6 / 48)
    assert row["latency_s"] == pytest.approx(1.6 / 3)
    assert (row["latency_min_s"], row["latency_max_s"], row["cycles"]) == (0.4, 0.7, 3)
    assert row["first_token_s"] == pytest.approx(0.1)
    assert row["time_per_output_token_s"] == pytest.approx((1.6 / 3 - 0.1) / 7)
    assert row["latency_low_s"] < row["latency_s"] < row["latency_high_s"]
    assert row["latency_sd_s"] == pytest.approx(0.152753, abs=1e-6)
    assert (row["latency_median_s"], row["latency_p95_s"], row["memory_share"]) == (0.5, None, 0.25)
    assert (row["stable"], row["unstable_because"], row["flags"]) == (False, "drift", "gpu-shared")
    assert (row["notes"], row["outliers"], row["drift"]) == ("slower; 2 others", 1, 0.1)
    assert set(row) <= set(summary.COLUMNS)
    oom = summary.row(make_record(outcome="oom", samples_s=[0.4], reason=OOM))
    assert (oom["outcome"], oom["memory_share"]) == ("oom", 0.25)
    assert "throughput_tok_per_s" not in oom
    assert (oom["reason_phase"], oom["reason"]) == ("load", "m")


def test_a_95th_percentile_needs_twenty_samples():
    samples = [float(n) for n in range(1, 21)]
    assert summary.row(make_record(samples_s=samples))["latency_p95_s"] == pytest.approx(19.05)
    assert summary.row(make_record(samples_s=samples[:19]))["latency_p95_s"] is None


def test_names_in_a_summary_stay_text(tmp_path):
    cell = make_cell(model={"name": "nan", "hub": "x", "revision": "1e5"}, machine="007")
    (tmp_path / "s.csv").write_text(summary.to_csv(summary.summarise([make_record(cell)])))
    back = summary.read_summary(tmp_path / "s.csv").iloc[0]
    assert (back["model"], back["machine"], back["batch_size"]) == ("nan", "007", 2)


def test_a_summary_that_a_spreadsheet_saved_reads_the_same(tmp_path):
    text = summary.to_csv(summary.summarise([make_record(stability=DRIFTS)]))
    (tmp_path / "s.csv").write_text(text)
    (tmp_path / "saved.csv").write_text("\ufeff" + text.replace(",", ";"), newline="\r\n")
    plain, saved = (summary.read_summary(tmp_path / name) for name in ("s.csv", "saved.csv"))
    pandas.testing.assert_frame_equal(saved, plain)
    assert not plain["stable"].iat[0]


@pytest.mark.parametrize(
    ("column", "text", "said"),
    [
        ("latency_s", "0,5", f"row 1: {len(summary.COLUMNS) + 1} fields under a header of {len(summary.COLUMNS)}"),
        ("latency_s", '"1,234.5"', "row 1: latency_s: '1,234.5' is not a number"),
        ("batch_size", "x" * 1000, "row 1: batch_size: 'xxxxxxxxxxxx...xxxxxxxxxxxxx' is not a number"),
    ],
)
def test_a_summary_with_a_field_that_does_not_fit_is_refused(tmp_path, column, text, said):
    row = ["" for _ in summary.COLUMNS]
    row[summary.COLUMNS.index(column)] = text
    (tmp_path / "s.csv").write_text(f"{','.join(summary.COLUMNS)}\n{','.join(row)}\n")
    with pytest.raises(ProblemsError) as caught:
        summary.read_summary(tmp_path / "s.csv")
    assert said in str(caught.value)


def test_a_table_of_figures_is_no_summary():
    with pytest.raises(ProblemsError, match=r"bloom_a100_80gb\.csv: has no column machine, device, model"):
        summary.read_summary(PUBLISHED)


def test_texts_from_records_are_only_texts():
    """Neither a terminal nor a spreadsheet obeys them."""
    hostile = make_record(host={"name": "h"}, software={"python": "3"}, started_at="=HYPERLINK(1)\x1b[2J")
    rows = summary.summarise([hostile])
    assert rows["started_at"].iat[0] == "=HYPERLINK(1)\N{REPLACEMENT CHARACTER}[2J"
    assert ",'=HYPERLINK(1)" in summary.to_csv(rows)
