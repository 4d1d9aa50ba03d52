"""Facts for the record about what really ran: a loaded transformers model, and a call while it runs."""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from transformers import LogitsProcessor, StoppingCriteria
from transformers.cache_utils import HQQQuantizedLayer, QuantizedCache

from inference_benchmark.engines import shapes
from inference_benchmark.engines.shapes import dtype_name, matrix_modules


def model_facts(model: torch.nn.Module, device: torch.device, work: shapes.TokenWork) -> dict[str, Any]:
    """Weights, dtypes, quantisation, devices and shapes of a model, and the torch settings that affect its speed.

    work: of the model's configuration.
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
        **shapes.facts(model, work),
    }


def block_weights(model: torch.nn.Module) -> dict[str, int]:
    """How the weights of the blocks are stored: {dtype or quantisation: number of weights}.

    These are the weights without embeddings, output layer, norms and biases, which no precision quantises.
    """
    head = model.get_output_embeddings()
    stored: Counter[str] = Counter()
    for module in model.modules():
        if shapes.is_packed(module) and module is not head:
            n_weights = math.prod(shapes.sizes(module))
            stored[f"int{8 * shapes.stored_bytes(module.qweight) / n_weights:g}"] += n_weights
    for weight in _of_blocks(model):
        stored[_stored_as(weight)] += shapes.numbers(weight)
    return dict(stored)


def split_weights(model: torch.nn.Module) -> tuple[int, int]:
    """(of which this process holds a part, all): numbers of weights of the blocks, that are not packed."""
    sizes = [(weight.numel(), shapes.part_here(weight).numel()) for weight in _of_blocks(model)]
    return sum(whole for whole, here in sizes if here < whole), sum(whole for whole, _ in sizes)


def _of_blocks(model: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    others = {id(weight) for weight in (*tables, *model.get_output_embeddings().parameters())}
    return (weight for weight in model.parameters() if weight.dim() > 1 and id(weight) not in others)


def _stored_as(weight: torch.nn.Parameter) -> str:
    if (state := getattr(weight, "quant_state", None)) is not None:
        return state.quant_type
    packed = "Int4" in type(weight).__name__  # of torchao, several in one number
    return "int4" if packed else dtype_name(shapes.stored_parts(weight)[0].dtype)


def compilation() -> dict[str, Any]:
    """As Engine.compilation, by torch.compile. graphs_from_cache: number of graphs that were in its cache on disk."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return {"graphs": 0, "graphs_from_cache": 0, "seconds": 0.0}
    return {
        "graphs": dynamo.counters["stats"]["unique_graphs"],
        "graphs_from_cache": dynamo.counters["inductor"]["fxgraph_cache_hit"],
        "seconds": float(dynamo.calculate_time_spent().get("total_wall_time", 0)),
    }


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
        "cudnn": _cudnn() if on_cuda else None,
    }


def _cudnn() -> int | str | None:
    """The version of cuDNN. If torch refuses one that LD_LIBRARY_PATH names, which is no fault of a cell that does not
    use it, what torch says."""
    try:
        return torch.backends.cudnn.version()
    except RuntimeError as error:
        return " ".join(str(error).partition(". ")[0].split())


def kind_of_cache(cache: Any) -> str:
    """The class of a cache; if hqq quantises it, also the bits of a stored key or value."""
    kinds = set()
    for layer in cache.layers if isinstance(cache, QuantizedCache) else ():
        kind = type(layer).__name__
        if isinstance(layer, HQQQuantizedLayer) and layer._quantized_keys is not None:
            parts = (layer._quantized_keys, layer._quantized_values)
            bits = {8 * packed.nbytes / packing["shape"].numel() for packed, packing in parts}
            kind = f"{'- and '.join(f'{n:g}' for n in sorted(bits))}-bit {kind}"
        kinds.add(kind)
    name = type(cache).__name__
    return f"{name} of {', '.join(sorted(kinds))}" if kinds else name


