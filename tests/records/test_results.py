"""One result per cell, from its records."""

from __future__ import annotations

import csv
import io

import pytest
from made_up import DRIFTS, OOM, SHARED, make_ceilings, make_cell, make_experiment, make_record

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import BatchStudy, ColumnStudy, QualityStudy
from inference_benchmark.records.record import StudyRecord
from inference_benchmark.records.results import cell_result, cell_results, left_out
from inference_benchmark.render import context
from inference_benchmark.render.one_line import study_text
from inference_benchmark.render.tables import tables
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


def test_how_well_a_text_is_predicted_is_a_figure_of_every_cell_of_its_column(tmp_path):
    records = [make_record(make_cell(engine="hf", batch_size=size, workload=Workload(size, 8))) for size in (1, 2)]
    about = {"text": "python", "text_sha256": "0" * 64, "tokens": 1024}
    study = QualityStudy.of_text(about, records[0].cell)
    window = {"nll_nats": 3.0, "reference_nll_nats": 2.99, "kl_nats": [0.02] * 255, "same_best": 204}
    other = {**window, "nll_nats": 3.2, "reference_nll_nats": 3.19}
    done = make_ceilings(study=study, results=(window, other))
    assert study_text(done).startswith("perplexity 22.20 (6.23 to 79.")
    assert study_text(done).endswith("1.010 (1.010 to 1.010) times that of hf fp32, KL 0.02 (0.02 to 0.02)")
    results = cell_results(records, {study.path: done})
    assert [each.value("text_next_token_agreement") for each in results] == [0.8, 0.8]
    summary = tmp_path / "summary.csv"
    summary.write_text(to_csv(results))
    read = read_summary(summary)
    assert [each.figures for each in read] == [each.figures for each in results]
    (view, *_) = tables(read[:1])
    rows = dict(view.foot)
    assert rows["perplexity, times that of hf fp32"] == "1.010 (1.010 to 1.010)"
    assert rows["same best token over the text (%)"] == "80.0% (80.0% to 80.0%)"


def of_batches(cell, *gaps: float | None) -> StudyRecord:
    """A study of whether the answers of two rows of one token are those of batch 1. gaps: at batch 2."""
    alone = {
        "batch_size": 1,
        "rows": [0],
        "steps": 1,
        "token_agreement": 1.0,
        "first_difference": [None],
        "gaps": [None],
    }
    differing = [None if gap is None else 0 for gap in gaps]
    both = {"batch_size": 2, "rows": [0, 1], "steps": 1, "token_agreement": differing.count(None) / 2, "first_difference": differing, "gaps": list(gaps)}  # fmt: skip
    return make_ceilings(study=BatchStudy.at((2, 1), cell), results=(alone, both))


def of_answers(cell, error: float | None) -> StudyRecord:
    result = {
        "rows": 8, "steps": 8, "token_agreement": 1.0, "first_difference": [None] * 8, "next_token_agreement": 1.0,
        "logits_error": {"mean": error, "max": error}, "kl_nats": {"mean": error, "max": error},
    }  # fmt: skip
    return make_ceilings(study=ColumnStudy.of("divergence", cell), results=(result,))


@pytest.mark.parametrize(
    ("gaps", "logits_error", "texts", "is_flagged"),
    [
        ((None, None), 0.01, "100.0%", False),
        ((None, 0.05), 0.01, "50.0% | 0.05 | 5", False),
        ((0.01, 0.5), 0.01, "0.0% | 0.5 | 50", True),
        ((None, 5e-5), 0.0, "50.0% | 5e-05 | 5", False),
        ((None, 0.5), None, "50.0% | 0.5", False),
    ],
)
def test_answers_that_depend_on_the_batch_are_flagged_where_no_near_tie_explains_them(
    gaps, logits_error, texts, is_flagged, tmp_path
):
    cells = [make_cell(engine="hf", batch_size=size) for size in (1, 2, 4)]
    studies = [of_batches(cells[0], *gaps), of_answers(cells[0], logits_error)]
    results = cell_results([make_record(cell) for cell in cells], {each.study.path: each for each in studies})
    (view,) = (each for each in tables(results) if each.title.startswith("Same tokens as at batch 1"))
    assert view.title == "Same tokens as at batch 1 (% of tokens | gap | gap / logits error)"
    assert view.cells == [["1", "100.0%"], ["2", texts], ["4", ""]]
    assert [each.flags for each in results] == [(), ("batch-differs",) * is_flagged, ()]
    if is_flagged:
        assert results[1].notes == (
            "a row of batch 2 has another token than at batch 1 where their logits are 0.5 standard deviations apart, 50 "
            "times the logits error: no near-tie"
        )
    assert study_text(studies[0]).startswith("of the tokens as at batch 1: batch 1 100.0%, batch 2 ")
    (tmp_path / "summary.csv").write_text(to_csv(results))
    assert [each.figures for each in read_summary(tmp_path / "summary.csv")] == [each.figures for each in results]
    without = cell_results([make_record(cells[0])])
    assert not any(each.title.startswith("Same tokens") for each in tables(without))


def test_a_summary_from_before_there_was_quality_is_read(tmp_path):
    rows = list(csv.reader(io.StringIO(to_csv(cell_results([make_record()])))))
    kept = [
        index
        for index, name in enumerate(rows[0])
        if not name.startswith(("text_", "batch_token", "batch_gap", "prompts"))
    ]
    with (tmp_path / "summary.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([row[index] for index in kept] for row in rows)
    (result,) = read_summary(tmp_path / "summary.csv")
    assert result.value("throughput_tok_per_s") == pytest.approx(32)


def test_texts_from_records_hold_no_control_characters():
    hostile = make_record(started_at="=HYPERLINK(1)\x1b[2J")
    assert cell_result(hostile).started_at == "=HYPERLINK(1)\N{REPLACEMENT CHARACTER}[2J"
