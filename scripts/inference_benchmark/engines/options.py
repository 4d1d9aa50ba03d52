"""Settings of engines that a variant may choose: ``hf-sdpa: {engine: hf, attention: sdpa}`` in config.yaml."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

#: Of an engine that is no variant.
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Option(NamedTuple):
    """A setting that the engine decides unless a variant does. inexact: the values with which answers may differ from
    the reference's by more than rounding."""

    values: tuple[Any, ...]
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
    # Where weights are: on one device, layer by layer or a part of each on several GPUs, or, as far as they do not fit,
    # in host memory or on disk.
    "placement": Option(("one", "layers", "tensor", "cpu-offload", "disk-offload")),
    # GPUs that the model has to itself; no node has more. On a CPU the processes of tensor.
    "gpus": Option(tuple(range(1, 17))),
}


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a variant without its ``engine``."""
    return {name: value for name, value in options.items() if name != "engine"}


def placed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options of a variant that say where its weights are."""
    return {name: options[name] for name in ("placement", "gpus") if name in options}


def gpus_of(options: Mapping[str, Any], device: str = "cuda") -> int:
    """The GPUs that a cell with these options is measured on; on a CPU 1."""
    return options.get("gpus", 1) if device == "cuda" else 1


def is_split(options: Mapping[str, Any]) -> bool:
    """Whether each of several processes has a part of the model; on a CPU, too, as many as it would have GPUs."""
    return options.get("placement") == "tensor"


def offloads(options: Mapping[str, Any]) -> bool:
    """Whether weights that do not fit on the device are kept elsewhere."""
    return options.get("placement", "").endswith("-offload")


def contradictions(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it) of options that do not go together."""
    placement, gpus = options.get("placement", "one"), gpus_of(options)
    if placement == "one" and gpus > 1:
        remedy = "set placement to layers or tensor, or remove gpus"
        yield "gpus", f"{gpus} GPUs need a placement that uses them all; {remedy}"
    if placement in ("layers", "tensor") and gpus == 1:
        what = "layers are spread" if placement == "layers" else "weights are split"
        yield "placement", f"{what} over several GPUs; set gpus to 2 or more"
    if is_split(options) and options.get("cache") in CACHE_BITS:
        yield "cache", "keys and values that are split over GPUs are not quantised; remove cache, or placement"


def not_on_cpu(options: Mapping[str, Any]) -> str | None:
    """Which of the options needs a GPU; None if none does."""
    if gpus_of(options) > 1 and not is_split(options):
        return f"gpus: {gpus_of(options)}"
    placement = options.get("placement")
    return f"placement: {placement}" if placement in ("layers", "cpu-offload") else None


def not_in(options: Mapping[str, Any], precision: str) -> str | None:
    """Why weights in a precision are not placed as the options say; None if they are."""
    if (offloads(options) or is_split(options)) and precision not in ("fp32", "bf16", "fp16"):
        return f"placement {options['placement']} is for weights that are not quantised: fp32, bf16, fp16"
    return None


def is_exact(options: Mapping[str, Any]) -> bool:
    """Whether answers of a variant differ from those of its engine by rounding only."""
    return not any(value in OPTIONS[name].inexact for name, value in chosen(options).items())
