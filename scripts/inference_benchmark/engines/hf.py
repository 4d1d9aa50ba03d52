"""transformers' generate as everybody runs it: eager, with its default dynamic cache."""

from __future__ import annotations

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
)
from transformers.utils import logging

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
    loaded_bytes: int | None = None

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        torch.set_num_threads(threads)
        # The family's code, and with it half of scipy, is imported by looking its class up.
        self.model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.from_pretrained(checkpoint))]
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
            self.growth_limit.hold(extra_bytes=sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")))
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
            self.loaded_bytes = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def vocab_size(self) -> int:
        return self.model.get_input_embeddings().num_embeddings

    def describe(self) -> dict[str, Any]:
        parameters = list(self.model.parameters())
        return {
            "class": type(self.model).__name__,
            # Quantised weights keep their shape in 8 bits, so that elements are parameters still.
            "parameters": sum(p.numel() for p in parameters),
            "weights_bytes": sum(p.numel() * p.element_size() for p in parameters),
            "dtypes": sorted({str(p.dtype).removeprefix("torch.") for p in parameters}),
            "attention": self.model.config._attn_implementation,
            "threads": torch.get_num_threads(),
            "cuda": torch.version.cuda if self.device.type == "cuda" else None,
        }

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        ids = torch.from_numpy(prompts).to(self.device)
        # As keyword arguments: in a GenerationConfig, eos_token_id=None is refilled from the model's.
        # The padding id is no token, so that a row that stopped early cannot pass for a full one.
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=None,
            pad_token_id=self.vocab_size,
        )
        return output[:, prompts.shape[1] :].cpu().numpy()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def memory(self) -> dict[str, int]:
        if self.device.type == "cpu":
            return {"peak_rss_bytes": cpu_memory.peak_rss_bytes()}
        return {
            "loaded_bytes": self.loaded_bytes,
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(self.device),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(self.device),
            "device_total_bytes": torch.cuda.get_device_properties(self.device).total_memory,
        }

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            return True
        return isinstance(error, RuntimeError) and any(words in str(error) for words in _OOM_WORDS)
