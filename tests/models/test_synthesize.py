"""Weights drawn from a seed generate text like a trained model's."""

from __future__ import annotations

import numpy
import pytest
import torch
import yaml
from made_up import MODELS, TINY_BLOOM
from real_engines import load_from, prompts, weights
from running import REPO
from transformers import AutoConfig, AutoModelForCausalLM

from inference_benchmark.models import checkpoint
from inference_benchmark.models.synthesize import synthesize


def test_the_default_cuda_model_has_the_published_size():
    sizes = yaml.safe_load((REPO / "config.yaml").read_text())["models"]["bloom-1b3"]["architecture"]
    config = AutoConfig.for_model(**sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == 1_311_535_104


def test_transformers_own_initialisation_would_make_every_comparison_pass():
    """The reason for synthesize: transformers' own weights repeat the last prompt token."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**MODELS["bloom"])).eval()
    ids = torch.from_numpy(prompts(4))
    output = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)[:, 9:]
    assert (output == ids[:, -1:]).all()


@pytest.mark.parametrize("family", MODELS)
def test_synthesized_weights_generate_varied_tokens(family):
    folder = weights(family)
    ids = prompts(8)
    output = load_from(folder, "hf").generate(ids, 32)
    distinct = sorted(len(set(row)) for row in output.tolist())
    assert distinct[0] >= 3, f"a row repeats itself: {distinct}"
    assert distinct[len(distinct) // 2] >= 10, f"rows repeat themselves: {distinct}"
    assert len({tuple(row) for row in output.tolist()}) == 8, "the prompt has no effect"
    assert (output[:, 0] != ids[:, -1]).any()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    sequences = torch.from_numpy(numpy.concatenate([ids, output], axis=1))
    assert torch.isfinite(model(sequences).logits).all()
    assert {"config.json", "generation_config.json", "model.safetensors"} <= {p.name for p in folder.iterdir()}


def test_weights_depend_on_the_seed_only():
    first, second, other = (synthesize(TINY_BLOOM, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(
        first["transformer.h.0.mlp.dense_h_to_4h.weight"], other["transformer.h.0.mlp.dense_h_to_4h.weight"]
    )


@pytest.mark.usefixtures("forked")
def test_an_unknown_size_is_rejected():
    with pytest.raises(ValueError, match="bloom has no size named n_heads"):
        synthesize({**TINY_BLOOM, "n_heads": 2}, 0)
    with pytest.raises(checkpoint.CheckpointError, match="could not be drawn"):
        checkpoint.ensure({"architecture": {**TINY_BLOOM, "n_heads": 2}, "seed": 0})
    assert not checkpoint.cache_folder({**TINY_BLOOM, "n_heads": 2}, 0).exists()
