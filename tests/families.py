"""Tiny models of families that differ in what they cache, quantise and compile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_up import MODELS
from running import drawn

from inference_benchmark.engines import ENGINES

_LIKE_LLAMA = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
    "intermediate_size": 128, "vocab_size": 300, "max_position_embeddings": 128,
}  # fmt: skip
_LIKE_FALCON = {
    "model_type": "falcon",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 300,
}
#: A low-rank latent of 32 numbers and a rotary key of 16 are cached in place of keys and values.
_LATENT = {
    **_LIKE_LLAMA, "num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16, "v_head_dim": 16,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

MIXTURES = {
    "mixtral": {**_LIKE_LLAMA, "model_type": "mixtral", "num_local_experts": 4},
    "qwen2_moe": {**_LIKE_LLAMA, **_EXPERTS, "model_type": "qwen2_moe", "shared_expert_intermediate_size": 64},
    "qwen3_moe": {**_LIKE_LLAMA, **_EXPERTS, "model_type": "qwen3_moe"},
    "olmoe": {**_LIKE_LLAMA, "model_type": "olmoe", "num_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {
        **_LATENT, "model_type": "deepseek_v3", "moe_intermediate_size": 32, "n_routed_experts": 4, "n_group": 2,
        "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
    },
    "gpt_oss": {
        **_LIKE_LLAMA, "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16,
    },
    "ernie4_5_moe": {
        **_LIKE_LLAMA, "model_type": "ernie4_5_moe", "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32,
    },
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    **MIXTURES,
    "llama": {**_LIKE_LLAMA, "model_type": "llama"},
    "llama-3": {
        **_LIKE_LLAMA, "model_type": "llama",
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
        },
    },
    "falcon-multi-query": {**_LIKE_FALCON, "multi_query": True, "alibi": False},
    "falcon-alibi": {**_LIKE_FALCON, "multi_query": False, "alibi": True, "parallel_attn": False},
    "minicpm3": {**_LATENT, "model_type": "minicpm3"},
    "youtu": {**_LATENT, "model_type": "youtu"},
    "gpt_neo": {
        "model_type": "gpt_neo", "hidden_size": 64, "num_heads": 4, "num_layers": 2, "vocab_size": 300,
        "attention_types": [[["global", "local"], 1]], "window_size": 4, "max_position_embeddings": 128,
    },
    "gpt_neox": {
        "model_type": "gpt_neox", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
        "intermediate_size": 128, "vocab_size": 300,
    },
    "gpt_bigcode": {
        "model_type": "gpt_bigcode", "n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 300, "n_positions": 128,
        "multi_query": True,
    },
    "mistral": {**_LIKE_LLAMA, "model_type": "mistral", "sliding_window": 8},
    "mamba": {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 300, "state_size": 8},
    "rwkv": {
        "model_type": "rwkv", "hidden_size": 64, "attention_hidden_size": 64, "num_hidden_layers": 2,
        "intermediate_size": 128, "vocab_size": 300, "context_length": 128,
    },
    "phi3": {**_LIKE_LLAMA, "model_type": "phi3", "pad_token_id": None},
}  # fmt: skip


#: Sizes of the families of hf-continuous.
CONTINUOUS = {
    **{name: {**_LIKE_LLAMA, "model_type": name, "pad_token_id": None} for name in ENGINES["hf-continuous"].families},
    **{name: sizes for name, sizes in FAMILIES.items() if name in ENGINES["hf-continuous"].families},
    "gpt2": MODELS["gpt2"],
    "opt": {
        "model_type": "opt", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 300,
        "ffn_dim": 128, "word_embed_proj_dim": 64,
    },
    "qwen2": {
        **_LIKE_LLAMA, "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1,
    },
}  # fmt: skip


def model_of(family: str) -> dict[str, Any]:
    """A family as the model of a cell."""
    return {"name": family, "architecture": FAMILIES[family], "seed": 0}


def family_weights(family: str) -> Path:
    """The checkpoint of a family."""
    return drawn(model_of(family))
