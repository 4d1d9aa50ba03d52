"""What really ran: facts of a loaded transformers model, and of a call while it runs."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from typing import Any

import torch
from transformers import LogitsProcessor

from inference_benchmark.engines import shapes
from inference_benchmark.engines.shapes import dtype_name, matrix_modules


def of_model(model: torch.nn.Module, device: torch.device) -> dict[str, Any]:
    """For the record: what the model holds, where, and the settings of torch that decide its speed."""
    held = list(model.parameters())
    return {
        "class": type(model).__name__,
        "parameters": shapes.parameters(model),
        "weights_bytes": sum(p.numel() * p.element_size() for p in held),
        "dtypes": sorted({dtype_name(p.dtype) for p in held}),
        "quantised": _quantised(model),
        "attention": model.config._attn_implementation,
        "device_map": _device_map(model),
        **of_torch(device),
        **shapes.facts(model),
    }


def of_torch(device: torch.device) -> dict[str, Any]:
    """Settings of torch that decide the speed of whatever runs on it."""
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
    """Graphs that torch has compiled in this process, and the seconds it took."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return {"graphs": 0, "seconds": 0.0}
    seconds = dynamo.calculate_time_spent().get("total_wall_time", 0.0)
    return {"graphs": dynamo.counters["stats"]["unique_graphs"], "seconds": seconds}


class Observation(LogitsProcessor):
    """Looks into the call made in its block, as its logits processor; changes nothing.

    Modules are looked into during prefill only, and let go before decoding starts: what is compiled in
    decoding would otherwise be compiled with the hooks, and once more without them.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.hooks, self.dtypes = model, [], set()
        self.outliers: dict[str, list[int]] = defaultdict(list)
        self.widths: dict[str, int] = {}
        self.non_finite: torch.Tensor | None = None

    def __enter__(self) -> Observation:
        for name, module in matrix_modules(self.model):
            self.hooks.append(module.register_forward_hook(self._note_dtype))
            if threshold := _outlier_threshold(module):
                probe = self._outlier_probe(name.rsplit(".", 1)[-1], threshold)
                self.hooks.append(module.register_forward_pre_hook(probe))
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._let_go()
        found = ~torch.isfinite(scores.amax(dim=-1))
        self.non_finite = found if self.non_finite is None else self.non_finite | found
        return scores

    def facts(self) -> dict[str, Any]:
        """activations: dtypes that matrix products gave. non_finite_rows: with a largest logit of NaN or infinity
        at any step. outlier_columns: by module, of how many columns of the prompts' activations how many LLM.int8()
        treats apart, over the layers."""
        return {
            "activations": sorted(self.dtypes),
            "non_finite_rows": 0 if self.non_finite is None else int(self.non_finite.sum()),
            "outlier_columns": {
                name: {"of": self.widths[name], "mean": sum(counts) / len(counts), "max": max(counts)}
                for name, counts in self.outliers.items()
            }
            or None,
        }

    def _let_go(self) -> None:
        while self.hooks:
            self.hooks.pop().remove()

    def _note_dtype(self, module, inputs, output) -> None:
        self.dtypes.add(dtype_name(output.dtype))

    def _outlier_probe(self, name: str, threshold: float):
        def probe(module, inputs) -> None:
            # As bitsandbytes decides it: a column with any value this large in any row or position.
            columns = inputs[0].abs().amax(dim=tuple(range(inputs[0].dim() - 1)))
            self.widths[name] = columns.numel()
            self.outliers[name].append(int((columns >= threshold).sum()))

        return probe


class Following(LogitsProcessor):
    """Keeps the logits of every step and lets generate choose the token it is told.

    continuation: (batch, steps). logits: a float32 array (batch, vocab) on the host per step.
    """

    def __init__(self, continuation: torch.Tensor) -> None:
        self.continuation, self.logits = continuation, []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = len(self.logits)
        self.logits.append(scores.to("cpu", torch.float32, copy=True).numpy())
        forced = torch.full_like(scores, -torch.inf)
        return forced.scatter_(1, self.continuation[:, step : step + 1], 0)


def _outlier_threshold(module: torch.nn.Module) -> float:
    """From which magnitude on LLM.int8() treats a column apart; 0 where nothing is."""
    if "bitsandbytes" not in sys.modules:
        return 0.0
    from bitsandbytes.nn import Linear8bitLt

    return module.state.threshold if isinstance(module, Linear8bitLt) else 0.0


def _device_map(model: torch.nn.Module) -> dict[str, str]:
    """Which part lies where, "" being the whole; transformers notes it only where there are several devices."""
    noted = getattr(model, "hf_device_map", None)
    found = noted or {"": " ".join(sorted({str(p.device) for p in model.parameters()}))}
    return {name: str(where) for name, where in found.items()}


def _quantised(model: torch.nn.Module) -> dict[str, Any] | None:
    """Which modules hold 8-bit or 4-bit weights, and how, and which do not; by last name, counted."""
    if "bitsandbytes" not in sys.modules:
        return None
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    modules = dict(matrix_modules(model))
    quantised = {name: module for name, module in modules.items() if isinstance(module, (Linear4bit, Linear8bitLt))}
    if not quantised:
        return None
    in_8_bits = [module for module in quantised.values() if isinstance(module, Linear8bitLt)]
    in_4_bits = [module for module in quantised.values() if isinstance(module, Linear4bit)]
    return {
        "library": "bitsandbytes",
        "modules": _counted(quantised),
        **({"threshold": sorted({module.state.threshold for module in in_8_bits})} if in_8_bits else {}),
        **({"type": sorted({module.weight.quant_type for module in in_4_bits})} if in_4_bits else {}),
        "not_quantised": _counted(modules.keys() - quantised.keys()),
    }


def _counted(names) -> dict[str, int]:
    return dict(Counter(name.rsplit(".", 1)[-1] for name in sorted(names)))
