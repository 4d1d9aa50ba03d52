"""Checkpoints as files of llama.cpp (GGUF). Run as a module, it writes one."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy
import torch
from transformers import AutoModelForCausalLM

from inference_benchmark.engines import converted as conversion
from inference_benchmark.engines import llama_cpp_log as log
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.models import loading

#: How llama.cpp's quantiser calls each precision, and the type of most weights of the blocks in its files.
PRECISIONS = {
    "fp32": (llama_cpp.LLAMA_FTYPE_ALL_F32, "F32"),
    "fp16": (llama_cpp.LLAMA_FTYPE_MOSTLY_F16, "F16"),
    "bf16": (llama_cpp.LLAMA_FTYPE_MOSTLY_BF16, "BF16"),
    "q8_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "Q8_0"),
    "q4_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, "Q4_0"),
    "q4_k_m": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, "Q4_K"),
}
#: The packages that decide the files.
_WRITERS = ("gguf", "llama-cpp-python", "transformers")
_FILE = "model.gguf"
#: Settings of the families' configurations that change what they compute, with the value that llama.cpp has.
_FIXED = {
    "apply_residual_connection_post_layernorm": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "add_cross_attention": False,
    "activation_function": "gelu_new",
    "hidden_act": "silu",
}


def written(checkpoint: Path, precision: str) -> Path:
    """The file of a checkpoint in a precision."""
    if precision != "fp32":
        written(checkpoint, "fp32")  # of which llama.cpp's own quantiser makes the others
    versions = [*map(metadata.version, _WRITERS)]
    return conversion.converted("llama_cpp_files", checkpoint, versions, weights=precision) / _FILE


def convert(checkpoint: str, output: str, weights: str) -> None:
    """weights: a precision."""
    Path(output).mkdir()
    file = Path(output, _FILE)
    if weights == "fp32":
        write(Path(checkpoint), file)
        return
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = PRECISIONS[weights][0]
    source = written(Path(checkpoint), "fp32")
    if llama_cpp.llama_model_quantize(bytes(source), bytes(file), ctypes.byref(parameters)):
        raise UnsupportedError(" ".join(log.errors().split()))


def write(checkpoint: Path, file: Path) -> None:
    """All weights in fp32, without a tokenizer, as llama.cpp's convert_hf_to_gguf.py names, transposes and permutes
    them."""
    config = loading.config_of(checkpoint)
    _refuse_other_settings(config)
    model = loading.whole_model(
        AutoModelForCausalLM, checkpoint, config=config, dtype=torch.float32, attn_implementation="eager"
    )
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[_architecture(config)])
    width, heads = config.hidden_size, config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(getattr(config, "max_position_embeddings", 2048))  # bloom has no limit
    writer.add_embedding_length(width)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    writer.add_feed_forward_length(inner or 4 * width)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    if hasattr(model.base_model, "rotary_emb"):
        head_size = getattr(config, "head_dim", None) or width // heads
        theta = config.rope_parameters["rope_theta"]
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
        writer.add_rope_dimension_count(head_size)
        writer.add_rope_freq_base(theta)
        factors = _rope_factors(config, model.base_model.rotary_emb, theta)
        if not (factors == 1).all():
            writer.add_tensor("rope_freqs.weight", factors)
    for name, weights in model.named_parameters():
        as_there = _as_there(config, name, weights.detach().numpy(), kv_heads)
        writer.add_tensor(name_of(config, name), numpy.ascontiguousarray(as_there))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _refuse_other_settings(config: Any) -> None:
    for name, value in _FIXED.items():
        if getattr(config, name, value) != value:
            raise UnsupportedError(f"llama.cpp has {config.model_type} with {name} {value} only")


def _rope_factors(config: Any, rotary: torch.nn.Module, theta: float) -> numpy.ndarray:
    """By how much transformers makes each frequency of rotary embeddings slower."""
    kind, frequencies = config.rope_parameters.get("rope_type", "default"), rotary.inv_freq.double().numpy()
    plain = theta ** (-numpy.arange(len(frequencies)) / len(frequencies))
    factors = (plain / frequencies).round(6).astype(numpy.float32)
    if rotary.attention_scaling != 1 or kind not in ("default", "linear", "llama3"):
        raise UnsupportedError(f"rotary embeddings of type {kind} are not written as GGUF here")
    if _architecture(config) != gguf.MODEL_ARCH.LLAMA and not (factors == 1).all():
        raise UnsupportedError(f"llama.cpp does not scale the rotary embeddings of {config.model_type}")
    return factors


def _as_there(config: Any, name: str, weights: numpy.ndarray, kv_heads: int) -> numpy.ndarray:
    """A parameter as llama.cpp has it."""
    heads, of = config.num_attention_heads, weights.shape
    if config.model_type == "gpt2" and ".h." in name and weights.ndim == 2:
        return weights.T
    if ".query_key_value." in name:  # by head, and there by query, key and value
        return weights.reshape(heads, 3, -1, *of[1:]).swapaxes(0, 1).reshape(of)
    if _architecture(config) == gguf.MODEL_ARCH.LLAMA and (".q_proj." in name or ".k_proj." in name):
        # Rotary embeddings turn the halves of a head, and there neighbours.
        n = heads if ".q_proj." in name else kv_heads
        return weights.reshape(n, 2, of[0] // n // 2, *of[1:]).swapaxes(1, 2).reshape(of)
    return weights


def _architecture(config: Any) -> gguf.MODEL_ARCH:
    return gguf.MODEL_ARCH["LLAMA" if config.model_type == "mistral" else config.model_type.upper()]


_name_map = cache(gguf.get_tensor_name_map)


def name_of(config: Any, parameter: str) -> str:
    """What llama.cpp calls a parameter of transformers."""
    names = _name_map(_architecture(config), config.num_hidden_layers)
    found = (names.get_name(each, (".weight", ".bias")) for each in (parameter, parameter.removeprefix("transformer.")))
    if name := next(filter(None, found), None):
        return name
    raise UnsupportedError(f"llama.cpp has no name for {parameter}")


if __name__ == "__main__":
    conversion.main("llama.cpp", convert)
