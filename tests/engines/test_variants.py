"""Variants of engines: what they choose is what runs, or they are not available."""

from __future__ import annotations

import pytest
import torch
from made_up import MODELS, make_cell
from real_engines import load, prompts, weights
from running import measure_cli, read_record, run_study

from inference_benchmark import engines
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy


def variant_cell(engine: str, model: str = "llama", **options: str):
    """A cell of a variant of an engine with a real model."""
    return make_cell(
        engine=f"{engine}-variant",
        options={"engine": engine, **options},
        model={"name": model, "architecture": MODELS[model], "seed": 0},
        workload=Workload(9, 4),
    )


@pytest.mark.parametrize(
    ("name", "attention", "implementation"),
    [
        ("hf", "eager", "eager"),
        ("hf", "sdpa", "sdpa"),
        ("hf", "flex", "flex_attention"),
        ("hf-continuous", "eager", "paged|eager"),
    ],
)
def test_the_chosen_attention_runs_and_answers_as_the_default_does(name, attention, implementation):
    ids = prompts(2)
    wanted = load("hf", family="llama").generate(ids, 6)
    engine = load(name, family="llama", attention=attention)
    assert engine.not_loaded_as("fp32") is None
    assert engine.describe()["attention"] == implementation
    tokens, _ = engine.observe(ids, 6)
    assert (tokens == wanted).all()


@pytest.mark.parametrize(("cache", "name"), [("dynamic", "DynamicCache"), ("static", "StaticCache")])
def test_the_chosen_cache_is_the_one_of_a_call(cache, name):
    engine, ids = load("hf", cache=cache), prompts(2)
    graphs = engine.compilation()["graphs"]
    tokens, facts = engine.observe(ids, 6)
    assert (facts["cache"], engine.compilation()["graphs"]) == (name, graphs)
    assert (tokens == load("hf").generate(ids, 6)).all()


def test_another_attention_than_the_chosen_one_is_found():
    engine = load("hf", family="llama", attention="eager")
    engine.model.config._attn_implementation = "sdpa"
    assert engine.not_loaded_as("fp32") == "the loaded model has sdpa attention"


def test_another_cache_than_the_chosen_one_is_found():
    engine = load("hf", cache="static")
    engine.generate_options = {}
    with pytest.raises(UnsupportedError, match="the cache of bloom is a DynamicCache"):
        engine.observe(prompts(1), 4)


def test_a_matmul_precision_holds_from_loading_to_unloading_and_has_no_ceiling():
    before = torch.get_float32_matmul_precision()
    engine = load("hf", matmul_precision="high")
    facts = engine.describe()
    assert facts["float32_matmul_precision"] == "high"
    assert (facts["shapes"], facts["shapes_unknown"]) == (None, "float32 products in high precision have no ceiling")
    engine.unload()
    assert torch.get_float32_matmul_precision() == before == "highest"
    in_bf16 = load("hf", "bf16", matmul_precision="high")
    assert in_bf16.describe()["shapes"]
    in_bf16.unload()


def test_cuda_graphs_are_not_available_on_a_cpu():
    engine = engines.create("hf-static", {"engine": "hf-static", "compile_mode": "reduce-overhead"})
    engine.start("cpu", 2, weights())
    assert engine.unsupported("fp32") == "reduce-overhead means CUDA graphs, which a CPU does not have"


def test_a_model_without_the_chosen_attention_is_not_available(tmp_path):
    cell = variant_cell("hf", model="bloom", attention="sdpa")
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert record["outcome"] == "unsupported"
    assert "bloom, fp32, cpu, attention sdpa do not go together" in record["reason"]["message"]
    assert "scaled_dot_product" in record["reason"]["message"]


def test_the_record_of_a_variant_has_its_options_and_what_ran(tmp_path):
    cell = variant_cell("hf", attention="eager")
    assert measure_cli(cell, tmp_path / "r.json").returncode == 0
    record = read_record(tmp_path / "r.json", cell)
    assert record["cell"]["engine"] == "hf-variant"
    assert record["cell"]["options"] == {"engine": "hf", "attention": "eager"}
    assert record["model"]["attention"] == "eager"
    assert record["model"]["options"] == {"attention": "eager"}


def test_a_cell_by_hand_with_an_unknown_option_is_one_line(tmp_path):
    done = measure_cli(variant_cell("hf", attention="magic"), tmp_path / "r.json")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "measure.py: option attention: 'magic' is not allowed; allowed: eager, sdpa, flex, flash"
    )


def test_the_answers_of_a_variant_are_compared_with_those_of_the_reference(tmp_path):
    study = ColumnStudy.of("divergence", variant_cell("hf", attention="eager"))
    assert study.path == "results/box/llama/prompt9-new4/hf-variant/fp32/divergence.json"
    assert run_study(study, tmp_path / "s.json").results[0]["token_agreement"] == 1
