"""What engines share that run on weights converted from the checkpoint into a format of their own."""

from __future__ import annotations

import hashlib
import json
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import AutoModelForCausalLM

from inference_benchmark.engines import hf_facts, shapes
from inference_benchmark.engines.refusal import UnsupportedError, is_refusal, words_of
from inference_benchmark.engines.torch_device import TorchDeviceEngine
from inference_benchmark.models import checkpoint as checkpoints
from inference_benchmark.models import loading
from inference_benchmark.models.cache import REFUSED, cache_root, made_once

#: Increase it whenever the conversion of a checkpoint gives different files.
CONVERSION_VERSION = 1


class ConvertedEngine(TorchDeviceEngine):
    """A subclass loads the converted weights, sets ``precision`` and calls finish_loading."""

    ballast: torch.Tensor | None = None
    is_profiled_on_cpu = False  # another library computes

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        self.initialise_device(device, threads)
        self.threads = threads
        self.config = loading.config_of(checkpoint)
        self.family = self.config.model_type
        text = self.config.get_text_config(decoder=True)
        is_limited = "sliding_attention" in (getattr(text, "layer_types", None) or ["sliding_attention"])
        self.window = getattr(text, "sliding_window", None) if is_limited else None
        self.token_work = shapes.work_of_checkpoint(checkpoint)
        if device == "cuda":
            self.free_before_bytes, self.total_bytes = torch.cuda.mem_get_info(self.device)

    def limit_cuda_memory(self, n_bytes: int, total_bytes: int) -> None:
        # The library's allocator has no limit. This tensor takes the memory beyond the limit instead.
        self.ballast = torch.empty(total_bytes - n_bytes, dtype=torch.uint8, device=self.device)
        self.free_before_bytes, _ = torch.cuda.mem_get_info(self.device)

    def finish_loading(self) -> None:
        # The first call starts the library's threads. Under the final limit, a failed start could end the process.
        self.generate(numpy.zeros((1, 1), dtype=numpy.int64), 1)
        self.release()
        super().finish_loading()

    def refuse_beyond_window(self, n_tokens: int) -> None:
        """For a library that does not apply the sliding window of a family. Raises UnsupportedError."""
        if self.window and n_tokens > self.window:
            window = f"the sliding window of {self.window} tokens of {self.family}"
            raise UnsupportedError(f"{self.name} does not apply {window} to {n_tokens}")

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        return self.generate_in_steps(prompts, new_tokens, lambda: None)

    @property
    @abstractmethod
    def activations(self) -> torch.dtype:
        """The dtype of activations, keys and values."""

    @abstractmethod
    def stored(self, module: torch.nn.Module) -> tuple[int, str | None]:
        """How the engine stores a matrix: as shapes.Stored."""

    @cached_property
    def vocab_size(self) -> int:  # asked for in every step
        return vocab_size(self.config)

    def describe(self) -> dict[str, Any]:
        with torch.device("meta"):  # with the attention that needs no package
            model = AutoModelForCausalLM.from_config(self.config, attn_implementation="eager")
        self.names = {module: name for name, module in model.named_modules()}
        return {
            "parameters": shapes.parameters(model),
            "device_map": {"": self.device.type},
            **hf_facts.torch_settings(self.device),
            "threads": self.threads,
            **self.package_versions(self.precision),
            **shapes.facts(model, self.token_work, self.stored, self.activations),
        }

    def unload(self) -> None:
        self.ballast = None
        self.release()

    def memory_in_use_bytes(self) -> int:
        return self._used_bytes() if self.device.type == "cuda" else super().memory_in_use_bytes()

    def memory(self) -> dict[str, int]:
        if self.device.type == "cpu":
            return super().memory()
        # torch does not count the library's memory, and its allocator never shrinks, so current use is the peak.
        return {**self.loaded, "peak_reserved_bytes": self._used_bytes(), "device_total_bytes": self.total_bytes}

    def _used_bytes(self) -> int:
        return max(0, self.free_before_bytes - torch.cuda.mem_get_info(self.device)[0])


def vocab_size(config: Any) -> int:
    """Of the text model that a configuration of transformers describes or holds."""
    return config.get_text_config(decoder=True).vocab_size


def tokens_of(rows: Sequence[Sequence[int]], new_tokens: int) -> numpy.ndarray:
    """Generated ids as Engine.generate returns them."""
    tokens = numpy.full((len(rows), new_tokens), -1, dtype=numpy.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens


def converted(engine: str, checkpoint: Path, versions: Any, **request: str) -> Path:
    """The folder with a checkpoint in an engine's format, made once by running the module of the engine (see main).

    versions: of the converting libraries. request: further arguments of the conversion. The name of the folder is a
    digest of all this. Raises CheckpointError, and RefusedError if the library cannot convert the model.
    """
    inputs = [CONVERSION_VERSION, versions, checkpoints.fingerprint(checkpoint), *request.values()]
    return made_once(
        cache_root() / engine / hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16],
        f"inference_benchmark.engines.{engine}",
        {"checkpoint": str(checkpoint), **request},
        f"{engine} could not convert the weights",
    )


def main(engine: str, convert: Callable[..., None]) -> None:
    """Convert, in a process of its own, what its argument says: JSON with the arguments of convert, ``checkpoint`` and
    ``output``, a folder that does not exist, among them. Ends the process as cache.made_once expects."""
    request = json.loads(sys.argv[1])
    print(f"converting {request['checkpoint']} for {engine}", file=sys.stderr)
    try:
        convert(**request)
    except Exception as error:  # converters raise many kinds of errors for unsupported models
        refused = is_refusal(error)
        print(f"{engine} cannot convert this model: {words_of(error)}", file=sys.stdout if refused else sys.stderr)
        sys.exit(REFUSED if refused else 1)
