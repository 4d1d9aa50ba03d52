"""transformers' generate with a static cache and compiled decoding: one graph for all steps after prefill."""

from __future__ import annotations

import gc
import inspect
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import CompileConfig, StaticCache

from inference_benchmark.engines import cpu_memory
from inference_benchmark.engines.hf import HfEngine
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.machine import compiler


class HfStaticEngine(HfEngine):
    """generate(past_key_values=StaticCache(...)).

    All calls share one cache, which is emptied before each call, as long as it has the rows and enough positions.
    generate(cache_implementation="static") makes a new one for each call. Two would be in memory then, because
    torch.compile keeps the first in a reference cycle; and CUDA graphs, which are bound to addresses, would be recorded
    again in each call.

    On CUDA transformers compiles decoding by default (CUDA graphs); on the CPU a compile config must request it.
    Without a compiler it runs eagerly. What transformers does not compile is not supported: it would be a slow copy of
    hf.
    """

    promised_cache = "StaticCache"
    has_compiled = False
    cache: StaticCache | None = None
    cache_shape = (0, 0)

    def combination(self, precision: str) -> str:
        return f"a static cache, {super().combination(precision)}"

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        super().start(device, threads, checkpoint)
        self.why_no_compiler = _why_no_compiler(self.device)

    def unsupported(self, precision: str) -> str | None:
        if reason := super().unsupported(precision):
            return reason
        if self.options.get("compile_mode") == "reduce-overhead" and self.device.type == "cpu":
            return "reduce-overhead means CUDA graphs, which a CPU does not have"
        return None

    def load(self, checkpoint: Path, precision: str) -> None:
        super().load(checkpoint, precision)
        arguments = inspect.signature(self.model.forward).parameters
        self.cache_argument = next((name for name in ("past_key_values", "cache_params") if name in arguments), None)
        if self.cache_argument is None:
            raise UnsupportedError(f"{type(self.model).__name__} takes no static cache")
        self.generate_options = {}
        if self.why_no_compiler:
            self.generate_options["disable_compile"] = True
        elif self.device.type == "cpu" or "compile_mode" in self.options:
            compile_config = CompileConfig(mode=self.options.get("compile_mode", "default"))
            compile_config._compile_all_devices = True
            self.generate_options["compile_config"] = compile_config
        if self.growth_limit:
            self.loaded_data_bytes = cpu_memory.data_bytes()

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        graphs = self.compilation()["graphs"]
        tokens, facts = self._observe(prompts, new_tokens)
        self.has_compiled = self.has_compiled or self.compilation()["graphs"] > graphs
        # transformers says nothing where it does not compile. A single token needs no decoding, and no graph.
        if new_tokens > 1 and not (self.has_compiled or self.why_no_compiler):
            raise UnsupportedError(f"transformers compiled nothing; the cache of {self.family} is a {facts['cache']}")
        return tokens, facts

    def _observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        if not self.growth_limit or self.why_no_compiler:
            return super().observe(prompts, new_tokens)
        # This call compiles. On the CPU the limit is for the model only: what the compiler keeps is added to it.
        self.growth_limit.lift()
        try:
            return super().observe(prompts, new_tokens)
        finally:
            super().release()
            self.growth_limit.hold(extra_bytes=max(0, cpu_memory.data_bytes() - self.loaded_data_bytes))

    def compilation(self) -> dict[str, Any]:
        facts = super().compilation()
        if self.why_no_compiler:
            return facts | {"why_not": self.why_no_compiler}
        has_graphs = self.device.type == "cuda" and self.options.get("compile_mode") != "default"
        return facts | (_cuda_graphs() if has_graphs else {})

    def _generate(self, prompts: numpy.ndarray, new_tokens: int, **options: Any):
        rows, prompt_tokens = prompts.shape
        # The last token is chosen, but never put into the cache.
        options[self.cache_argument] = self._empty_cache(rows, prompt_tokens + new_tokens - 1)
        return super()._generate(prompts, new_tokens, **options)

    def _empty_cache(self, rows: int, positions: int) -> StaticCache:
        cached_rows, cached_positions = self.cache_shape
        if self.cache is not None and cached_rows == rows and cached_positions >= positions:
            self.cache.reset()  # zeros all keys and values, as those of a new cache are
        else:
            self.cache = None
            gc.collect()  # frees a cache of another shape before the new one takes memory
            self.cache, self.cache_shape = StaticCache(self.model.config, max_cache_len=positions), (rows, positions)
        return self.cache

    def release(self) -> None:
        self.cache = None
        # Compiled graphs hold buffers of the shape they were compiled for.
        torch._dynamo.reset()
        if self.device.type == "cuda":
            from torch._inductor.cudagraph_trees import reset_cudagraph_trees

            reset_cudagraph_trees()
        super().release()


def _cuda_graphs() -> dict[str, int]:
    """torch's counts in this process. A CUDA graph that it gave up is counted once, and not tried again."""
    from torch._dynamo import utils

    return {
        "cuda_graphs_recorded": len(utils.compilation_time_metrics.get("CUDAGraphNode.record", ())),
        "cuda_graphs_skipped": utils.counters["inductor"]["cudagraph_skips"],
    }


def _why_no_compiler(device: torch.device) -> str | None:
    """Why torch cannot compile for a device here; None if it can."""
    if lacking := compiler.missing(device.type):
        return lacking
    try:
        if device.type == "cuda":
            import triton

            triton.runtime.driver.active.get_current_target()  # compiles and loads its access to the driver
        else:
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()  # runs it
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), "")
        return f"the compiler of {device.type} does not work: {type(error).__name__}: {first_line}"
    return None
