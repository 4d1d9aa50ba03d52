"""What really ran: facts of a loaded transformers model, and of a call while it runs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from transformers import LogitsProcessor


def of_model(model: torch.nn.Module, device: torch.device) -> dict[str, Any]:
    """For the record: what the model holds, where, and the settings of torch that decide its speed."""
    parameters, on_cuda = list(model.parameters()), device.type == "cuda"
    return {
        "class": type(model).__name__,
        # Quantised weights keep their shape in 8 bits, so that elements are parameters still.
        "parameters": sum(p.numel() for p in parameters),
        "weights_bytes": sum(p.numel() * p.element_size() for p in parameters),
        "dtypes": sorted({_name(p.dtype) for p in parameters}),
        "quantised": _quantised(model),
        "attention": model.config._attn_implementation,
        "device_map": _device_map(model),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,
    }


class Observation(LogitsProcessor):
    """Looks into the calls made in its block, as their logits processor; changes nothing.

    dtypes: what matrix products gave. It keeps a truth value per row, no logits.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.dtypes = model, set()
        self.non_finite: torch.Tensor | None = None

    def __enter__(self) -> Observation:
        def note(module, inputs, output) -> None:
            self.dtypes.add(_name(output.dtype))

        self.hooks = [module.register_forward_hook(note) for _, module in matrix_modules(self.model)]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        found = ~torch.isfinite(scores.amax(dim=-1))
        self.non_finite = found if self.non_finite is None else self.non_finite | found
        return scores

    def non_finite_rows(self) -> int:
        """Rows whose largest logit was NaN or infinite at any step."""
        return 0 if self.non_finite is None else int(self.non_finite.sum())


def matrix_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """(name, module) of all that multiplies by a matrix, whatever class a family or a quantiser makes it."""
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() == 2 and not isinstance(module, torch.nn.Embedding):
            yield name, module


def _device_map(model: torch.nn.Module) -> dict[str, str]:
    """Which part lies where, "" being the whole; transformers notes it only where there are several devices."""
    noted = getattr(model, "hf_device_map", None)
    found = noted or {"": " ".join(sorted({str(p.device) for p in model.parameters()}))}
    return {name: str(where) for name, where in found.items()}


def _quantised(model: torch.nn.Module) -> dict[str, Any] | None:
    """Which modules hold 8-bit weights, with which outlier threshold, and which do not; by last name, counted."""
    if "bitsandbytes" not in sys.modules:
        return None
    from bitsandbytes.nn import Linear8bitLt

    modules = list(matrix_modules(model))
    in_8_bits = [(name, module) for name, module in modules if isinstance(module, Linear8bitLt)]
    if not in_8_bits:
        return None
    names = {name for name, _ in in_8_bits}
    return {
        "library": "bitsandbytes",
        "modules": dict(Counter(name.rsplit(".", 1)[-1] for name in names)),
        "threshold": sorted({module.state.threshold for _, module in in_8_bits}),
        "not_quantised": dict(Counter(name.rsplit(".", 1)[-1] for name, _ in modules if name not in names)),
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
