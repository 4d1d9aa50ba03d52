"""Facts for the record about what really ran: a loaded transformers model, and a call while it runs."""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria
from transformers.cache_utils import HQQQuantizedLayer, QuantizedCache, QuantizedLayer

from inference_benchmark.engines import shapes
from inference_benchmark.engines.shapes import dtype_name, matrix_modules


def model_facts(model: torch.nn.Module, device: torch.device, followed: shapes.Followed) -> dict[str, Any]:
    """Weights, dtypes, quantisation, devices and shapes of a model, and the torch settings that affect its speed.

    followed: of the model's configuration.
    """
    weights = shapes.tensors(model)
    return {
        "class": type(model).__name__,
        "parameters": shapes.parameters(model),
        "weights_bytes": sum(map(shapes.stored_bytes, weights)),
        "dtypes": sorted({dtype_name(p.dtype) for p in weights}),
        "quantised": _quantisation(model),
        "block_weights": block_weights(model),
        "attention": model.config._attn_implementation,
        "device_map": _device_map(model),
        **torch_settings(device),
        **shapes.facts(model, followed),
    }


def block_weights(model: torch.nn.Module) -> dict[str, int]:
    """How the weights are stored that every step reads and multiplies by: {dtype or quantisation: number of weights}.

    All but embeddings, the output layer, norms and biases. No precision quantises those, and they are few.
    """
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = model.get_output_embeddings()
    others = {id(weight) for weight in (*tables, *head.parameters())}
    stored: Counter[str] = Counter()
    for module in model.modules():
        if shapes.is_packed(module) and module is not head:
            n_weights = math.prod(shapes.sizes(module))
            stored[f"int{8 * shapes.stored_bytes(module.qweight) / n_weights:g}"] += n_weights
    for weight in model.parameters():
        if weight.dim() > 1 and id(weight) not in others:
            stored[_stored_as(weight)] += shapes.numbers(weight)
    return dict(stored)


def _stored_as(weight: torch.nn.Parameter) -> str:
    if (state := getattr(weight, "quant_state", None)) is not None:
        return state.quant_type
    packed = "Int4" in type(weight).__name__  # of torchao, several in one number
    return "int4" if packed else dtype_name(shapes.stored_parts(weight)[0].dtype)


def torch_settings(device: torch.device) -> dict[str, Any]:
    """torch settings that affect speed."""
    on_cuda = device.type == "cuda"
    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,
    }


def compilation() -> dict[str, Any]:
    """Number of graphs that torch has compiled in this process, how many of them it found in its cache on disk, where
    earlier processes leave them, and the seconds it took."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return {"graphs": 0, "graphs_from_cache": 0, "seconds": 0.0}
    return {
        "graphs": dynamo.counters["stats"]["unique_graphs"],
        "graphs_from_cache": dynamo.counters["inductor"]["fxgraph_cache_hit"],
        "seconds": dynamo.calculate_time_spent().get("total_wall_time", 0.0),
    }


def kind_of_cache(cache: Any) -> str:
    """The class of a cache; of one that hqq quantises also the bits in which it stores a key or a value."""
    name = type(cache).__name__
    if not isinstance(cache, QuantizedCache):
        return name
    return f"{name} of {', '.join(sorted(set(map(_kind_of_layer, cache.layers))))}"


def _kind_of_layer(layer: QuantizedLayer) -> str:
    name = type(layer).__name__
    if not isinstance(layer, HQQQuantizedLayer) or layer._quantized_keys is None:
        return name
    parts = (layer._quantized_keys, layer._quantized_values)
    bits = {8 * packed.nbytes / packing["shape"].numel() for packed, packing in parts}
    return f"{'- and '.join(f'{n:g}' for n in sorted(bits))}-bit {name}"


class Observation(LogitsProcessor):
    """Logits processor that collects facts about the generate call in its block; changes nothing.

    The hooks on modules run during prefill only and are removed before decoding starts. Otherwise decoding would be
    compiled with the hooks, and again without them.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.hooks, self.dtypes = model, [], set()
        self.outliers: dict[str, list[int]] = defaultdict(list)
        self.widths: dict[str, int] = {}
        self.non_finite: torch.Tensor | None = None

    def __enter__(self) -> Observation:
        for name, module in matrix_modules(self.model):
            self.hooks.append(module.register_forward_hook(self._add_dtype))
            if threshold := _outlier_threshold(module):
                hook = self._outlier_hook(name.rsplit(".", 1)[-1], threshold)
                self.hooks.append(module.register_forward_pre_hook(hook))
        return self

    def __exit__(self, *_: object) -> None:
        self._remove_hooks()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._remove_hooks()
        non_finite = ~torch.isfinite(scores.amax(dim=-1))
        self.non_finite = non_finite if self.non_finite is None else self.non_finite | non_finite
        return scores

    def facts(self) -> dict[str, Any]:
        """activations: output dtypes of matrix products. non_finite_rows: number of rows whose largest logit was NaN
        or infinite at any step. outlier_columns: for the prompts, per module, the number of activation columns (of)
        and the mean and max over the layers of how many LLM.int8() computes separately."""
        return {
            "activations": sorted(self.dtypes),
            "non_finite_rows": 0 if self.non_finite is None else int(self.non_finite.sum()),
            "outlier_columns": {
                name: {"of": self.widths[name], "mean": sum(counts) / len(counts), "max": max(counts)}
                for name, counts in self.outliers.items()
            }
            or None,
        }

    def _remove_hooks(self) -> None:
        while self.hooks:
            self.hooks.pop().remove()

    def _add_dtype(self, module, inputs, output) -> None:
        # The router of a mixture of experts has a matrix too, and gives what it chose: a tuple, and no product.
        if isinstance(output, torch.Tensor):
            self.dtypes.add(dtype_name(output.dtype))

    def _outlier_hook(self, name: str, threshold: float):
        def hook(module, inputs) -> None:
            # The rule of bitsandbytes: a column is an outlier if any of its values reaches the threshold.
            columns = inputs[0].abs().amax(dim=tuple(range(inputs[0].dim() - 1)))
            self.widths[name] = columns.numel()
            self.outliers[name].append(int((columns >= threshold).sum()))

        return hook


