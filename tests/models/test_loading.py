"""A checkpoint is loaded as it is meant, by every engine."""

from __future__ import annotations

import pytest
from families import FAMILIES, family_weights
from made_up import MODELS
from real_engines import load_from, prompts, weights
from remade import remade
from transformers import AutoModelForCausalLM

from inference_benchmark.models import loading


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
    model = AutoModelForCausalLM.from_pretrained(folder, config=loading.config_of(folder), device_map={"": "meta"})
    assert model.get_input_embeddings().num_embeddings < 50_000
