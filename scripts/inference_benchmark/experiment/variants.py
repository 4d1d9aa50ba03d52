"""The engines of a grid, variants among them, and problems with them."""

import copy
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from inference_benchmark import engines
from inference_benchmark.engines.options import CACHE_BITS, OPTIONS, chosen, gpus_of, is_split, not_on_cpu
from inference_benchmark.experiment.config_errors import guess_text, listing, show, where_text
from inference_benchmark.models import architecture, families


class GridEngine(NamedTuple):
    """An engine in a grid. where: its place in the configuration. name: its own or that of a variant. engine: its name
    in engines.ENGINES. options: of a variant. precisions: that the grid has for it."""

    where: str
    name: str
    engine: str
    options: Mapping[str, Any]
    precisions: Sequence[str]

    @property
    def compiles(self) -> bool:
        return engines.compiles(self.engine, self.options)


#: A precision in a grid: its place in the configuration, its name, and the engines that it is for.
GridPrecision = tuple[str, str, Sequence[str]]


def with_names(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a configuration with the names of engines, options' values and precisions that there are."""
    schema = copy.deepcopy(dict(schema))
    variant = schema["properties"]["engines"]["additionalProperties"]["properties"]
    variant["engine"]["enum"] = list(engines.ENGINES)
    for name, option in OPTIONS.items():
        variant[name]["enum"] = list(option.values)
    precisions = schema["$defs"]["grid"]["properties"]["precisions"]
    precisions["items"]["enum"] = precisions["additionalProperties"]["items"]["enum"] = list(engines.PRECISIONS)
    return schema


def of_grid(device: str, grid: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> list[GridEngine]:
    """The engines in the grid of a device, without those that there are not, and variants of such."""
    found, listed = [], precisions_of(device, grid)
    for index, name in enumerate(grid["engines"]):
        variant = variants.get(name, {})
        if (engine := variant.get("engine", name)) in engines.ENGINES:
            precisions = [precision for _, precision, names in listed if name in names]
            found.append(GridEngine(f"grid.{device}.engines[{index}]", name, engine, variant, precisions))
    return found


def precisions_of(device: str, grid: Mapping[str, Any]) -> list[GridPrecision]:
    """Each precision in the grid of a device, engine by engine where each has its own."""
    where, given = f"grid.{device}.precisions", grid["precisions"]
    if not isinstance(given, Mapping):
        return [(f"{where}[{index}]", precision, grid["engines"]) for index, precision in enumerate(given)]
    lists = ((name, given.get(name, ())) for name in grid["engines"])
    return [(f"{where}.{name}[{index}]", each, [name]) for name, of in lists for index, each in enumerate(of)]


def not_on(device: str, grid: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Engines that do not run on the device, one line each."""
    for each in of_grid(device, grid, variants):
        devices = engines.ENGINES[each.engine].devices
        if device not in devices:
            remedy = f"remove it, or name it in grid.{devices[0]}.engines"
            yield f"{each.where}: {each.name} runs on {listing(devices)} only; {remedy}"


def not_placed(device: str, grid: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Variants of the grid of a CPU that need GPUs, one line each."""
    for each in of_grid(device, grid, variants) if device == "cpu" else ():
        if option := not_on_cpu(each.options):
            remedy = "remove it, or name it in grid.cuda.engines"
            yield f"{each.where}: {each.name} has {option}, which needs a GPU; {remedy}"


def without_precision(device: str, grid: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Engines that have no precision of a grid, or no list where each has its own, and precisions that no engine has,
    one line each."""
    used = {each.name: each for each in of_grid(device, grid, variants)}
    allowed = {name: engines.ENGINES[each.engine].precisions for name, each in used.items()}
    if isinstance(lists := grid["precisions"], Mapping):
        unknown = [name for name in lists if name not in grid["engines"]]
        for name in unknown:
            among = f"{listing(grid['engines'])}{guess_text(name, grid['engines'])}"
            yield f"{where_text(['grid', device, 'precisions', name])}: is no engine of the grid; allowed: {among}"
        for name in (name for name in used if name not in lists and not unknown):
            yield f"grid.{device}.precisions.{name}: missing; allowed: a list of {listing(allowed[name])}"
    for where, precision, names in precisions_of(device, grid):
        is_known = used.keys() >= set(names)  # else an engine has a problem of its own
        if is_known and not any(precision in allowed[name] for name in names):
            having = listing(name for name, entry in engines.ENGINES.items() if precision in entry.precisions)
            none = "no engine of the grid has" if names == grid["engines"] else f"{names[0]} does not have"
            yield f"{where}: {none} {precision}; remove it, or add an engine that has it: {having}"
    for name, each in used.items():
        if not isinstance(lists, Mapping) and not set(allowed[name]) & set(lists):
            remedy = f"remove it, or add one that it has: {listing(allowed[name])}"
            yield f"{each.where}: {name} has no precision of the grid; {remedy}"


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
    if is_split(used.options) and not families.has_tensor_plan(model_type):
        return f"transformers has no plan of tensor parallelism for {model_type}"
    if attention and attention not in (has := families.attention(model_type)):
        return f"transformers has no {attention} attention for {model_type}, only {', '.join(has)}"
    if used.options.get("cache") in CACHE_BITS and (limited := architecture.limited_attention(config)):
        return f"transformers has a quantised cache for full attention in all layers, and {model_type} has {limited}"
    return None


def too_few_gpus(used: Sequence[GridEngine], visible: int) -> Iterator[str]:
    """Variants that need more GPUs than are visible on this machine, one line each."""
    for each in used:
        if (gpus := gpus_of(each.options)) > visible:
            are = "is" if visible == 1 else "are"
            yield f"{each.where}: {each.name} needs {gpus} GPUs, and {visible} {are} visible here; remove {each.name}"


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
