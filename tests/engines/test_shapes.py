"""The work of a model, counted from its modules and by hand."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, MIXTURES
from transformers import AutoConfig, AutoModelForCausalLM

from inference_benchmark.analysis import roofline
from inference_benchmark.analysis.roofline import Shapes
from inference_benchmark.engines import shapes

BLOOM_1B3 = {"model_type": "bloom", "hidden_size": 2048, "n_head": 16, "n_layer": 24, "vocab_size": 50258}
LLAMA = {
    "model_type": "llama", "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 4, "intermediate_size": 256, "vocab_size": 1000,
}  # fmt: skip


def model_and_passes(architecture: dict, dtype: torch.dtype = torch.float32):
    """(a model without weights, what its passes do)"""
    config = AutoConfig.for_model(**architecture)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model, shapes.token_work(config)


def shapes_of(architecture: dict, dtype: torch.dtype) -> Shapes:
    return shapes.count(*model_and_passes(architecture, dtype), shapes.stored_by_transformers, dtype)


def test_the_work_of_bloom_1b3_in_bf16_equals_a_count_by_hand():
    counted = shapes_of(BLOOM_1B3, torch.bfloat16)
    # 1,311,535,104 parameters, each read once; the tied head is the embedding table.
    assert counted.weight_bytes == 2 * 1_311_535_104
    assert sum(m.count * m.inputs * m.outputs for m in counted.matrices if m.every_position) == 24 * 12 * 2048**2
    assert (counted.kv_bytes, counted.lookup_bytes, counted.logit_bytes) == (24 * 2 * 2048 * 2, 2048 * 2, 50258 * 2)
    prefill = roofline.prefill(counted, 1, 9)
    assert prefill.moved_bytes == (2_623_070_208 + 9 * (4_096 + 196_608) + 2 * 100_516, 0)
    assert prefill.flop == {"bfloat16": (2 * 9 * 1_207_959_552 + 2 * 102_928_384 + 4 * 49_152 * 45, 0)}
    decode = roofline.decode(counted, 1, 9, 100)
    assert decode.count == 99
    assert decode.moved_bytes == (2_623_070_208 + 4_096 + 196_608 + 2 * 100_516 + 9 * 196_608, 196_608)
    assert decode.flop == {"bfloat16": (2 * 1_207_959_552 + 2 * 102_928_384 + 4 * 49_152 * 10, 4 * 49_152)}


def test_the_work_of_a_llama_with_grouped_keys_equals_a_count_by_hand():
    counted = shapes_of(LLAMA, torch.float32)
    # Per layer: q and o of 128 x 128, k and v of 128 x 64, three of 128 x 256. In addition an untied head, 9 norms of 128.
    block = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256
    assert counted.weight_bytes == 4 * (4 * block + 128 * 1000 + 9 * 128)
    assert counted.kv_bytes == 4 * (4 * 2 * 2 * 32)
    assert counted.attention_width == 4 * 4 * 32
    prefill = roofline.prefill(counted, 3, 5)
    assert prefill.flop == {"float32": (2 * 15 * 4 * block + 2 * 3 * 128_000 + 4 * 512 * 3 * 15, 0)}
    assert prefill.moved_bytes[0] == counted.weight_bytes + 15 * (512 + 2048) + 2 * 3 * 4000


@pytest.mark.parametrize(
    ("family", "kv_bytes", "attention_width"),
    [
        # Two layers of four heads of 16; bytes of two layers in bf16. One head for keys and values, shared by all:
        ("falcon-multi-query", 2 * 2 * 16 * 2, 2 * 4 * 16),
        ("gpt_bigcode", 2 * 2 * 16 * 2, 2 * 4 * 16),
        ("falcon-alibi", 2 * 2 * 4 * 16 * 2, 2 * 4 * 16),
        ("llama", 2 * 2 * 2 * 16 * 2, 2 * 4 * 16),
        # A latent of 32 and a rotary key of 16. Queries and keys have 16 + 16 numbers per head, values 16.
        ("minicpm3", 2 * (32 + 16) * 2, 2 * 4 * (32 + 16) // 2),
        ("youtu", 2 * (32 + 16) * 2, 2 * 4 * (32 + 16) // 2),
    ],
)
def test_the_cache_and_attention_of_families_equal_a_count_by_hand(family, kv_bytes, attention_width):
    counted = shapes_of(FAMILIES[family], torch.bfloat16)
    assert (counted.kv_bytes, counted.attention_width) == (kv_bytes, attention_width)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        (
            {"model_type": "openai-gpt", "n_embd": 64, "n_head": 2, "n_layer": 2, "vocab_size": 100},
            "no cache of keys and values",
        ),
        *((architecture, "a mixture of experts") for architecture in MIXTURES.values()),
        (FAMILIES["mistral"], "a sliding window (sliding_window)"),
        (FAMILIES["gpt_neo"], "a sliding window (window_size)"),
        (FAMILIES["mamba"], "no cache of keys and values"),
        (FAMILIES["rwkv"], "no cache of keys and values"),
        (
            {**LLAMA, "model_type": "lfm2", "layer_types": ["conv", "full_attention"] * 2},
            "its cache has a LinearAttentionLayer",
        ),
    ],
)
def test_an_uncountable_model_has_a_reason_instead_of_shapes(architecture, reason):
    facts = shapes.facts(*model_and_passes(architecture))
    assert facts["shapes"] is None
    assert facts["shapes_unknown"].startswith(reason)


def test_uncounted_parameters_make_the_shapes_unknown():
    model, work = model_and_passes(LLAMA)
    model.extra = torch.nn.Parameter(torch.empty(3, 4, 5, device="meta"))
    assert "60 of 847036 parameters" in shapes.facts(model, work)["shapes_unknown"]


def test_a_matrix_that_a_pass_uses_twice_or_not_at_all_makes_the_shapes_unknown():
    model, work = model_and_passes(LLAMA)
    per_token = work.flop_per_token
    assert shapes.facts(model, work)["shapes"] is not None
    for other in (per_token - 2 * 128 * 128, per_token + 2 * 128 * 128):
        unknown = shapes.facts(model, work._replace(flop_per_token=other))["shapes_unknown"]
        assert (
            unknown
            == f"a pass takes {other} operations per token besides attention, {per_token} of them with its matrices"
        )


def test_a_family_that_cannot_run_without_weights_has_a_reason(monkeypatch):
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: x.item())
    assert shapes.token_work(AutoConfig.for_model(**LLAMA)).unknown.startswith(
        "a pass without weights fails: RuntimeError"
    )


def test_following_leaves_the_configuration_as_it_is():
    config = AutoConfig.for_model(**LLAMA)
    before = config.to_dict()
    shapes.token_work(config)
    assert config.to_dict() == before
    assert config._attn_implementation != "eager"
