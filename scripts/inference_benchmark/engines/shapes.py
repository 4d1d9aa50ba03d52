"""The shapes that determine the work of a transformers model, counted from its modules and passes over a few tokens."""

from __future__ import annotations

import inspect
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicLayer

from inference_benchmark.analysis.roofline import Matrix, Shapes
from inference_benchmark.models.loading import config_of

#: module with a matrix -> (bytes of the stored weights, dtype of the product; None is the dtype of activations).
Stored = Callable[[torch.nn.Module], tuple[int, str | None]]

#: Names in configurations: of the number of experts; of the number of tokens that a layer attends to, if not all.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_WINDOW = re.compile(r"(.*_)?(window|window_size|window_len|attention_chunk_size|index_topk)")
#: The share of a pass that other products may take, such as the angles of rotary embeddings in transformers 4.
_NEGLIGIBLE = 1e-3
#: Numbers of tokens of the passes. Work is a quadratic function of the number, so that three passes determine it.
_PASSES = (3, 4, 5)


class UnknownShapesError(ValueError):
    """The work of this model cannot be counted; the message says why."""


class TokenWork(NamedTuple):
    """The work per token of a model, from passes over a few tokens without weights.

    kv_widths: how many numbers the cache has of a token: its keys and its values, in each layer. attention_width:
    operations of attention per pair of tokens, over 4. flop_per_token: all other operations. unknown: why the others
    are unknown; None if they are known.
    """

    kv_widths: tuple[int, ...] = ()
    attention_width: int = 0
    flop_per_token: int = 0
    unknown: str | None = None

    @property
    def kv_numbers(self) -> int:
        """The numbers that the cache has of a token."""
        return sum(self.kv_widths)


def matrix_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """(name, module) of every module with a weight matrix, of any class except embeddings."""
    for name, module in model.named_modules():
        if is_packed(module):
            yield name, module
            continue
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() == 2 and not isinstance(module, torch.nn.Embedding):
            yield name, module


def is_packed(module: torch.nn.Module) -> bool:
    """Whether a module is a linear layer of gptqmodel, which packs several weights into one number."""
    return isinstance(getattr(module, "qweight", None), torch.Tensor)


def tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    """All tensors with weights: the parameters, and the buffers of packed layers."""
    packed = [module for module in model.modules() if is_packed(module)]
    return [*model.parameters(), *(buffer for module in packed for buffer in module.buffers())]


@cache
def work_of_checkpoint(folder: Path) -> TokenWork:
    """As token_work, for a checkpoint; once in a process and those forked from it."""
    return token_work(config_of(folder))


