"""transformers' generate as everybody runs it: eager, with its default dynamic cache."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401  transformers would import it while the load is timed
import numpy
import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.utils import logging

from inference_benchmark.checkpoint import weights_files
from inference_benchmark.engines import Engine, cpu_memory
from inference_benchmark.precision import PRECISIONS

logging.disable_progress_bar()

#: How torch's CPU allocator, cuBLAS and the CUDA runtime word it where they raise no class of their own.
_OOM_WORDS = (
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
)


class HfEngine(Engine):
    """AutoModelForCausalLM.from_pretrained(device_map=...).generate(...)."""

    growth_limit: cpu_memory.GrowthLimit | None = None
    loaded: dict[str, int] = {}

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        torch.set_num_threads(threads)
        # The family's code, and with it half of scipy, is imported by looking its class up.
        config = AutoConfig.from_pretrained(checkpoint)
        if MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None) is None:
            raise ValueError(f"transformers has no causal language model of type {config.model_type}")
        self.device = torch.device(device, 0) if device == "cuda" else torch.device(device)
        # A product large enough to start the thread pool or the CUDA context and its libraries.
        operand = torch.ones(256, 256, device=self.device)
        (operand @ operand).sum().item()

    def unsupported(self, precision: str) -> str | None:
        if PRECISIONS[precision].quantised:
            import bitsandbytes  # noqa: F401  needed from here on; a missing package is an error, not a verdict
        if self.device.type != "cuda":
            return None
        name, capability = torch.cuda.get_device_name(self.device), torch.cuda.get_device_capability(self.device)
        if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return f"{name} (compute capability {capability[0]}.{capability[1]}) has no bfloat16 arithmetic"
        if PRECISIONS[precision].quantised and capability < (7, 5):
            return f"{name} (compute capability {capability[0]}.{capability[1]}) has no int8 tensor cores; 7.5 or newer"
        return None

    def limit_memory(self, n_bytes: int) -> None:
        if self.device.type == "cpu":
            self.growth_limit = cpu_memory.GrowthLimit(n_bytes)
            return
        total = torch.cuda.get_device_properties(self.device).total_memory
        if n_bytes > total:
            raise OSError(f"memory_limit of {n_bytes} bytes is more than the device's {total}")
        torch.cuda.set_per_process_memory_fraction(n_bytes / total, self.device)

    def load(self, checkpoint: Path, precision: str) -> None:
        wanted = PRECISIONS[precision]
        if self.growth_limit:
            self.growth_limit.hold(extra_bytes=sum(path.stat().st_size for path in weights_files(checkpoint)))
        quantisation = BitsAndBytesConfig(load_in_8bit=True) if wanted.quantised else None
        self.model = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            dtype=getattr(torch, wanted.activations),
            device_map={"": self.device},
            quantization_config=quantisation,
        ).eval()
        # A real checkpoint's own generation settings (penalties, sampling, lengths) would be timed too.
        self.model.generation_config = GenerationConfig()
        self.synchronize()
        if self.growth_limit:
            self.growth_limit.hold()
        if self.device.type == "cuda":
            self.loaded = {"loaded_bytes": torch.cuda.memory_allocated(self.device)}
        else:
            self.loaded = {"loaded_bytes": cpu_memory.rss_bytes()["rss_bytes"]}
        self.reset_peak_memory()

    @property
    def vocab_size(self) -> int:
        return self.model.get_input_embeddings().num_embeddings

    def describe(self) -> dict[str, Any]:
        parameters = list(self.model.parameters())
        on_cuda = self.device.type == "cuda"
        return {
            "class": type(self.model).__name__,
            # Quantised weights keep their shape in 8 bits, so that elements are parameters still.
            "parameters": sum(p.numel() for p in parameters),
            "weights_bytes": sum(p.numel() * p.element_size() for p in parameters),
            "dtypes": sorted({str(p.dtype).removeprefix("torch.") for p in parameters}),
            "quantised": _quantised(self.model),
            "attention": self.model.config._attn_implementation,
            "device_map": _device_map(self.model),
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cuda": torch.version.cuda if on_cuda else None,
            "cudnn": torch.backends.cudnn.version() if on_cuda else None,
        }

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        return self._generate(prompts, new_tokens)[:, prompts.shape[1] :].cpu().numpy()

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        watch, dtypes = _Watch(), set()

        def note(module, inputs, output) -> None:
            dtypes.add(str(output.dtype).removeprefix("torch."))

        hooks = [module.register_forward_hook(note) for _, module in _matrix_modules(self.model)]
        try:
            output = self._generate(
                prompts, new_tokens, logits_processor=LogitsProcessorList([watch]), return_dict_in_generate=True
            )
        finally:
            for hook in hooks:
                hook.remove()
        return output.sequences[:, prompts.shape[1] :].cpu().numpy(), {
            "cache": type(output.past_key_values).__name__,
            "activations": sorted(dtypes),
            "non_finite_rows": int(watch.non_finite.sum()),
        }

    def _generate(self, prompts: numpy.ndarray, new_tokens: int, **more: Any):
        ids = torch.from_numpy(prompts).to(self.device)
        # As keyword arguments: in a GenerationConfig, eos_token_id=None is refilled from the model's.
        # The padding id is no token, so that a row that stopped early cannot pass for a full one.
        return self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=None,
            pad_token_id=self.vocab_size,
            **more,
        )

    def compiled_graphs(self) -> int:
        dynamo = sys.modules.get("torch._dynamo.utils")
        return dynamo.counters["stats"]["unique_graphs"] if dynamo else 0

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reset_peak_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            cpu_memory.reset_peak_rss()

    def memory(self) -> dict[str, int]:
        if self.device.type == "cpu":
            return {**self.loaded, "peak_rss_bytes": cpu_memory.rss_bytes()["peak_rss_bytes"]}
        return {
            **self.loaded,
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(self.device),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(self.device),
            "device_total_bytes": torch.cuda.get_device_properties(self.device).total_memory,
        }

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            return True
        return isinstance(error, RuntimeError) and any(words in str(error) for words in _OOM_WORDS)


class _Watch(LogitsProcessor):
    """Notes rows whose largest logit is NaN or infinite; changes nothing, and takes a number per row."""

    non_finite: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        found = ~torch.isfinite(scores.amax(dim=-1))
        self.non_finite = found if self.non_finite is None else self.non_finite | found
        return scores


def _matrix_modules(model: torch.nn.Module):
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

    modules = list(_matrix_modules(model))
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
