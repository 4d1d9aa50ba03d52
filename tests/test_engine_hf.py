"""Real torch, transformers, accelerate and bitsandbytes on small models."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from conftest import REPO, TINY_BLOOM, make_cell, measure_cli
from inference_benchmark import engines
from inference_benchmark.models import checkpoint
from inference_benchmark.models.synthesize import synthesize
from inference_benchmark.records import record

MODELS = {
    "bloom": {"model_type": "bloom", "hidden_size": 128, "n_head": 4, "n_layer": 4, "vocab_size": 1000},
    "gpt2": {"model_type": "gpt2", "n_embd": 128, "n_head": 4, "n_layer": 4, "vocab_size": 1000, "n_positions": 128},
    "llama": {
        "model_type": "llama", "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 4, "intermediate_size": 256, "vocab_size": 1000,
    },
}  # fmt: skip


def load_engine(folder: Path, precision: str):
    engine = engines.create("hf")
    engine.start("cpu", 2, folder)
    assert engine.unsupported(precision) is None
    engine.load(folder, precision)
    return engine


def prompts(n: int, vocab_size: int, length: int = 9) -> numpy.ndarray:
    return numpy.random.default_rng(1).integers(vocab_size, size=(n, length))


def test_the_default_cuda_model_has_the_published_size():
    sizes = yaml.safe_load((REPO / "config.yaml").read_text())["models"]["bloom-1b3"]["architecture"]
    config = AutoConfig.for_model(**sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == 1_311_535_104


def test_transformers_own_initialisation_would_make_every_comparison_pass():
    """Why weights are drawn here: this is what they would answer otherwise."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**MODELS["bloom"])).eval()
    ids = torch.from_numpy(prompts(4, 1000))
    output = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)[:, 9:]
    assert (output == ids[:, -1:]).all()


