"""One result per cell, from its records."""

from __future__ import annotations

import pytest
from made_up import DRIFTS, OOM, SHARED, make_experiment, make_record

from inference_benchmark.records.results import cell_result, cell_results, left_out
from inference_benchmark.render import context
from inference_benchmark.results.summary_csv import read_summary, to_csv


def test_a_result_holds_the_figures_of_its_samples():
    result = cell_result(make_record(samples_s=[0.4, 0.5, 0.7], stability=DRIFTS, flags=SHARED))
    assert result.value("throughput_tok_per_s") == pytest.approx(2 * 8 * 3 / 1.6)
    assert result.value("ms_per_token") == pytest.approx(1000 * 1.6 / 48)
    assert result.value("latency_s") == pytest.approx(1.6 / 3)
    assert [result.value(name) for name in ("latency_min_s", "latency_max_s", "cycles")] == [0.4, 0.7, 3]
    assert result.value("first_token_s") == pytest.approx(0.1)
    assert result.value("time_per_output_token_s") == pytest.approx((1.6 / 3 - 0.1) / 7)
    latency = result.figures["latency_s"]
    assert latency.low < latency.value < latency.high
    assert result.value("latency_sd_s") == pytest.approx(0.152753, abs=1e-6)
    values = [result.value(name) for name in ("latency_median_s", "latency_p95_s", "memory_share")]
    assert values == [0.5, None, 0.25]
    assert (result.unstable_because, result.flags) == (("drift",), ("gpu-shared",))
    assert (result.notes, result.value("outliers"), result.value("drift")) == ("slower; 2 others", 1, 0.1)
    assert result.whole_s == [(0.4, 0.5, 0.7)]


def test_a_cell_that_did_not_fit_has_its_reason_and_its_memory():
    oom = cell_result(make_record(outcome="oom", samples_s=[0.4], reason=OOM))
    assert (oom.outcome, oom.ending, oom.value("memory_share")) == ("oom", "oom", 0.25)
    assert "throughput_tok_per_s" not in oom.figures
    assert (oom.reason_phase, oom.reason) == ("load", "m")


def test_a_95th_percentile_needs_twenty_samples():
    samples = [float(n) for n in range(1, 21)]
    assert cell_result(make_record(samples_s=samples)).value("latency_p95_s") == pytest.approx(19.05)
    assert cell_result(make_record(samples_s=samples[:19])).value("latency_p95_s") is None


def test_what_is_impossible_is_named_in_a_sentence_and_has_no_column(tmp_path):
    nothing = {"model": "tiny", "engine": "fake", "precision": "nf4", "reason": "fake has no nf4"}
    experiment = make_experiment(1, 2, precisions=("fp32", "nf4"), impossible=(nothing,))
    records = [make_record(cell) for cell in experiment.cells()]
    summary = tmp_path / "summary.csv"
    summary.write_text(to_csv([*cell_results(records), *left_out(experiment)]))
    results = read_summary(summary)
    assert [(each.outcome, each.reason, each.record) for each in results[2:]] == [
        ("unsupported", "fake has no nf4", "")
    ] * 2
    (model,) = context.models(results)
    (grid,) = model.workloads
    assert grid.sentence == "Not supported: nf4 (fake has no nf4)."
    assert [cell.column.precision for cell in grid.cells] == ["fp32"] * 2


def test_texts_from_records_hold_no_control_characters():
    hostile = make_record(started_at="=HYPERLINK(1)\x1b[2J")
    assert cell_result(hostile).started_at == "=HYPERLINK(1)\N{REPLACEMENT CHARACTER}[2J"
