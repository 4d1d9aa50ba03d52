"""Settings of engines that a variant may choose: ``hf-sdpa: {engine: hf, attention: sdpa}`` in config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

#: Of an engine that is no variant.
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Option(NamedTuple):
    """A setting that the engine decides unless a variant does. inexact: the values with which answers may differ from
    the reference's by more than rounding."""

    values: tuple[str, ...]
    inexact: tuple[str, ...] = ()


#: The bits in which each quantised cache stores a key or a value.
CACHE_BITS = {"quantized-8bit": 8, "quantized-4bit": 4, "quantized-2bit": 2}
OPTIONS: Mapping[str, Option] = {
    # The kernels of attention; transformers chooses sdpa where the family has it, else eager.
    "attention": Option(("eager", "sdpa", "flex", "flash")),
    # Where keys and values are kept, and as what.
    "cache": Option(("dynamic", "static", *CACHE_BITS), tuple(CACHE_BITS)),
    # How vLLM runs a model: compiled, on CUDA with CUDA graphs, or by its kernels one after the other (enforce_eager).
    "execution": Option(("compiled", "eager")),
    # torch.compile's mode of the decoding step. reduce-overhead, the one that transformers chooses, means CUDA graphs.
    "compile_mode": Option(("default", "reduce-overhead", "max-autotune")),
    # torch.set_float32_matmul_precision: high is TF32 on CUDA; medium is bf16 inside.
    "matmul_precision": Option(("highest", "high", "medium"), inexact=("high", "medium")),
}


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a variant without its ``engine``."""
    return {name: value for name, value in options.items() if name != "engine"}


def is_exact(options: Mapping[str, Any]) -> bool:
    """Whether answers of a variant differ from those of its engine by rounding only."""
    return not any(value in OPTIONS[name].inexact for name, value in chosen(options).items())