@pytest.mark.parametrize("family", MODELS)
def test_synthesized_weights_answer_like_a_model(family):
    folder = checkpoint.ensure({"architecture": MODELS[family], "seed": 0})
    ids = prompts(8, 1000)
    output = load_engine(folder, "fp32").generate(ids, 32)
    distinct = sorted(len(set(row)) for row in output.tolist())
    assert distinct[0] >= 3, f"a row repeats itself: {distinct}"
    assert distinct[len(distinct) // 2] >= 10, f"rows repeat themselves: {distinct}"
    assert len({tuple(row) for row in output.tolist()}) == 8, "prompts do not matter"
    assert (output[:, 0] != ids[:, -1]).any()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    full = torch.from_numpy(numpy.concatenate([ids, output], axis=1))
    assert torch.isfinite(model(full).logits).all()
    assert {"config.json", "generation_config.json", "model.safetensors"} <= {p.name for p in folder.iterdir()}


def test_weights_depend_on_the_seed_and_on_nothing_else():
    first, again, other = (synthesize(TINY_BLOOM, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(
        first["transformer.h.0.mlp.dense_h_to_4h.weight"], other["transformer.h.0.mlp.dense_h_to_4h.weight"]
    )


def test_an_unknown_size_is_refused_by_the_library_too():
    with pytest.raises(ValueError, match="bloom has no size named n_heads"):
        synthesize({**TINY_BLOOM, "n_heads": 2}, 0)
    with pytest.raises(checkpoint.CheckpointError, match="could not be drawn"):
        checkpoint.ensure({"architecture": {**TINY_BLOOM, "n_heads": 2}, "seed": 0})
    assert not checkpoint.cache_folder({**TINY_BLOOM, "n_heads": 2}, 0).exists()


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
    folder = checkpoint.ensure({"architecture": MODELS["bloom"], "seed": 0})
    engine = load_engine(folder, precision)
    facts = engine.describe()
    assert facts["dtypes"] == dtypes
    assert facts["parameters"] == sum(p.numel() for p in synthesize(MODELS["bloom"], 0).parameters())
    assert (facts["attention"], facts["device_map"], facts["threads"]) == ("eager", {"": "cpu"}, 2)
    assert (facts["tf32"], facts["float32_matmul_precision"]) == (False, "highest")
    if precision in ("int8", "int8-threshold-0", "nf4"):
        # query_key_value, dense, and both of the MLP, in four layers; the head stays as it is
        assert facts["quantised"] == {
            "library": "bitsandbytes",
            "modules": {"query_key_value": 4, "dense": 4, "dense_h_to_4h": 4, "dense_4h_to_h": 4},
            **({"type": ["nf4"]} if precision == "nf4" else {"threshold": [6.0 if precision == "int8" else 0.0]}),
            "not_quantised": {"lm_head": 1},
        }
    else:
        assert facts["quantised"] is None
    output = engine.generate(prompts(3, 1000), 12)
    observed, seen = engine.observe(prompts(3, 1000), 12)
    assert (observed == output).all()
    outliers = seen.pop("outlier_columns")
    assert seen == {"cache": "DynamicCache", "activations": [activations], "non_finite_rows": 0}
    # Only where a threshold is set are columns told apart: of the MLP's many activations some reach it here.
    assert (outliers is None) == (precision != "int8")
    if outliers:
        assert set(outliers) == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
        assert outliers["dense_4h_to_h"]["of"] == 512
        assert 0 < outliers["dense_4h_to_h"]["mean"] <= outliers["dense_4h_to_h"]["max"] <= 512
    assert engine.compilation()["graphs"] == 0
    assert output.shape == (3, 12)
    assert output.dtype == numpy.int64
    assert ((output >= 0) & (output < 1000)).all()
    said = capfd.readouterr()
    assert "MatMul8bitLt" not in said.err + said.out


def test_a_logit_that_is_no_number_is_seen_in_its_rows_at_any_step():
    """A token's embedding is spoilt: rows that meet it, in the prompt or on the way, have NaN from there on."""
    folder = checkpoint.ensure({"architecture": MODELS["bloom"], "seed": 0})
    engine = load_engine(folder, "fp32")
    ids = prompts(3, 1000)
    on_the_way = int(engine.generate(ids, 4)[1, 1])
    assert on_the_way not in ids
    spoilt = [row for row, tokens in enumerate(engine.generate(ids, 8)[:, :-1]) if on_the_way in tokens]
    with torch.no_grad():
        head = torch.nn.Linear(128, 1000, bias=False)
        head.weight.copy_(engine.model.get_input_embeddings().weight)
        engine.model.set_output_embeddings(head)
        engine.model.get_input_embeddings().weight[on_the_way, :] = float("nan")
    assert 0 < len(spoilt) < 3
    assert engine.observe(ids, 8)[1]["non_finite_rows"] == len(spoilt)
    assert engine.observe(ids, 1)[1]["non_finite_rows"] == 0


def test_graphs_that_were_compiled_are_counted():
    folder = checkpoint.ensure({"architecture": MODELS["bloom"], "seed": 0})
    engine = load_engine(folder, "fp32")
    before = engine.compilation()["graphs"]
    engine.model.forward = torch.compile(engine.model.forward, backend="eager")
    engine.generate(prompts(1, 1000), 2)
    assert engine.compilation()["graphs"] > before
    torch._dynamo.reset()


def test_memory_is_that_of_the_calls_since_the_reset():
    folder = checkpoint.ensure({"architecture": MODELS["bloom"], "seed": 0})
    engine = load_engine(folder, "fp32")
    filler = torch.ones(100_000_000, dtype=torch.uint8)
    del filler
    high = engine.memory()["peak_rss_bytes"]
    engine.reset_peak_memory()
    engine.generate(prompts(1, 1000), 2)
    assert engine.memory()["peak_rss_bytes"] < high - 50_000_000
    assert 0 < engine.memory()["loaded_bytes"] < high


def test_greedy_tokens_are_those_of_a_loop_without_cache():
    folder = checkpoint.ensure({"architecture": MODELS["bloom"], "seed": 0})
    engine = load_engine(folder, "fp32")
    ids = prompts(2, 1000, 5)
    expected = torch.from_numpy(ids)
    with torch.no_grad():
        for _ in range(10):
            step = engine.model(expected, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
            expected = torch.cat([expected, step], dim=1)
    assert (engine.generate(ids, 10) == expected[:, 5:].numpy()).all()


def test_a_model_eager_to_stop_is_made_to_go_on(tmp_path):
    """Every token is this checkpoint's end of sequence, and its generation settings would sample and penalise."""
    folder = checkpoint.ensure({"architecture": MODELS["bloom"], "seed": 0})
    shutil.copytree(folder, tmp_path / "eager")
    settings = {"eos_token_id": list(range(1000)), "do_sample": True, "repetition_penalty": 5.0, "max_length": 12}
    (tmp_path / "eager/generation_config.json").write_text(json.dumps(settings))
    eager, plain = load_engine(tmp_path / "eager", "fp32"), load_engine(folder, "fp32")
    ids = prompts(2, 1000)
    assert (eager.generate(ids, 20) == plain.generate(ids, 20)).all()


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
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    found = record.load(tmp_path / "r.json")
    assert (found["outcome"], found["reason"]["phase"]) == ("oom", phase)
    assert "allocate memory" in found["reason"]["message"]
    assert found["reason"]["limit"] == {"name": "memory_limit", "bytes": limit}


@pytest.fixture
def real_checkpoint(tmp_path) -> Path:
    """A Llama-style checkpoint as a user would bring one: saved by transformers in bf16, with a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "my-llama"
    synthesize(MODELS["llama"], 3).to(torch.bfloat16).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(1000)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w2").save_pretrained(folder)
    return folder


def test_a_local_checkpoint_is_measured_and_its_exchange_noticed(tmp_path, real_checkpoint):
    model = {"name": "mine", "checkpoint": str(real_checkpoint), "fingerprint": checkpoint.fingerprint(real_checkpoint)}
    cell = make_cell(engine="hf", model=model)
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    found = record.load_for(cell, tmp_path / "r.json")
    assert found["outcome"] == "ok"
    assert (found["model"]["class"], found["model"]["dtypes"]) == ("LlamaForCausalLM", ["float32"])
    assert found["runs"][0]["memory"]["peak_rss_bytes"] > 10**8
    synthesize(MODELS["llama"], 4).to(torch.bfloat16).save_pretrained(real_checkpoint)
    assert checkpoint.fingerprint(real_checkpoint) != model["fingerprint"]
    done = measure_cli(cell, tmp_path / "other.json")
    assert (done.returncode, (tmp_path / "other.json").exists()) == (1, False)
    assert "its files have changed" in done.stderr


def test_a_hub_model_is_read_from_its_snapshot(tmp_path, real_checkpoint):
    """The layout that a download leaves in the hub's cache; this machine needs no network for it."""
    commit = "a" * 40
    home = tmp_path / "hf"
    snapshot = home / "hub/models--me--my-llama/snapshots" / commit
    shutil.copytree(real_checkpoint, snapshot)
    (home / "hub/models--me--my-llama/refs").mkdir()
    (home / "hub/models--me--my-llama/refs/main").write_text(commit)
    for revision in ("main", commit):
        cell = make_cell(engine="hf", model={"name": "mine", "hub": "me/my-llama", "revision": revision})
        done = measure_cli(cell, tmp_path / "r.json", HF_HOME=str(home), HF_HUB_OFFLINE="1")
        assert done.returncode == 0, done.stderr
        assert record.load(tmp_path / "r.json")["model"]["weights"] == str(snapshot)
    absent = make_cell(engine="hf", model={"name": "mine", "hub": "me/other", "revision": "main"})
    done = measure_cli(absent, tmp_path / "o.json", HF_HOME=str(home), HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "me/other at main cannot be fetched from the hub" in done.stderr


def _draw(queue) -> None:
    queue.put(str(checkpoint.ensure({"architecture": TINY_BLOOM, "seed": 77})))


def test_many_at_once_draw_the_weights_only_once():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_draw, args=(queue,)) for _ in range(3)]
    for process in processes:
        process.start()
    folders = {queue.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert folders == {str(checkpoint.cache_folder(TINY_BLOOM, 77))}


def test_weights_killed_half_way_are_drawn_again():
    big = {"model_type": "bloom", "hidden_size": 256, "n_head": 4, "n_layer": 8, "vocab_size": 60_000}
    folder = checkpoint.cache_folder(big, 0)
    code = (
        f"from inference_benchmark.models import checkpoint; checkpoint.ensure({{'architecture': {big!r}, 'seed': 0}})"
    )
    drawing = subprocess.Popen(
        [sys.executable, "-c", code],
        env=checkpoint.child_environment(),
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    unfinished = folder.with_suffix(".unfinished")
    for _ in range(2400):
        if unfinished.exists() and list(unfinished.iterdir()):
            break
        time.sleep(0.02)
    os.killpg(drawing.pid, signal.SIGKILL)
    drawing.wait()
    assert unfinished.exists()
    assert not folder.exists(), "half-written weights would have been used"
    assert checkpoint.ensure({"architecture": big, "seed": 0}) == folder
    assert not unfinished.exists()
    AutoModelForCausalLM.from_pretrained(folder)