class TeacherForcing(LogitsProcessor):
    """Logits processor that stores the logits of every step and makes generate choose the tokens of continuation.

    continuation: (batch, steps). logits: per step, a float32 array (batch, vocab) on the host.
    """

    def __init__(self, continuation: torch.Tensor) -> None:
        self.continuation, self.logits = continuation, []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = len(self.logits)
        self.logits.append(scores.to("cpu", torch.float32, copy=True).numpy())
        forced = torch.full_like(scores, -torch.inf)
        return forced.scatter_(1, self.continuation[:, step : step + 1], 0)


def _outlier_threshold(module: torch.nn.Module) -> float:
    """The magnitude from which LLM.int8() computes a column separately; 0 if it does not."""
    if "bitsandbytes" not in sys.modules:
        return 0.0
    from bitsandbytes.nn import Linear8bitLt

    return module.state.threshold if isinstance(module, Linear8bitLt) else 0.0


def _device_map(model: torch.nn.Module) -> dict[str, str]:
    """Device of each part, "" for the whole model; transformers sets hf_device_map for several devices only."""
    device_map = getattr(model, "hf_device_map", None)
    device_map = device_map or {"": " ".join(sorted({str(p.device) for p in model.parameters()}))}
    return {name: str(device) for name, device in device_map.items()}


def _quantisation(model: torch.nn.Module) -> dict[str, Any] | None:
    """Counts of modules with and without quantised weights, by last name, and the settings of the library."""
    modules = dict(matrix_modules(model))
    if packed := {name: module for name, module in modules.items() if shapes.is_packed(module)}:
        return {
            "library": "gptqmodel",
            "kernels": sorted({type(module).__name__ for module in packed.values()}),
            "bits": sorted({int(module.bits) for module in packed.values()}),
            "group_size": sorted({module.group_size for module in packed.values()}),
            "modules": _count_last_names(packed),
            "not_quantised": _count_last_names(modules.keys() - packed.keys()),
        }
    if by_torchao := {name for name, module in modules.items() if hasattr(module.weight, "__tensor_flatten__")}:
        not_quantised = _count_last_names(modules.keys() - by_torchao)
        return {"library": "torchao", "modules": _count_last_names(by_torchao), "not_quantised": not_quantised}
    if "bitsandbytes" not in sys.modules:
        return None
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    quantised = {name: module for name, module in modules.items() if isinstance(module, (Linear4bit, Linear8bitLt))}
    if not quantised:
        return None
    in_8_bits = [module for module in quantised.values() if isinstance(module, Linear8bitLt)]
    in_4_bits = [module for module in quantised.values() if isinstance(module, Linear4bit)]
    return {
        "library": "bitsandbytes",
        "modules": _count_last_names(quantised),
        **({"threshold": sorted({module.state.threshold for module in in_8_bits})} if in_8_bits else {}),
        **({"type": sorted({module.weight.quant_type for module in in_4_bits})} if in_4_bits else {}),
        "not_quantised": _count_last_names(modules.keys() - quantised.keys()),
    }


def _count_last_names(names) -> dict[str, int]:
    return dict(Counter(name.rsplit(".", 1)[-1] for name in sorted(names)))


class StepEnds(StoppingCriteria):
    """Tells the end of each step of a generate call; stops nothing. rows: of the batch."""

    def __init__(self, step_ended: Callable[[], None], rows: int, device: torch.device) -> None:
        self.step_ended, self.goes_on = step_ended, torch.zeros(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        self.step_ended()
        return self.goes_on
