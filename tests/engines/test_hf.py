"""Real torch, transformers, accelerate and bitsandbytes on small models."""

from __future__ import annotations

import json
import shutil

import numpy
import pytest
import torch
from made_up import MODELS, make_cell
from real_engines import load, load_from, prompts, weights
from running import measure_cli, read_record

from inference_benchmark import engines
from inference_benchmark.analysis.yardstick import Speed
from inference_benchmark.engines import cpu_memory, hf_facts
from inference_benchmark.models.synthesize import synthesize


def test_a_cudnn_that_torch_refuses_and_nothing_uses_is_a_fact_of_the_record(monkeypatch):
    def refuse():
        raise RuntimeError(
            "cuDNN version incompatibility: PyTorch was compiled  against (9, 20, 0) but found runtime version (9, 1, 0). "
            "PyTorch already comes bundled with cuDNN. "
        )

    monkeypatch.setattr(torch.backends.cudnn, "version", refuse)
    assert hf_facts.torch_settings(torch.device("cuda"))["cudnn"] == (
        "cuDNN version incompatibility: PyTorch was compiled against (9, 20, 0) but found runtime version (9, 1, 0)"
    )


@pytest.mark.parametrize(
    ("precision", "dtypes", "activations"),
    [
        ("fp32", ["float32"], "float32"),
        ("bf16", ["bfloat16"], "bfloat16"),
        ("fp16", ["float16"], "float16"),
        ("int8", ["float16", "int8"], "float16"),
        ("int8-threshold-0", ["float16", "int8"], "float16"),
        ("nf4", ["bfloat16", "uint8"], "bfloat16"),
    ],
)
def test_every_precision_is_what_it_says_and_generates_in_full(precision, dtypes, activations, capfd):
    torch._dynamo.utils.counters.clear()  # other tests in this process may have compiled
    engine = load("hf", precision)
    facts = engine.describe()
    assert facts["dtypes"] == dtypes
    assert facts["parameters"] == sum(p.numel() for p in synthesize(MODELS["bloom"], 0).parameters())
    assert (facts["attention"], facts["device_map"], facts["threads"]) == ("eager", {"": "cpu"}, 2)
    assert (facts["tf32"], facts["float32_matmul_precision"]) == (False, "highest")
    if precision in ("int8", "int8-threshold-0", "nf4"):
        # query_key_value, dense and both MLP layers, in four blocks; the head is not quantised
        assert facts["quantised"] == {
            "library": "bitsandbytes",
            "modules": {"query_key_value": 4, "dense": 4, "dense_h_to_4h": 4, "dense_4h_to_h": 4},
            **({"type": ["nf4"]} if precision == "nf4" else {"threshold": [6.0 if precision == "int8" else 0.0]}),
            "not_quantised": {"lm_head": 1},
        }
    else:
        assert facts["quantised"] is None
    output = engine.generate(prompts(3), 12)
    observed, call_facts = engine.observe(prompts(3), 12)
    assert (observed == output).all()
    outliers = call_facts.pop("outlier_columns")
    assert call_facts == {"cache": "DynamicCache", "activations": [activations], "non_finite_rows": 0}
    # Outliers exist only with a threshold. Here some of the MLP's activations reach it.
    assert (outliers is None) == (precision != "int8")
    if outliers:
        assert set(outliers) == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
        assert outliers["dense_4h_to_h"]["of"] == 512
        assert 0 < outliers["dense_4h_to_h"]["mean"] <= outliers["dense_4h_to_h"]["max"] <= 512
    assert engine.compilation()["graphs"] == 0
    assert output.shape == (3, 12)
    assert output.dtype == numpy.int64
    assert ((output >= 0) & (output < 1000)).all()
    printed = capfd.readouterr()
    assert "MatMul8bitLt" not in printed.err + printed.out


def test_rows_with_a_nan_logit_at_any_step_are_counted():
    """One token's embedding becomes NaN: rows that contain this token have NaN logits from there on."""
    engine = load("hf")
    ids = prompts(3)
    nan_token = int(engine.generate(ids, 4)[1, 1])
    assert nan_token not in ids
    nan_rows = [row for row, tokens in enumerate(engine.generate(ids, 8)[:, :-1]) if nan_token in tokens]
    with torch.no_grad():
        head = torch.nn.Linear(128, 1000, bias=False)
        head.weight.copy_(engine.model.get_input_embeddings().weight)
        engine.model.set_output_embeddings(head)
        engine.model.get_input_embeddings().weight[nan_token, :] = float("nan")
    assert 0 < len(nan_rows) < 3
    assert engine.observe(ids, 8)[1]["non_finite_rows"] == len(nan_rows)
    assert engine.observe(ids, 1)[1]["non_finite_rows"] == 0


