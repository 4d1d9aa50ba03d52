"""A config.json of the hub, pasted as architecture with smaller sizes, works or is told what to write instead."""

from __future__ import annotations

import copy
import re

import pytest
import torch
import yaml
from running import REPO
from transformers import AutoModelForCausalLM

from inference_benchmark.experiment.config import load
from inference_benchmark.experiment.config_errors import ConfigError
from inference_benchmark.models.synthesize import synthesize

SCHEMA = yaml.safe_load((REPO / "config.schema.yaml").read_text())
#: The keys of published files, with sizes of 1 % and less.
PUBLISHED = {
    "bigscience/bloom": """
        {"apply_residual_connection_post_layernorm": false, "attention_dropout": 0.0, "attention_softmax_in_fp32": true,
        "bias_dropout_fusion": true, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "unk_token_id": 0,
        "hidden_dropout": 0.0, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": true,
        "model_type": "bloom", "n_embed": 128, "n_inner": null, "n_layer": 2, "num_attention_heads": 4,
        "offset_alibi": 100, "pretraining_tp": 4, "skip_bias_add": true, "skip_bias_add_qkv": false,
        "transformers_version": "4.20.0.dev0", "use_cache": true, "vocab_size": 300}""",
    "openai-community/gpt2": """
        {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 128, "n_head": 4, "n_layer": 2,
        "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 300}""",
    "openai-community/openai-gpt": """
        {"afn": "gelu", "architectures": ["OpenAIGPTLMHeadModel"], "attn_pdrop": 0.1, "embd_pdrop": 0.1,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "openai-gpt", "n_ctx": 512, "n_embd": 128,
        "n_head": 4, "n_layer": 2, "n_positions": 512, "n_special": 0, "predict_special_tokens": true,
        "resid_pdrop": 0.1, "vocab_size": 300}""",
    "AI-Sweden-Models/gpt-sw3-126m": """
        {"architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "model_type": "gpt-sw3", "n_embd": 128, "n_head": 4,
        "n_inner": 256, "n_layer": 2, "n_positions": 2048, "normalize_attention_scores": true, "vocab_size": 300}""",
    "EleutherAI/pythia-160m": """
        {"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
        "hidden_size": 128, "initializer_range": 0.02, "intermediate_size": 256, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 4, "num_hidden_layers": 2,
        "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false, "torch_dtype": "float16",
        "transformers_version": "4.24.0", "use_cache": true, "use_parallel_residual": true, "vocab_size": 300}""",
    "meta-llama/Llama-3.1-8B": """
        {"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 128,
        "initializer_range": 0.02, "intermediate_size": 256, "max_position_embeddings": 131072, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 300}""",
    "mistralai/Mistral-7B-v0.3": """
        {"architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "head_dim": 64, "hidden_act": "silu", "hidden_size": 128, "initializer_range": 0.02, "intermediate_size": 256,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 4, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 300}""",
    "Qwen/Qwen2.5-0.5B": """
        {"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "head_dim": 64, "hidden_act": "silu", "hidden_size": 128, "initializer_range": 0.02,
        "intermediate_size": 256, "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2",
        "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true, "use_mrope": false,
        "use_sliding_window": false, "vocab_size": 300}""",
    "Qwen/Qwen3-0.6B": """
        {"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 64, "hidden_act": "silu", "hidden_size": 128,
        "initializer_range": 0.02, "intermediate_size": 256, "max_position_embeddings": 40960, "max_window_layers": 28,
        "model_type": "qwen3", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_sliding_window": false, "vocab_size": 300}""",
    "microsoft/phi-2": """
        {"architectures": ["PhiForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 50256, "embd_pdrop": 0.0,
        "eos_token_id": 50256, "hidden_act": "gelu_new", "hidden_size": 128, "initializer_range": 0.02,
        "intermediate_size": 256, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "phi",
        "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 4, "partial_rotary_factor": 0.5,
        "qk_layernorm": false, "resid_pdrop": 0.1, "rope_scaling": null, "rope_theta": 10000.0, "vocab_size": 300}""",
    "google/gemma-3-1b-pt": """
        {"architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
        "final_logit_softcapping": null, "head_dim": 64, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 128,
        "initializer_range": 0.02, "intermediate_size": 256, "max_position_embeddings": 32768,
        "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 1,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16", "vocab_size": 300}""",
    "deepseek-ai/DeepSeek-V2-Lite": """
        {"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"}, "aux_loss_alpha": 0.001,
        "bos_token_id": 100000, "eos_token_id": 100001, "first_k_dense_replace": 1, "hidden_act": "silu",
        "hidden_size": 128, "initializer_range": 0.02, "intermediate_size": 256, "kv_lora_rank": 32,
        "max_position_embeddings": 163840, "model_type": "deepseek_v2", "moe_intermediate_size": 64,
        "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 4, "n_shared_experts": 2, "norm_topk_prob": false,
        "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 4,
        "pretraining_tp": 1, "q_lora_rank": null, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16,
        "rms_norm_eps": 1e-06, "rope_theta": 10000, "routed_scaling_factor": 1.0, "scoring_func": "softmax",
        "seq_aux": true, "tie_word_embeddings": false, "topk_group": 1, "topk_method": "greedy", "v_head_dim": 16,
        "vocab_size": 300}""",
}
#: Sizes of the built model that follow from a key which its class does not declare.
SHAPES = {
    "Qwen/Qwen2.5-0.5B": ("model.layers.0.self_attn.q_proj.weight", (4 * 64, 128)),
    "mistralai/Mistral-7B-v0.3": ("model.layers.0.self_attn.k_proj.weight", (2 * 64, 128)),
    "bigscience/bloom": ("transformer.word_embeddings.weight", (300, 128)),
}


def problems(sizes: dict) -> list[str]:
    config = {"device": "cpu", "models": {"m": {"architecture": sizes}}, "baselines": {"a100-80gb": None}}
    try:
        load(config | {"grid": {"cpu": {"models": ["m"]}}}, SCHEMA)
    except ConfigError as error:
        return error.problems
    return []


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_works_once_what_is_told_is_done(name, tmp_path):
    sizes = yaml.safe_load(PUBLISHED[name])
    for line in problems(sizes):
        key = line.split(":")[0].rsplit(".", 1)[1]
        if line.endswith("remove it") or "unknown key" in line:
            del sizes[key]
        else:
            sizes[key] = yaml.safe_load(re.search(r"write (\S+)$", line)[1])
    assert problems(sizes) == []
    synthesize(copy.deepcopy(sizes), 0).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    if name in SHAPES:
        weight, shape = SHAPES[name]
        assert model.state_dict()[weight].shape == shape
    prompt = torch.arange(10).reshape(2, 5)
    tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=3, eos_token_id=None, pad_token_id=300)  # fmt: skip
    assert tokens.shape == (2, 8)
