"""What engines share that keep their memory on a device torch knows: its limit, its peaks, its exhaustion."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

import torch

from inference_benchmark.engines import Engine, cpu_memory
from inference_benchmark.models.checkpoint import weights_files

#: How allocators, cuBLAS, MKL and the CUDA runtime word it where they raise no class of their own.
_OOM_WORDS = (
    "can't allocate memory",
    "Cannot allocate memory",
    "failed to allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA failed with error out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
)


class TorchDeviceEngine(Engine):
    """Memory and synchronisation on ``cpu`` or ``cuda``, for engines to build on."""

    growth_limit: cpu_memory.GrowthLimit | None = None
    loaded: dict[str, int] = {}

    def wake(self, device: str, threads: int) -> None:
        """Start the thread pool, or the CUDA context and its libraries, with a product large enough to need them."""
        torch.set_num_threads(threads)
        self.device = torch.device(device, 0) if device == "cuda" else torch.device(device)
        operand = torch.ones(256, 256, device=self.device)
        (operand @ operand).sum().item()

    def limit_memory(self, n_bytes: int) -> None:
        if self.device.type == "cpu":
            self.growth_limit = cpu_memory.GrowthLimit(n_bytes)
            return
        total = torch.cuda.get_device_properties(self.device).total_memory
        if n_bytes > total:
            raise OSError(f"memory_limit of {n_bytes} bytes is more than the device's {total}")
        self.limit_cuda_memory(n_bytes, total)

    def limit_cuda_memory(self, n_bytes: int, total_bytes: int) -> None:
        torch.cuda.set_per_process_memory_fraction(n_bytes / total_bytes, self.device)

    def hold_limit_while_loading(self, folder: Path) -> None:
        """The limit, and on top of it the mapping that a folder's files of weights are read through."""
        if self.growth_limit:
            self.growth_limit.hold(extra_bytes=sum(path.stat().st_size for path in weights_files(folder)))

    def hold_limit(self) -> None:
        if self.growth_limit:
            self.growth_limit.hold()

    def note_loaded(self) -> None:
        """Remember what loading took."""
        if self.device.type == "cuda":
            self.loaded = {"loaded_bytes": torch.cuda.memory_allocated(self.device)}
        else:
            self.loaded = {"loaded_bytes": cpu_memory.rss_bytes()["rss_bytes"]}
        self.reset_peak_memory()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif sys.platform.startswith("linux"):
            with suppress(AttributeError):  # a C library without it gives memory back by itself, or not at all
                ctypes.CDLL(None).malloc_trim(0)

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
