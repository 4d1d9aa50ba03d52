"""Answers of real engines, compared across batch sizes."""

from __future__ import annotations

import numpy
import pytest
from made_up import MODELS, make_cell
from running import drawn, run_study

from inference_benchmark.analysis.batch_invariance import NEAR_TIE, BatchAnswers
from inference_benchmark.engines.hf import HfEngine
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import BatchStudy
from inference_benchmark.worker import batch_invariance
from inference_benchmark.worker.engine_session import EngineSession

MODEL = {"name": "small", "architecture": MODELS["bloom"], "seed": 0}
#: What other engines in fp32 have at the most.
FP32_ERROR = 1e-5


def study_of(*batch_sizes: int, **changes) -> BatchStudy:
    return BatchStudy.at(
        batch_sizes, make_cell(**{"engine": "hf", "model": MODEL, "workload": Workload(9, 24)} | changes)
    )


@pytest.mark.parametrize(
    ("engine", "precision"), [("hf", "fp32"), ("ctranslate2", "fp32"), ("hf-static", "fp32"), ("hf", "int8")]
)
def test_answers_are_those_of_batch_1_but_for_rounding(tmp_path, engine, precision):
    """In LLM.int8() a row decides which columns of the other rows are rounded to 8 bits."""
    study = study_of(1, 3, 12, engine=engine, precision=precision)
    results = run_study(study, tmp_path / "batch-invariance.json").results
    assert [(each["batch_size"], each["rows"], each["steps"]) for each in results] == [
        (1, [0], 24), (3, [0, 1, 2], 24), (12, [0, 1, 2, 3, 4, 5, 6, 11], 24),
    ]  # fmt: skip
    assert results[0]["token_agreement"] == 1, "the same call again"
    for each in results:
        assert [gap is None for gap in each["gaps"]] == [step is None for step in each["first_difference"]]
    if precision == "fp32":
        assert [each["token_agreement"] for each in results] == [1, 1, 1]
    else:
        assert 0.1 < results[2]["token_agreement"] < 1
        assert 0 < max(gap for gap in results[2]["gaps"] if gap is not None) < 0.5


def test_rows_that_are_mixed_up_are_told_from_near_ties(monkeypatch):
    generate = HfEngine.generate
    monkeypatch.setattr(HfEngine, "generate", lambda *call: numpy.roll(generate(*call), 1, axis=0))
    sent = []
    session = EngineSession(lambda **facts: sent.extend(facts.get("results", ())), ())
    batch_invariance.run(session, study_of(1, 3).to_json(), str(drawn(MODEL)))
    alone, mixed = (BatchAnswers(each, FP32_ERROR) for each in sent)
    assert (alone.token_agreement, alone.error) == (1, None)
    assert mixed.token_agreement < 0.5
    assert mixed.gap_errors > 100 * NEAR_TIE
    assert mixed.error.startswith("a row of batch 3 has another token than at batch 1 where")


def test_the_comparison_ends_with_the_first_batch_that_does_not_fit(tmp_path):
    study = study_of(1, 2, 4096, 8192, memory_limit_bytes=60_000_000)
    record = run_study(study, tmp_path / "batch-invariance.json")
    assert (record.outcome, [each["batch_size"] for each in record.results]) == ("ok", [1, 2])
