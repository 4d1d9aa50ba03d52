"""Memory limit, peak memory and out-of-memory detection for engines whose memory is on a torch device."""

import ctypes
import errno
import gc
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError

from inference_benchmark.analysis.timeline import Profile
from inference_benchmark.engines import cpu_memory, needed_packages, refusal, shapes, torch_profile, yardstick
from inference_benchmark.engines.engine import Engine
from inference_benchmark.engines.options import gpus_of
from inference_benchmark.machine.out_of_memory import line_about_memory
from inference_benchmark.models.checkpoint import weights_files
from inference_benchmark.models.loading import config_of


class TorchDeviceEngine(Engine):
    """Base class with memory and synchronisation on ``cpu`` or ``cuda``."""

    growth_limit: cpu_memory.GrowthLimit | None = None
    limit_bytes: int | None = None
    #: Bytes of files that calls map into memory, in addition to what they allocate.
    mapped_bytes = 0
    loaded: dict[str, int] = {}
    #: The model_type of the checkpoint; "" until it is known.
    family = ""
    #: Whether torch's profiler sees what runs on a CPU: operators of torch in the thread of the call.
    is_profiled_on_cpu = True

    def import_libraries(self, checkpoint: Path, on_gpu: bool) -> None:
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

        # Looking up the class imports the family's code, and much of scipy with it.
        MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config_of(checkpoint)), None)
        shapes.work_of_checkpoint(checkpoint)

    def combination(self, precision: str) -> str:
        libraries = (
            f"{package.distribution} {package.version}"
            for package in needed_packages(self.name, precision, self.options)
            if package.name not in ("torch", "accelerate")
        )
        chosen = (f"{option} {value}" for option, value in self.options.items())
        return ", ".join(filter(None, (*libraries, self.family, precision, self.device.type, *chosen)))

    def package_versions(self, precision: str) -> dict[str, str | None]:
        """For the record: the versions of the packages that not every cell uses."""
        needed = needed_packages(self.name, precision, self.options)
        return {package.name: package.version for package in needed if package.compared_in == "model"}

    def initialise_device(self, device: str, threads: int) -> None:
        """Start the thread pool, or the CUDA context and its libraries on each device, with a large enough matrix
        product. The first device is the one that calls begin and end on."""
        torch.set_num_threads(threads)
        numbers = self.gpu_numbers if device == "cuda" else [None]
        self.devices = [torch.device(device if number is None else f"{device}:{number}") for number in numbers]
        self.device = self.devices[0]
        for each in self.devices:
            operand = torch.ones(256, 256, device=each)
            (operand @ operand).sum().item()

    @property
    def gpu_numbers(self) -> Sequence[int]:
        """The GPUs that this process uses, as torch counts them."""
        return range(gpus_of(self.options))

    def yardstick(self) -> dict[str, Any]:
        self.lift_limit()
        return yardstick.measure(self.device)

    def profile(self, prompts: numpy.ndarray, new_tokens: int, trace: Path | None) -> Profile | None:
        if self.device.type == "cpu" and not self.is_profiled_on_cpu:
            return None
        self.lift_limit()  # a profile may hold a hundred thousand events
        return torch_profile.profiled(lambda: self.generate(prompts, new_tokens), self.device, trace)

    def lift_limit(self) -> None:
        if self.growth_limit:
            self.growth_limit.lift()
        elif self.device.type == "cuda":
            for device in self.devices:
                torch.cuda.set_per_process_memory_fraction(1.0, device)

    def limit_memory(self, n_bytes: int) -> None:
        self.limit_bytes = n_bytes
        if self.device.type == "cpu":
            self.growth_limit = cpu_memory.GrowthLimit(n_bytes)
            return
        total_bytes = self.least_total_bytes()
        if n_bytes > total_bytes:
            raise OSError(f"memory_limit of {n_bytes} bytes is more than the device's {total_bytes}")
        self.limit_cuda_memory(n_bytes, total_bytes)

    def limit_cuda_memory(self, n_bytes: int, total_bytes: int) -> None:
        for device in self.devices:
            device_bytes = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(n_bytes / device_bytes, device)

    def least_total_bytes(self) -> int:
        """The memory of a CUDA device; of several, of the smallest."""
        return min(torch.cuda.get_device_properties(device).total_memory for device in self.devices)

    def begin_loading(self, folder: Path) -> None:
        """Apply the limit plus the size of the folder's weights files, which are memory-mapped while loading."""
        if self.growth_limit:
            self.growth_limit.hold(extra_bytes=sum(path.stat().st_size for path in weights_files(folder)))

    def finish_loading(self) -> None:
        """Apply the limit, store the memory use after loading, and restart the peaks."""
        self.synchronize()
        if self.growth_limit:
            self.growth_limit.hold(extra_bytes=self.mapped_bytes)
        self.loaded = {"loaded_bytes": self.memory_in_use_bytes()}
        self.reset_peak_memory()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            for device in self.devices:
                torch.cuda.synchronize(device)

    def release(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif sys.platform.startswith("linux"):
            with suppress(AttributeError):  # the C library has no malloc_trim
                ctypes.CDLL(None).malloc_trim(0)

    def reset_peak_memory(self) -> None:
        if self.device.type == "cuda":
            for device in self.devices:
                torch.cuda.reset_peak_memory_stats(device)
        else:
            cpu_memory.reset_peak_rss()

    def memory_in_use_bytes(self) -> int:
        if self.device.type == "cuda":
            return sum(map(torch.cuda.memory_allocated, self.devices))
        return cpu_memory.rss_bytes()["rss_bytes"]

    def memory(self) -> dict[str, Any]:
        if self.device.type == "cpu":
            return {**self.loaded, "peak_rss_bytes": cpu_memory.rss_bytes()["peak_rss_bytes"]}
        by_device = [
            {
                "peak_allocated_bytes": torch.cuda.max_memory_allocated(device),
                "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
                "device_total_bytes": torch.cuda.get_device_properties(device).total_memory,
            }
            for device in self.devices
        ]
        total = {name: sum(each[name] for each in by_device) for name in by_device[0]}
        return self.loaded | total | ({"devices": by_device} if len(by_device) > 1 else {})

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(error, OSError):
            return error.errno == errno.ENOMEM
        return isinstance(error, (RuntimeError, SafetensorError)) and bool(
            line_about_memory(str(error), self.growth_limit is not None)
        )

    def is_refusal(self, error: BaseException) -> bool:
        return refusal.is_refusal(error)
