"""The engines of a grid, variants among them, and problems with them."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from inference_benchmark import engines
from inference_benchmark.engines.options import CACHE_BITS, OPTIONS, chosen
from inference_benchmark.experiment.config_errors import listing, show
from inference_benchmark.models import architecture, families


class GridEngine(NamedTuple):
    """An engine in a grid. where: its place in the configuration. name: its own or that of a variant. engine: its name
    in engines.ENGINES. options: of a variant."""

    where: str
    name: str
    engine: str
    options: Mapping[str, Any]

    @property
    def compiles(self) -> bool:
        return engines.compiles(self.engine, self.options)


def with_names(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a configuration with the names of engines, options' values and precisions that there are."""
    schema = copy.deepcopy(dict(schema))
    variant = schema["properties"]["engines"]["additionalProperties"]["properties"]
    variant["engine"]["enum"] = list(engines.ENGINES)
    for name, option in OPTIONS.items():
        variant[name]["enum"] = list(option.values)
    schema["$defs"]["grid"]["properties"]["precisions"]["items"]["enum"] = list(engines.PRECISIONS)
    return schema


def of_grid(device: str, names: Sequence[str], variants: Mapping[str, Mapping[str, Any]]) -> list[GridEngine]:
    """The engines in the grid of a device, without those that there are not, and variants of such."""
    return [
        GridEngine(f"grid.{device}.engines[{index}]", name, engine, variants.get(name, {}))
        for index, name in enumerate(names)
        if (engine := variants.get(name, {}).get("engine", name)) in engines.ENGINES
    ]


def not_on(device: str, names: Sequence[str], variants: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Engines that do not run on the device, one line each."""
    for where, name, engine, _ in of_grid(device, names, variants):
        devices = engines.ENGINES[engine].devices
        if device not in devices:
            yield f"{where}: {name} runs on {listing(devices)} only; remove it, or name it in grid.{devices[0]}.engines"


def without_precision(device: str, grid: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Precisions that no engine of a grid has, and engines that have none of its precisions, one line each."""
    used = of_grid(device, grid["engines"], variants)
    for index, precision in enumerate(grid["precisions"]):
        is_known = len(used) == len(grid["engines"])  # else an engine has a problem of its own
        if is_known and not any(precision in engines.ENGINES[each.engine].precisions for each in used):
            having = listing(name for name, entry in engines.ENGINES.items() if precision in entry.precisions)
            where = f"grid.{device}.precisions[{index}]"
            yield f"{where}: no engine of the grid has {precision}; remove it, or add an engine that has it: {having}"
    for where, name, engine, _ in used:
        allowed = engines.ENGINES[engine].precisions
        if not set(allowed) & set(grid["precisions"]):
            yield f"{where}: {name} has no precision of the grid; remove it, or add one that it has: {listing(allowed)}"


def problems(name: str, variant: Mapping[str, Any]) -> Iterator[str]:
    """Problems with an entry of ``engines``, one line each."""
    where, engine = f"engines.{name}", variant["engine"]
    if name.lower() in engines.ENGINES:  # some file systems ignore case
        yield f"{where}: {show(name)} is the name of an engine; choose another"
    if not chosen(variant):
        allowed = listing(engines.ENGINES[engine].options) or f"none for {engine}"
        yield f"{where}: chooses no option; allowed: {allowed}"
    for option, problem in engines.option_problems(engine, variant):
        yield f"{where}.{option}: {problem}"


def lacking(used: GridEngine, config: Mapping[str, Any] | None) -> str | None:
    """What a variant chooses and transformers, as installed here, does not have for a model of this configuration; None
    if it has all. config: None if it is not known."""
    if config is None or not engines.ENGINES[used.engine].needs_weights:
        return None
    model_type, attention = config["model_type"], used.options.get("attention")
    if attention and attention not in (has := families.attention(model_type)):
        return f"transformers has no {attention} attention for {model_type}, only {', '.join(has)}"
    if used.options.get("cache") in CACHE_BITS and (limited := architecture.limited_attention(config)):
        return f"transformers has a quantised cache for full attention in all layers, and {model_type} has {limited}"
    return None


def impossible(device: str, used: Sequence[GridEngine], configs: Sequence[Mapping[str, Any] | None]) -> Iterator[str]:
    """Variants that the device or all models do not support, one line each. configs: of the models; None if unknown."""
    for each in used:
        where, name = each.where, each.name
        is_flash = each.options.get("attention") == "flash" and engines.ENGINES[each.engine].needs_weights
        if is_flash and device == "cpu":
            yield f"{where}: {name} needs a GPU for flash attention, and the device is cpu; remove {name}"
        elif is_flash and families.installed() and importlib.util.find_spec("flash_attn") is None:
            yield f"{where}: {name} needs the package flash_attn, which is not installed here; pip install flash-attn"
        reasons = [lacking(each, config) for config in configs]
        if reasons and all(reasons):
            yield f"{where}: {name}: {'; '.join(dict.fromkeys(reasons))}; remove {name}"
