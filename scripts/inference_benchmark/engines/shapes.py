"""The shapes that determine the work of a transformers model, counted from its modules."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from inference_benchmark.analysis.roofline import Matrix, Shapes

#: (bytes of the stored weights, dtype of the product) of a module with a matrix.
Stored = Callable[[torch.nn.Module], tuple[int, str]]


#: Names of the number of experts in the model families.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class UnknownShapesError(ValueError):
    """The work of this model cannot be counted; the message says why."""


def matrix_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """(name, module) of every module with a weight matrix, of any class except embeddings."""
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() == 2 and not isinstance(module, torch.nn.Embedding):
            yield name, module


def facts(model: torch.nn.Module, stored: Stored | None = None, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """``shapes`` for the record: roofline.Shapes, or None with the reason in ``shapes_unknown``."""
    try:
        return {"shapes": asdict(count(model, stored or stored_by_transformers, dtype or model.dtype))}
    except UnknownShapesError as error:
        return {"shapes": None, "shapes_unknown": str(error)}


def count(model: torch.nn.Module, stored: Stored, dtype: torch.dtype) -> Shapes:
    """The shapes of a model on any device, including meta.

    stored: how the engine stores a matrix. dtype: of activations, keys and values, norms, biases and embeddings.
    Raises UnknownShapesError.
    """
    config = model.config.get_text_config(decoder=True)
    _check_has_cache(model)
    _check_countable(config)
    head = model.get_output_embeddings()
    kinds: Counter[Matrix] = Counter()
    for name, module in matrix_modules(model):
        inputs, outputs = sizes(module)
        kinds[Matrix(name.rsplit(".", 1)[-1], 1, inputs, outputs, *stored(module), module is not head)] += 1
    matrices = tuple(Matrix(**{**asdict(kind), "count": n}) for kind, n in kinds.items())
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    n_vector_parameters = sum(p.numel() for p in model.parameters() if p.dim() <= 1)
    _check_all_counted(model, matrices, embeddings, n_vector_parameters)
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return Shapes(
        matrices=matrices,
        vector_bytes=n_vector_parameters * dtype.itemsize,
        lookup_bytes=sum(module.embedding_dim for module in embeddings) * dtype.itemsize,
        kv_bytes=config.num_hidden_layers * 2 * kv_heads * head_size * dtype.itemsize,
        attention_width=config.num_hidden_layers * heads * head_size,
        attention_arithmetic=dtype_name(dtype),
        logit_bytes=head.weight.shape[0] * dtype.itemsize,
    )


def stored_by_transformers(module: torch.nn.Module) -> tuple[int, str]:
    """How transformers and bitsandbytes store a matrix."""
    weight = module.weight
    n_bytes = weight.numel() * weight.element_size()
    if weight.dtype == torch.int8:  # LLM.int8(): one fp32 scale per output
        return n_bytes + 4 * weight.shape[0], "int8"
    if (state := getattr(weight, "quant_state", None)) is not None:  # 4 bits: one scale per block
        return n_bytes + state.absmax.numel() * state.absmax.element_size(), dtype_name(module.compute_dtype)
    return n_bytes, dtype_name(weight.dtype)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def sizes(module: torch.nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer, or of GPT-2's Conv1D, whose weight is transposed."""
    if hasattr(module, "nx"):
        return module.nx, module.nf
    if not hasattr(module, "in_features"):
        raise UnknownShapesError(f"a matrix is in a {type(module).__name__}, which is no linear layer")
    return module.in_features, module.out_features


def _check_countable(config: Any) -> None:
    if any(getattr(config, name, None) for name in _EXPERTS):
        raise UnknownShapesError("a mixture of experts: which weights a step reads depends on its tokens")
    if getattr(config, "sliding_window", None):
        raise UnknownShapesError("a sliding window: how many tokens are looked at depends on the layer")


def _check_all_counted(model, matrices, embeddings, n_vector_parameters: int) -> None:
    """Raises UnknownShapesError if the counts do not cover all parameters: the roofline would be silently wrong."""
    head, counted = model.get_output_embeddings(), n_vector_parameters
    counted += sum(m.count * m.inputs * m.outputs for m in matrices) + sum(e.weight.numel() for e in embeddings)
    if any(e.weight is head.weight for e in embeddings):
        counted -= head.weight.numel()
    total = parameters(model)
    if counted != total:
        raise UnknownShapesError(f"{total - counted} of {total} parameters are in no linear layer, norm or embedding")


def _check_has_cache(model: torch.nn.Module) -> None:
    if "past_key_values" not in inspect.signature(model.forward).parameters:  # openai-gpt
        raise UnknownShapesError("no cache of keys and values: what a step reads and computes depends on the family")


def parameters(model: torch.nn.Module) -> int:
    """The number of parameters, independent of how many bits store each."""
    return sum(map(numbers, model.parameters()))


def numbers(weight: torch.nn.Parameter) -> int:
    """The number of weights in a parameter, independent of how many bits store each."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else state.shape.numel()
