"""A checkpoint is loaded whole or not at all, by every engine, and its headers show that before any job."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, family_weights
from made_up import MODELS, make_cell
from real_engines import load_from, prompts, weights
from remade import beside, named, remade, without, without_prefix
from running import measure_cli, noted
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from inference_benchmark.engines.ctranslate2 import Converter
from inference_benchmark.models import checkpoint, loading
from inference_benchmark.models.cache import cache_root
from inference_benchmark.models.weights import CheckpointError

ONE_WEIGHT = "model.layers.1.mlp.down_proj.weight"


PARTS = {
    "compiled": ("bloom", named("_orig_mod."), {}, "missing: lm_head.weight, transformer.h.0."),
    "compiled, as it shows": ("bloom", named("_orig_mod."), {}, "not in the model: _orig_mod.transformer.h.0."),
    "wrapped": ("llama", named("module."), {}, "a LlamaForCausalLM; missing: lm_head.weight, "),
    "no untied head": ("llama", without("lm_head"), {}, "missing: lm_head.weight (1); transformers would draw"),
    "no layer": ("llama", without(".layers.2."), {}, "missing: model.layers.2.input_layernorm.weight, "),
    "more layers": ("llama", dict, {"num_hidden_layers": 3}, "not in the model: model.layers.3.input_layernorm.weight, "),
    "more layers, without a prefix": ("bloom", without_prefix("transformer."), {"n_layer": 3}, "model: h.3.input_layernorm.bias, "),
    "biases": ("llama", beside(model__layers__0__mlp__up_proj__bias=torch.ones(256)), {}, "layers.0.mlp.up_proj.bias (1)"),
    "adapters": (
        "llama",
        beside(model__layers__0__self_attn__q_proj__lora_A__weight=torch.ones(2, 128)),
        {},
        "not in the model: model.layers.0.self_attn.q_proj.lora_A.weight (1)",
    ),
    "another vocabulary": ("llama", dict, {"vocab_size": 990}, "model.embed_tokens.weight (1000 x 128, not 990 x 128) (2)"),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_weights_that_are_missing_left_out_or_do_not_fit_are_refused_by_name(tmp_path, case):
    family, change, config, words = PARTS[case]
    folder = remade(weights(family), tmp_path / "mine", change, **config)
    with pytest.raises(CheckpointError) as caught:
        loading.refuse_parts(folder)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{folder}: the weights are not those of a ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_checkpoint_of_every_family_is_whole(family):
    loading.whole_model(AutoModelForCausalLM, family_weights(family), device_map={"": "meta"})


MASK = torch.ones(1, 1, 8, 8)
WHOLE = {
    "published without its prefix": ("bloom", without_prefix("transformer.")),
    "a tied head, stored": ("gpt2", lambda tensors: tensors | {"lm_head.weight": tensors["transformer.wte.weight"]}),
    "masks": ("gpt2", beside(transformer__h__0__attn__bias=MASK, transformer__h__0__attn__masked_bias=torch.ones(()))),
    "masks of another family": ("llama", beside(model__layers__0__attn__causal_mask=MASK)),
    "angles": ("llama", beside(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))),
    "a head for values": ("llama", beside(v_head__summary__weight=torch.ones(1, 128))),
    "a tower for images": ("llama", beside(model__visual__blocks__0__mlp__weight=torch.ones(8, 8))),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_checkpoint_as_others_save_it_is_whole(tmp_path, case):
    family, change = WHOLE[case]
    folder = remade(weights(family), tmp_path / "mine", change)
    ids = prompts(2)
    assert (load_from(folder, "hf").generate(ids, 4) == load_from(weights(family), "hf").generate(ids, 4)).all()


@pytest.mark.usefixtures("forked")
def test_before_any_job_the_headers_are_asked_once(tmp_path, monkeypatch):
    whole = remade(weights("llama"), tmp_path / "whole")
    checkpoint.look_into(whole, is_loaded=True)
    assert list((cache_root() / "whole").iterdir())
    part = remade(whole, tmp_path / "part", without(ONE_WEIGHT))
    with pytest.raises(CheckpointError, match=f"{part}: .*; missing: {ONE_WEIGHT} "):
        checkpoint.look_into(part, is_loaded=True)
    checkpoint.look_into(part)  # for engines that load nothing
    monkeypatch.setattr(loading, "__name__", "no.such.module")
    checkpoint.look_into(whole, is_loaded=True)


def test_what_transformers_cannot_answer_is_left_to_the_jobs(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(loading, "__name__", "no.such.module")
    checkpoint.look_into(
        remade(weights("llama"), tmp_path / "mine", tie_word_embeddings=False, bos_token_id=3), is_loaded=True
    )
    assert "whether it has the weights of its model is not known yet" in capfd.readouterr().err
    loading.refuse_parts(tmp_path / "none")


LAYER_TOO_MANY = beside(model__layers__4__mlp__down_proj__weight=torch.ones(128, 256))


@pytest.mark.parametrize(
    ("precision", "change"),
    [("fp32", without(ONE_WEIGHT)), ("fp32", LAYER_TOO_MANY), ("int8", LAYER_TOO_MANY), ("nf4", LAYER_TOO_MANY)],
)
def test_hf_loads_no_part(tmp_path, precision, change):
    with pytest.raises(CheckpointError, match=r"mlp\.down_proj\.weight"):
        load_from(remade(weights("llama"), tmp_path / "mine", change), "hf", precision)


def test_ctranslate2_converts_no_part(tmp_path):
    with pytest.raises(CheckpointError, match=f"missing: {ONE_WEIGHT} "):
        Converter(str(remade(weights("llama"), tmp_path / "mine", without(ONE_WEIGHT)))).convert(
            str(tmp_path / "converted")
        )


@pytest.mark.parametrize("engine", ["hf", "ctranslate2"])
def test_a_part_without_headers_fails_its_job_and_leaves_no_record(tmp_path, monkeypatch, engine):
    monkeypatch.chdir(tmp_path)
    folder = remade(weights("llama"), tmp_path / "mine")
    torch.save(without(ONE_WEIGHT)(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    done = measure_cli(make_cell(engine=engine, model=noted(folder)), tmp_path / "r.json")
    assert (done.returncode, (tmp_path / "r.json").exists()) == (1, False)
    assert f"missing: {ONE_WEIGHT} (1)" in done.stderr


# -- padding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["hf", "ctranslate2"])
@pytest.mark.parametrize("padding", [1000, 50_000])
def test_a_padding_id_outside_the_vocabulary_is_set_aside(tmp_path, engine, padding):
    folder = remade(weights("llama"), tmp_path / "mine", pad_token_id=padding)
    assert loading.config_of(folder).pad_token_id is None
    ids = prompts(2)
    ours, plain = (load_from(each, engine) for each in (folder, weights("llama")))
    assert (ours.generate(ids, 6) == plain.generate(ids, 6)).all()
    assert ours.describe()["shapes"] == plain.describe()["shapes"]


@pytest.mark.parametrize("padding", [None, 0, 999, -1])
def test_one_inside_stays(tmp_path, padding):
    assert loading.config_of(remade(weights("llama"), tmp_path / "mine", pad_token_id=padding)).pad_token_id == padding


@pytest.mark.parametrize("family", FAMILIES | MODELS)
def test_every_family_does_without(tmp_path, family):
    original = weights(family) if family in MODELS else family_weights(family)
    folder = remade(original, tmp_path / "mine", pad_token_id=50_000)
    model = loading.whole_model(AutoModelForCausalLM, folder, config=loading.config_of(folder), device_map={"": "meta"})
    assert model.get_input_embeddings().num_embeddings < 50_000
