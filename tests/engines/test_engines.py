"""Every engine on the same weights gives the same answers, and says what it did."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy
import pytest
from made_up import MODELS, make_cell
from running import measure_cli, read_record

from inference_benchmark import engines
from inference_benchmark.engines import hf_static
from inference_benchmark.engines.ctranslate2 import converted
from inference_benchmark.models import checkpoint
from inference_benchmark.models.checkpoint import CheckpointError

#: (rows, prompt tokens, new tokens)
FORMS = [(1, 1, 1), (1, 1, 24), (1, 9, 2), (2, 3, 17), (5, 17, 8), (8, 40, 32), (33, 2, 5)]


def weights(family: str = "bloom") -> Path:
    return checkpoint.ensure({"architecture": MODELS[family], "seed": 0})


def load(name: str, precision: str = "fp32", family: str = "bloom", limit_bytes: int | None = None):
    engine = engines.create(name)
    engine.start("cpu", 2, weights(family))
    assert engine.unsupported(precision) is None
    if limit_bytes:
        engine.limit_memory(limit_bytes)
    engine.load(weights(family), precision)
    return engine


def prompts(rows: int, tokens: int) -> numpy.ndarray:
    return numpy.random.default_rng(rows * 100 + tokens).integers(1000, size=(rows, tokens))


@pytest.mark.parametrize("family", MODELS)
def test_ctranslate2_gives_the_tokens_of_hf_in_fp32(family):
    ours, reference = load("ctranslate2", family=family), load("hf", family=family)
    for rows, length, new_tokens in FORMS:
        ids = prompts(rows, length)
        wanted = reference.generate(ids, new_tokens)
        assert (ours.generate(ids, new_tokens) == wanted).all(), (rows, length, new_tokens)
        observed, seen = ours.observe(ids, new_tokens)
        assert (observed == wanted).all()
        assert seen == {"activations": ["float32"], "non_finite_rows": 0}


def test_hf_static_gives_the_tokens_of_hf_in_fp32_and_compiles_once_for_them():
    ours, reference = load("hf-static"), load("hf")
    before = ours.compilation()  # by other tests of this process
    # Prompts and answers of one length, as in a cell, and then all others without a graph.
    ids = prompts(3, 9)
    wanted = reference.generate(ids, 16)
    observed, seen = ours.observe(ids, 16)
    assert (observed == wanted).all()
    assert seen["cache"] == "StaticCache"
    assert seen["activations"] == ["float32"], "prefill was looked into"
    compiled = ours.compilation()
    assert compiled["graphs"] == before["graphs"] + 1
    assert compiled["seconds"] > before["seconds"]
    assert "why_not" not in compiled
    for _ in range(2):
        assert (ours.generate(ids, 16) == wanted).all()
    ours.generate(ids, 1)
    assert ours.compilation() == compiled, "nothing is compiled once more, hooks or none, 16 tokens or 1"
    ours.generate_options["disable_compile"] = True
    for rows, length, new_tokens in FORMS:
        ids = prompts(rows, length)
        assert (ours.generate(ids, new_tokens) == reference.generate(ids, new_tokens)).all(), (rows, length, new_tokens)


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_hf_static_says_that_quantised_weights_are_not_compiled(precision):
    engine = load("hf-static", precision)
    engine.observe(prompts(2, 5), 4)
    found = engine.compilation()
    assert found["why_not"] == f"transformers does not compile {precision} weights of bitsandbytes"


def test_hf_static_says_that_there_is_no_compiler(monkeypatch):
    monkeypatch.setattr(hf_static, "_has_cpp_compiler", lambda: False)
    engine = load("hf-static")
    engine.generate(prompts(1, 3), 4)
    assert engine.compilation()["why_not"] == "torch found no C++ compiler"


@pytest.mark.parametrize(
    ("name", "precision"), [("hf", "fp32"), ("hf", "bf16"), ("hf", "int8"), ("ctranslate2", "fp32"), ("ctranslate2", "int8")]
)  # fmt: skip
def test_the_logits_of_an_engine_are_those_its_tokens_were_chosen_by(name, precision):
    engine, ids = load(name, precision), prompts(4, 9)
    tokens = engine.generate(ids, 12)
    logits = engine.next_token_logits(ids, tokens)
    assert logits.shape == (4, 12, 1000)
    assert logits.dtype == numpy.float32
    agreement = (logits.argmax(axis=-1) == tokens).mean()
    # ctranslate2 shows the logits of whole sequences: in 8 bits a long product is not the sum of short ones.
    assert agreement == 1 if (name, precision) != ("ctranslate2", "int8") else agreement > 0.6
    # Given other tokens before, other ones would follow.
    other = engine.next_token_logits(ids, (tokens + 1) % 1000)
    assert (other[:, 0] == logits[:, 0]).all()
    assert not (other[:, 1:].argmax(axis=-1) == tokens[:, 1:]).all()


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_keys_and_values_take_the_bytes_that_the_shapes_say(family, precision):
    engine = load("hf", precision, family)
    found = engine.describe()["shapes"]
    output = engine._generate(prompts(2, 7), 4, return_dict_in_generate=True)
    kept = [tensor for layer in output.past_key_values.layers for tensor in (layer.keys, layer.values)]
    tokens = 2 * (7 + 4 - 1)
    assert sum(t.numel() * t.element_size() for t in kept) == tokens * found["kv_bytes"]
    assert found["attention_width"] == 4 * 128


def test_shapes_are_counted_alike_for_every_engine_and_held_in_fewer_bits():
    hf, ct2 = (load(name).describe() for name in ("hf", "ctranslate2"))
    assert hf["shapes"] == ct2["shapes"]
    assert hf["parameters"] == ct2["parameters"]
    in_8_bits = load("hf", "int8").describe()["shapes"]["matrices"]
    for matrix, quantised in zip(hf["shapes"]["matrices"], in_8_bits, strict=True):
        elements = matrix["inputs"] * matrix["outputs"]
        head = not matrix["every_position"]
        assert quantised["weight_bytes"] == (2 * elements if head else elements + 4 * matrix["outputs"])
        assert quantised["arithmetic"] == ("float16" if head else "int8")
    for matrix in load("hf", "nf4").describe()["shapes"]["matrices"][:-1]:
        elements = matrix["inputs"] * matrix["outputs"]
        assert matrix["weight_bytes"] == elements // 2 + 4 * elements // 64
        assert matrix["arithmetic"] == "bfloat16"


def test_converted_weights_are_kept_by_content_and_version(tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(weights(), copy)
    assert converted(weights()) == converted(copy)
    other = checkpoint.ensure({"architecture": MODELS["bloom"], "seed": 1})
    assert converted(other) != converted(copy)


def test_a_model_that_ctranslate2_cannot_convert_is_told_in_its_words(tmp_path, capfd):
    folder = tmp_path / "x"
    shutil.copytree(weights(), folder)
    (folder / "config.json").write_text('{"model_type": "rwkv", "vocab_size": 10}')
    with pytest.raises(CheckpointError, match="ctranslate2 could not convert the weights; the reason stands above"):
        converted(folder)
    assert "ctranslate2 cannot convert this model: " in capfd.readouterr().err


def test_ctranslate2_runs_out_of_real_memory(tmp_path):
    wide = {"model_type": "bloom", "hidden_size": 256, "n_head": 4, "n_layer": 1, "vocab_size": 20_000}
    model = {"name": "wide", "architecture": wide, "seed": 0}
    cell = make_cell(engine="ctranslate2", model=model, batch_size=8192, memory_limit_bytes=300_000_000)
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    found = read_record(tmp_path / "r.json")
    assert found["outcome"] == "oom"
    assert found["software"]["ctranslate2"]


def test_a_precision_that_an_engine_does_not_have_is_a_record(tmp_path):
    done = measure_cli(make_cell(engine="ctranslate2", precision="nf4"), tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    found = read_record(tmp_path / "r.json")
    assert (found["outcome"], found["reason"]["message"]) == ("unsupported", "ctranslate2 has no nf4")


def test_a_precision_that_a_device_does_not_have_is_named_beside_those_it_has():
    engine = engines.create("ctranslate2")
    engine.start("cpu", 2, weights())
    reason = engine.unsupported("fp16")
    assert reason is None or re.fullmatch(r"ctranslate2 [\d.]+ has no float16 on this cpu; it has .*float32.*", reason)


def test_a_compiled_cell_holds_its_compile_time_apart(tmp_path):
    model = {"name": "small", "architecture": MODELS["bloom"], "seed": 0}
    cell = make_cell(engine="hf-static", model=model, memory_limit_bytes=400_000_000)
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    found = read_record(tmp_path / "r.json")
    assert found["outcome"] == "ok"
    compiled = found["model"]["compilation"]
    assert compiled["graphs"] >= 1
    run = found["runs"][0]
    assert run["warmup_s"][0] > compiled["seconds"] > max(run["samples_s"])
    assert found["model"]["graphs_while_timed"] == 0
    assert len(run["tokens_sha256"]) == 1