class Observation(LogitsProcessor):
    """Logits processor that collects facts about the generate call in its block and changes nothing.

    Its hooks on modules are removed after prefill. Otherwise decoding would be compiled with them, and again without.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.hooks, self.dtypes = model, [], set()
        self.outliers: dict[str, list[int]] = defaultdict(list)
        self.widths: dict[str, int] = {}
        self.non_finite: torch.Tensor | None = None

    def __enter__(self) -> Observation:
        for name, module in matrix_modules(self.model):
            self.hooks.append(module.register_forward_hook(self._add_dtype))
            # The magnitude from which LLM.int8() computes a column separately; 0 if it never does.
            if _is_of_bitsandbytes(module, "Linear8bitLt") and (threshold := module.state.threshold):
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
        or infinite at any step. outlier_columns: per module, for the prompts, the number of activation columns (of)
        and how many of them LLM.int8() computes separately (mean and max over the layers)."""
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
        # The router of a mixture of experts has a matrix too, and returns a tuple of what it chose.
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

    continuation: (batch, steps). logits: float32 (batch, steps, vocab) on the host, after the last step.
    """

    def __init__(self, continuation: torch.Tensor) -> None:
        self.continuation, self.step = continuation, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = self.step
        if step == 0:
            self.logits = numpy.empty((*self.continuation.shape, scores.shape[-1]), numpy.float32)
        self.logits[:, step] = scores.to("cpu", torch.float32).numpy()
        self.step += 1
        forced = torch.full_like(scores, -torch.inf)
        return forced.scatter_(1, self.continuation[:, step : step + 1], 0)


def _device_map(model: torch.nn.Module) -> dict[str, str]:
    """Device of each part, "" for the whole model; transformers sets hf_device_map for several devices only."""
    device_map = getattr(model, "hf_device_map", None)
    device_map = device_map or {"": " ".join(sorted({str(p.device) for p in model.parameters()}))}
    return {name: str(device) for name, device in device_map.items()}


def _quantisation(model: torch.nn.Module) -> dict[str, Any] | None:
    """Counts of modules with and without quantised weights, by last name, and the settings of the library."""
    modules = dict(matrix_modules(model))
    libraries = {name: library for name, module in modules.items() if (library := _quantised_by(module))}
    if not libraries:
        return None
    quantised = [modules[name] for name in libraries]
    packed = [module for module in quantised if shapes.is_packed(module)]
    settings = {
        "kernels": {type(module).__name__ for module in packed},
        "bits": {int(module.bits) for module in packed},
        "group_size": {module.group_size for module in packed},
        "threshold": {module.state.threshold for module in quantised if _is_of_bitsandbytes(module, "Linear8bitLt")},
        "type": {module.weight.quant_type for module in quantised if _is_of_bitsandbytes(module, "Linear4bit")},
    }
    return {
        "library": next(iter(libraries.values())),
        "modules": _count_last_names(libraries),
        "not_quantised": _count_last_names(modules.keys() - libraries.keys()),
        **{name: sorted(values) for name, values in settings.items() if values},
    }


def _quantised_by(module: torch.nn.Module) -> str | None:
    if shapes.is_packed(module):
        return "gptqmodel"
    if hasattr(module.weight, "__tensor_flatten__") and not shapes.is_split(module.weight):
        return "torchao"
    return "bitsandbytes" if _is_of_bitsandbytes(module, "Linear8bitLt", "Linear4bit") else None


def _is_of_bitsandbytes(module: torch.nn.Module, *classes: str) -> bool:
    library = sys.modules.get("bitsandbytes")  # nothing is quantised by it before it is imported
    return library is not None and isinstance(module, tuple(getattr(library.nn, name) for name in classes))


def _count_last_names(names) -> dict[str, int]:
    return dict(Counter(name.rsplit(".", 1)[-1] for name in sorted(names)))


class StepEnds(StoppingCriteria):
    """Tells the end of each step of a generate call; stops nothing. rows: of the batch."""

    def __init__(self, step_ended: Callable[[], None], rows: int, device: torch.device) -> None:
        self.step_ended, self.goes_on = step_ended, torch.zeros(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        self.step_ended()
        return self.goes_on
