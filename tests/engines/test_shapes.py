"""The work of a model, counted from its modules and by hand."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from inference_benchmark.analysis import roofline
from inference_benchmark.analysis.roofline import Shapes
from inference_benchmark.engines import shapes

BLOOM_1B3 = {"model_type": "bloom", "hidden_size": 2048, "n_head": 16, "n_layer": 24, "vocab_size": 50258}
LLAMA = {
    "model_type": "llama", "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 4, "intermediate_size": 256, "vocab_size": 1000,
}  # fmt: skip


def shapes_of(architecture: dict, dtype: torch.dtype, **sizes) -> Shapes:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture, **sizes), dtype=dtype)
    return shapes.count(model, shapes.stored_by_transformers, dtype)


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
    ("architecture", "reason"),
    [
        ({**LLAMA, "model_type": "mixtral", "num_local_experts": 4}, "a mixture of experts"),
        ({**LLAMA, "model_type": "mistral", "sliding_window": 8}, "a sliding window"),
        (
            {"model_type": "openai-gpt", "n_embd": 64, "n_head": 2, "n_layer": 2, "vocab_size": 100},
            "no cache of keys and values",
        ),
    ],
)
def test_an_uncountable_model_has_a_reason_instead_of_shapes(architecture, reason):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture))
    facts = shapes.facts(model)
    assert facts["shapes"] is None
    assert reason in facts["shapes_unknown"]


def test_uncounted_parameters_make_the_shapes_unknown():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**LLAMA))
        model.extra = torch.nn.Parameter(torch.empty(3, 4, 5))
    assert "60 of 847036 parameters" in shapes.facts(model)["shapes_unknown"]
