"""transformers' generate with a static cache and compiled decoding: one graph for all steps after prefill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import CompileConfig

from inference_benchmark.engines import cpu_memory
from inference_benchmark.engines.hf import HfEngine


class HfStaticEngine(HfEngine):
    """generate(cache_implementation="static").

    On CUDA transformers compiles decoding by default (CUDA graphs). On the CPU a compile config must request it, and
    torch needs a C++ compiler. Weights quantised by bitsandbytes are not compiled on either.
    """

    why_not_compiled: str | None = None
    has_compiled = False

    def combination(self, precision: str) -> str:
        return f"a static cache, {super().combination(precision)}"

    def load(self, checkpoint: Path, precision: str) -> None:
        super().load(checkpoint, precision)
        self.generate_options = {"cache_implementation": "static"}
        quantiser = getattr(self.model, "hf_quantizer", None)
        if quantiser is not None and not quantiser.is_compileable:
            self.why_not_compiled = f"transformers does not compile {precision} weights of bitsandbytes"
        elif self.device.type == "cpu" and not _has_cpp_compiler():
            self.why_not_compiled = "torch found no C++ compiler"
        elif self.device.type == "cpu":
            compile_config = CompileConfig(mode="default")  # reduce-overhead means CUDA graphs
            compile_config._compile_all_devices = True
            self.generate_options["compile_config"] = compile_config
        if self.why_not_compiled:
            self.generate_options["disable_compile"] = True
        if self.growth_limit:
            self.loaded_data_bytes = cpu_memory.data_bytes()

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        graphs = self.compilation()["graphs"]
        tokens, facts = self._observe(prompts, new_tokens)
        self.has_compiled = self.has_compiled or self.compilation()["graphs"] > graphs
        # transformers says nothing where it does not compile. A single token needs no decoding, and no graph.
        if new_tokens > 1 and not (self.has_compiled or self.why_not_compiled):
            self.why_not_compiled = f"transformers compiled nothing; the cache of {self.family} is a {facts['cache']}"
        return tokens, facts

    def _observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        if not self.growth_limit or self.why_not_compiled:
            return super().observe(prompts, new_tokens)
        # This call compiles. On the CPU the limit applies to the model only, so the memory that the compiler keeps is
        # added to it. The next call must fit into the limit.
        self.growth_limit.lift()
        try:
            return super().observe(prompts, new_tokens)
        finally:
            super().release()
            self.growth_limit.hold(extra_bytes=max(0, cpu_memory.data_bytes() - self.loaded_data_bytes))

    def compilation(self) -> dict[str, Any]:
        facts = super().compilation()
        return facts | ({"why_not": self.why_not_compiled} if self.why_not_compiled else {})

    def release(self) -> None:
        # Compiled graphs hold buffers of the shape they were compiled for.
        torch._dynamo.reset()
        if self.device.type == "cuda":
            from torch._inductor.cudagraph_trees import reset_cudagraph_trees

            reset_cudagraph_trees()
        super().release()


def _has_cpp_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True