def test_compiled_graphs_are_counted():
    engine = load("hf")
    before = engine.compilation()["graphs"]
    engine.model.forward = torch.compile(engine.model.forward, backend="eager")
    engine.generate(prompts(1), 2)
    assert engine.compilation()["graphs"] > before
    torch._dynamo.reset()


def test_peak_memory_is_that_of_the_calls_since_the_reset():
    engine = load("hf")
    filler = torch.ones(100_000_000, dtype=torch.uint8)
    del filler
    peak_bytes = engine.memory()["peak_rss_bytes"]
    engine.reset_peak_memory()
    engine.generate(prompts(1), 2)
    assert engine.memory()["peak_rss_bytes"] < peak_bytes - 50_000_000
    assert 0 < engine.memory()["loaded_bytes"] < peak_bytes


def test_the_yardstick_leaves_no_memory_behind_that_a_limit_would_count():
    engine = engines.create("hf")
    engine.start("cpu", 2, weights())
    before_bytes, rss_bytes = cpu_memory.data_bytes(), cpu_memory.rss_bytes()["rss_bytes"]
    times = engine.yardstick()
    assert abs(cpu_memory.data_bytes() - before_bytes) < 2**20
    assert cpu_memory.rss_bytes()["rss_bytes"] - rss_bytes < 2**23
    for name in ("memory_s", "arithmetic_s"):
        assert sum(times[name]) >= 0.025
        assert min(times[name]) > 0
    speed = Speed.of(times)
    assert 1e8 < speed.memory_bytes_per_s < 1e13
    assert 1e8 < speed.arithmetic_flop_per_s < 1e14


def test_the_yardstick_after_the_calls_needs_no_room_below_the_limit():
    engine = load("hf", limit_bytes=60_000_000)
    try:
        with pytest.raises(RuntimeError) as raised:
            # Each as large as the yardstick's. What other tests have freed may hold one or two.
            [torch.ones(2**24) for _ in range(100)]
        assert engine.is_out_of_memory(raised.value)
        engine.unload()
        assert engine.yardstick().keys() == {"memory_s", "moved_bytes", "arithmetic_s", "flop"}
    finally:
        engine.growth_limit.lift()


def test_greedy_tokens_equal_those_of_a_loop_without_cache():
    engine = load("hf")
    ids = prompts(2, 5)
    expected = torch.from_numpy(ids)
    with torch.no_grad():
        for _ in range(10):
            step = engine.model(expected, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
            expected = torch.cat([expected, step], dim=1)
    assert (engine.generate(ids, 10) == expected[:, 5:].numpy()).all()


def test_a_checkpoints_own_generation_settings_are_ignored(tmp_path):
    """In this checkpoint every token ends the sequence, and its generation settings sample and penalise."""
    folder = weights()
    shutil.copytree(folder, tmp_path / "altered")
    settings = {"eos_token_id": list(range(1000)), "do_sample": True, "repetition_penalty": 5.0, "max_length": 12}
    (tmp_path / "altered/generation_config.json").write_text(json.dumps(settings))
    altered, original = load_from(tmp_path / "altered", "hf"), load_from(folder, "hf")
    ids = prompts(2)
    assert (altered.generate(ids, 20) == original.generate(ids, 20)).all()


@pytest.mark.parametrize(
    ("precision", "batch_size", "limit", "phase"),
    [("fp32", 8192, 100_000_000, "warm-up"), ("bf16", 1, 1_000_000, "load")],
)
def test_a_real_allocator_runs_out_under_a_real_limit(tmp_path, precision, batch_size, limit, phase):
    wide = {"model_type": "bloom", "hidden_size": 256, "n_head": 4, "n_layer": 1, "vocab_size": 20_000}
    cell = make_cell(
        engine="hf",
        model={"name": "wide", "architecture": wide, "seed": 0},
        precision=precision,
        batch_size=batch_size,
        memory_limit_bytes=limit,
    )
    process = measure_cli(cell, tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "r.json")
    assert (record["outcome"], record["reason"]["phase"]) == ("oom", phase)
    assert "allocate memory" in record["reason"]["message"]
    assert record["reason"]["limit"] == {"name": "memory_limit", "bytes": limit}