def token_work(config: Any) -> TokenWork:
    """From passes of the model that a configuration describes, without weights and device."""
    try:
        _check_countable(config.get_text_config(decoder=True))
        with torch.device("meta"):
            # The products of eager attention can be counted. The choice would stay in the configuration: it is copied.
            model = AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation="eager").eval()
        if "past_key_values" not in inspect.signature(model.forward).parameters:  # openai-gpt
            raise UnknownShapesError(
                "no cache of keys and values: what a step reads and computes depends on the family"
            )
        flop, caches = zip(*(_pass(model, n_tokens) for n_tokens in _PASSES), strict=True)
        kv_widths = _kv_widths(caches[-1], _PASSES[-1])
    except UnknownShapesError as error:
        return TokenWork(unknown=str(error))
    except Exception as error:  # the code of some families needs weights
        return TokenWork(unknown=f"a pass without weights fails: {type(error).__name__}: {error}")
    per_pair = (flop[2] - 2 * flop[1] + flop[0]) // 2
    return TokenWork(kv_widths, per_pair // 4, flop[1] - flop[0] - (_PASSES[0] + _PASSES[1]) * per_pair)


def _pass(model: torch.nn.Module, n_tokens: int) -> tuple[int, Any]:
    """(operations of all products, cache) of a pass over a prompt."""
    ids = torch.zeros((1, n_tokens), dtype=torch.long, device="meta")
    # transformers 4 turns autocast off, which was never on. On the meta device torch raises an exception for that.
    without_autocast = mock.patch.object(torch, "autocast", return_value=nullcontext())
    with torch.no_grad(), without_autocast, FlopCounterMode(display=False) as counter:
        output = model(ids, use_cache=True)
    return counter.get_total_flops(), getattr(output, "past_key_values", None)


def _kv_widths(cache: Any, n_tokens: int) -> tuple[int, ...]:
    """TokenWork.kv_widths of a cache. Raises UnknownShapesError if it holds anything else."""
    layers = getattr(cache, "layers", None)
    if not layers:
        raise UnknownShapesError("no cache of keys and values: what a step reads is not known")
    for layer in layers:
        if type(layer) is not DynamicLayer or layer.keys.shape[-2] != n_tokens:
            raise UnknownShapesError(
                f"its cache has a {type(layer).__name__}: what a step reads is not the keys and values of every token"
            )
    return tuple(states.numel() // n_tokens for layer in layers for states in (layer.keys, layer.values))


def facts(
    model: torch.nn.Module, work: TokenWork, stored: Stored | None = None, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """``shapes`` for the record, as count; or None with the reason in ``shapes_unknown``."""
    try:
        counted = asdict(count(model, work, stored or stored_by_transformers, dtype or model.dtype))
        return {"shapes": {name: value for name, value in counted.items() if value is not None}}
    except UnknownShapesError as error:
        return {"shapes": None, "shapes_unknown": str(error)}


def count(model: torch.nn.Module, work: TokenWork, stored: Stored, dtype: torch.dtype) -> Shapes:
    """The shapes of a model on any device, including meta.

    work: of its configuration. stored: how the engine stores a matrix. dtype: of activations, keys and values,
    norms, biases and embeddings. Raises UnknownShapesError.
    """
    if work.unknown:
        raise UnknownShapesError(work.unknown)
    head = model.get_output_embeddings()
    kinds: Counter[Matrix] = Counter()
    for name, module in matrix_modules(model):
        inputs, outputs = sizes(module)
        n_bytes, arithmetic = stored(module)
        arithmetic = arithmetic or dtype_name(dtype)
        kinds[Matrix(name.rsplit(".", 1)[-1], 1, inputs, outputs, n_bytes, arithmetic, module is not head)] += 1
    matrices = tuple(replace(kind, count=n) for kind, n in kinds.items())
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    n_vector_parameters = sum(p.numel() for p in (*model.parameters(), *_packed_biases(model)) if p.dim() <= 1)
    _check_all_counted(model, matrices, embeddings, n_vector_parameters)
    _check_all_used(matrices, work)
    return Shapes(
        matrices=matrices,
        vector_bytes=n_vector_parameters * dtype.itemsize,
        lookup_bytes=sum(module.embedding_dim for module in embeddings) * dtype.itemsize,
        kv_bytes=work.kv_numbers * dtype.itemsize,
        attention_width=work.attention_width,
        attention_arithmetic=dtype_name(dtype),
        logit_bytes=sizes(head)[1] * dtype.itemsize,
    )


def quantised_cache(
    work: TokenWork, dtype: torch.dtype, bits: int, group_size: int, residual_tokens: int
) -> dict[str, int]:
    """The fields of roofline.Shapes for a quantised cache: each group of numbers has a scale and a zero point, of the
    dtype of activations."""
    groups_bytes = 2 * dtype.itemsize * work.kv_numbers // group_size
    return {"quantised_kv_bytes": work.kv_numbers * bits // 8 + groups_bytes, "residual_tokens": residual_tokens}


def stored_by_transformers(module: torch.nn.Module) -> tuple[int, str | None]:
    """How transformers, bitsandbytes, torchao and gptqmodel store a matrix."""
    if is_packed(module):
        return _packed_bytes(module), None
    weight = module.weight
    n_bytes = stored_bytes(weight)
    if weight.dtype == torch.int8:  # LLM.int8(): one fp32 scale per output
        return n_bytes + 4 * weight.shape[0], "int8"
    if (state := getattr(weight, "quant_state", None)) is not None:  # 4 bits: one scale per block
        return n_bytes + state.absmax.numel() * state.absmax.element_size(), dtype_name(module.compute_dtype)
    return n_bytes, dtype_name(weight.dtype)


def _packed_bytes(module: torch.nn.Module) -> int:
    """The bytes of a packed layer in the files of GPTQ and AWQ: the weights, a zero point and a scale of two bytes for
    each output and group of inputs, and, if inputs are not in order (desc_act), the group of each in four bytes."""
    inputs, outputs = sizes(module)
    groups = math.ceil(inputs / module.group_size) if module.group_size > 0 else 1
    weights_and_zeros = (inputs + groups) * outputs * int(module.bits) // 8
    group_of_input = getattr(module, "g_idx", None)  # awq has none
    in_order = group_of_input is None or bool((group_of_input.diff() >= 0).all())
    return weights_and_zeros + 2 * groups * outputs + (0 if in_order else 4 * inputs)


def stored_bytes(weight: torch.Tensor) -> int:
    """The bytes of the tensors that hold a parameter."""
    return sum(part.numel() * part.element_size() for part in stored_parts(weight))


def stored_parts(weight: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold a parameter: itself, or the numbers and scales of a tensor class such as torchao's."""
    if not hasattr(weight, "__tensor_flatten__") or is_split(weight):
        return [weight]
    return [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]


def is_split(weight: torch.Tensor) -> bool:
    """Whether several processes hold a weight: a DTensor, which has the shape of all of it."""
    return hasattr(weight, "device_mesh")


def part_here(weight: torch.Tensor) -> torch.Tensor:
    """What this process holds of a weight."""
    return weight.to_local() if is_split(weight) else weight


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
    for name, value in config.to_dict().items():
        if _WINDOW.fullmatch(name) and value:
            raise UnknownShapesError(f"a sliding window ({name}): how many tokens are looked at depends on the layer")


def _check_all_counted(model, matrices, embeddings, n_vector_parameters: int) -> None:
    """Raises UnknownShapesError unless the counts cover all parameters."""
    head, counted = model.get_output_embeddings(), n_vector_parameters
    counted += sum(m.count * m.inputs * m.outputs for m in matrices) + sum(e.weight.numel() for e in embeddings)
    if not is_packed(head) and any(e.weight is head.weight for e in embeddings):
        counted -= head.weight.numel()
    total = parameters(model)
    if counted != total:
        raise UnknownShapesError(f"{total - counted} of {total} parameters are in no linear layer, norm or embedding")


def _check_all_used(matrices: tuple[Matrix, ...], work: TokenWork) -> None:
    """Raises UnknownShapesError unless a pass multiplies each token by each matrix once, and by nothing else."""
    flop_per_token = sum(2 * m.count * m.inputs * m.outputs for m in matrices)
    if abs(work.flop_per_token - flop_per_token) > _NEGLIGIBLE * flop_per_token:
        raise UnknownShapesError(
            f"a pass takes {work.flop_per_token} operations per token besides attention, "
            f"{flop_per_token} of them with its matrices"
        )


def parameters(model: torch.nn.Module) -> int:
    """The number of parameters, of any number of bits."""
    packed = sum(math.prod(sizes(module)) for module in model.modules() if is_packed(module))
    return packed + sum(map(numbers, (*model.parameters(), *_packed_biases(model))))


def _packed_biases(model: torch.nn.Module) -> list[torch.Tensor]:
    """The biases of packed layers, which are no parameters."""
    layers = (module for module in model.modules() if is_packed(module))
    return [layer.bias for layer in layers if isinstance(getattr(layer, "bias", None), torch.Tensor)]


def numbers(weight: torch.nn.Parameter) -> int:
    """The number of weights in a tensor, of any number of bits."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else state.shape.numel()
