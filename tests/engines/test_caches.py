"""kv_bytes against the tensors of the real cache: what the roofline counts is what a step reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, MIXTURES
from made_up import MODELS
from real_engines import load_from, prompts

from inference_benchmark.engines.refusal import is_refusal
from inference_benchmark.models.synthesize import synthesize

_SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 300}
_LIKE_LLAMA = {**_SIZES, "num_key_value_heads": 2, "intermediate_size": 128}
#: Families in addition to those of other tests: heads of a size of their own, layers that look at a window only, layers
#: without keys.
OTHERS: dict[str, dict[str, Any]] = {
    "opt": {**_SIZES, "model_type": "opt", "ffn_dim": 128, "word_embed_proj_dim": 64},
    "gptj": {"model_type": "gptj", "n_embd": 64, "n_head": 4, "n_layer": 2, "rotary_dim": 8, "vocab_size": 300},
    "mpt": {"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2, "vocab_size": 300},
    "qwen2": {**_LIKE_LLAMA, "model_type": "qwen2"},
    "qwen3": {**_LIKE_LLAMA, "model_type": "qwen3", "head_dim": 32},
    "gemma": {**_LIKE_LLAMA, "model_type": "gemma", "head_dim": 32},
    "gemma2": {**_LIKE_LLAMA, "model_type": "gemma2", "head_dim": 32, "sliding_window": 4},
    "olmo2": {**_LIKE_LLAMA, "model_type": "olmo2"},
    "cohere": {**_LIKE_LLAMA, "model_type": "cohere"},
    "lfm2": {**_LIKE_LLAMA, "model_type": "lfm2", "layer_types": ["conv", "full_attention"]},
}
#: One mixture stands for all: none is counted, whatever it caches.
ARCHITECTURES = MODELS | OTHERS | {name: sizes for name, sizes in FAMILIES.items() if name not in list(MIXTURES)[1:]}
ROWS, PROMPT_TOKENS, NEW_TOKENS = 3, 7, 5
#: The last token is chosen, but never put into the cache.
CACHED_TOKENS = PROMPT_TOKENS + NEW_TOKENS - 1
#: In bf16 every family is had.
ENGINES = ("hf", "hf-static")
#: int8 caches fp16; quantised precisions differ from others in their weights only. One family of each kind of cache has
#: all: keys and values, a latent, a state.
PRECISIONS = dict.fromkeys((*MODELS, "minicpm3", "mamba"), ("bf16", "fp32", "int8", "nf4"))
#: Families whose work is not counted, and why.
UNKNOWN = {
    "mixtral": "a mixture of experts",
    **dict.fromkeys(("mistral", "gpt_neo", "gemma2"), "a sliding window"),
    **dict.fromkeys(("mamba", "rwkv"), "no cache of keys and values"),
    "lfm2": "its cache has a LinearAttentionLayer",
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def family(request, tmp_path_factory) -> tuple[str, Path]:
    """A family and its checkpoint, made in this process: starting one takes longer than all that follows."""
    folder = tmp_path_factory.mktemp(request.param)
    synthesize(ARCHITECTURES[request.param], seed=0).save_pretrained(folder)
    return request.param, folder


def cached(engine: Any) -> int:
    """The bytes of all keys, values and states in the cache after a call."""
    output = engine._generate(prompts(ROWS, PROMPT_TOKENS, 300), NEW_TOKENS, return_dict_in_generate=True)
    layers = getattr(output.past_key_values, "layers", None) or ()
    tensors = [value for layer in layers for value in vars(layer).values() if isinstance(value, torch.Tensor)]
    return sum(value.numel() * value.element_size() for value in tensors if value.dim() > 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_kv_bytes_are_those_of_the_real_cache_or_unknown_with_a_reason(family, engine):
    name, folder = family
    for precision in PRECISIONS.get(name, ("bf16",)) if engine == "hf" else ("bf16",):
        try:
            loaded = load_from(folder, engine, precision)
            if engine == "hf-static":
                loaded.generate_options["disable_compile"] = True
            cached_bytes = cached(loaded)
        except Exception as error:
            assert is_refusal(error), precision  # noqa: PT017  its traceback is shown
            assert (engine, precision) not in (("hf", "fp32"), ("hf", "bf16"))
            continue
        facts = loaded.describe()
        if name in UNKNOWN:
            assert facts["shapes"] is None, precision
            assert facts["shapes_unknown"].startswith(UNKNOWN[name]), precision
        else:
            assert facts["shapes"]["kv_bytes"] * CACHED_TOKENS * ROWS == cached_bytes > 0, precision
