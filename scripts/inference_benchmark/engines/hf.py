"""transformers' generate as everybody runs it: eager, with its default dynamic cache."""

from __future__ import annotations

import sys
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
    LogitsProcessorList,
)
from transformers.utils import logging

from inference_benchmark.checkpoint import weights_files
from inference_benchmark.engines import Engine, cpu_memory, hf_facts
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
        return hf_facts.of_model(self.model, self.device)

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        return self._generate(prompts, new_tokens)[:, prompts.shape[1] :].cpu().numpy()

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        with hf_facts.Observation(self.model) as seen:
            output = self._generate(
                prompts, new_tokens, logits_processor=LogitsProcessorList([seen]), return_dict_in_generate=True
            )
        return output.sequences[:, prompts.shape[1] :].cpu().numpy(), {
            "cache": type(output.past_key_values).__name__,
            "activations": sorted(seen.dtypes),
            "non_finite_rows": seen.non_finite_rows(),
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
