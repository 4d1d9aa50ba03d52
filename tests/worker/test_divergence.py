"""Answers of real engines, compared with those of hf in fp32."""

from __future__ import annotations

import pytest
from made_up import MODELS, make_cell
from running import run_study

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy


@pytest.mark.parametrize(("engine", "precision"), [("hf", "fp32"), ("ctranslate2", "fp32"), ("hf", "bf16")])
def test_answers_are_compared_with_those_of_hf_in_fp32(tmp_path, engine, precision):
    model = {"name": "small", "architecture": MODELS["bloom"], "seed": 0}
    cell = make_cell(engine=engine, precision=precision, model=model, workload=Workload(9, 40))
    result = run_study(ColumnStudy.of("divergence", cell), tmp_path / "divergence.json").results[0]
    assert (result["rows"], result["steps"]) == (8, 32)
    if precision == "fp32":
        assert result["token_agreement"] == result["next_token_agreement"] == 1
        assert result["first_difference"] == [None] * 8
        assert result["logits_error"]["max"] < 1e-4
        assert -1e-9 < result["kl_nats"]["max"] < 1e-6
        assert (result["logits_error"]["max"] == 0) == (engine == "hf")
    else:
        assert 0.1 < result["token_agreement"] < 1
        assert any(step is not None for step in result["first_difference"])
        assert result["token_agreement"] <= result["next_token_agreement"] < 1
        assert 0.001 < result["logits_error"]["mean"] <= result["logits_error"]["max"] < 0.5
        assert 0 < result["kl_nats"]["mean"] <= result["kl_nats"]["max"]
