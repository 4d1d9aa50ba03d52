"""config.yaml -> Plan. Every problem is found at once, each in one line for a person."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastjsonschema
import yaml

from inference_benchmark import engines
from inference_benchmark.cli import ProblemsError
from inference_benchmark.experiment import baselines, environments, model_problems
from inference_benchmark.experiment import variants as variant_problems
from inference_benchmark.experiment.cells import Measurement, Workload
from inference_benchmark.experiment.config_errors import clip, explain, guess_text, listing, not_plain, show, where_text
from inference_benchmark.experiment.defaults import with_defaults
from inference_benchmark.experiment.environments import CURRENT, Lock
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.plan import Plan
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.experiment.variants import GridEngine
from inference_benchmark.machine import compiler, hardware, torch_build
from inference_benchmark.models import architecture, families
from inference_benchmark.models.checkpoint import CheckpointError, fingerprint, look_into
from inference_benchmark.units import parse_bytes

if TYPE_CHECKING:
    import jsonschema


#: Settings of measurement that a configuration leaves to the device (null). Processes on a CPU differ by several
#: percent, more than the calls of each: several short rounds say more than one long one. Of three that scatter by 10 %
#: the interval is ±25 %: a shared machine reaches that, and where it does not, something unusual went on. On a GPU a
#: round has room for seven calls of 1.4 s, as a model of a billion parameters takes for 100 tokens: enough for ±1 %
#: where calls scatter by 1 %.
_BY_DEVICE = {
    "cpu": {
        "rounds": 3,
        "warmup_tolerance_percent": 10,
        "target_half_width_percent": 25,
        "min_seconds": 0.8,
        "max_seconds": 0.8,
    },
    "cuda": {
        "rounds": 1,
        "warmup_tolerance_percent": 5,
        "target_half_width_percent": 1,
        "min_seconds": 1,
        "max_seconds": 10,
    },
}

#: How pip is asked for packages that would replace others if they were asked for by name.
_INSTALL = dict.fromkeys(("gptqmodel", "optimum"), "--no-deps -r envs/gptqmodel.lock")


class ConfigError(ProblemsError):
    """A configuration that cannot be used; ``problems`` holds one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(dict.fromkeys(map(clip, problems)))


def has_keys(path: Path) -> bool:
    """Whether a file holds more than comments: Snakemake refuses one that does not. Raises ConfigError for a file on
    which its loader would end in a traceback."""
    try:
        text = path.read_text(encoding="utf-8")
        with suppress(yaml.YAMLError):  # Snakemake reports it
            if unusable := list(not_plain(yaml.load(text, yaml.CSafeLoader))):
                raise ConfigError(unusable)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:  # another encoding, an endless number, a date that is none
        raise ConfigError([f"{path} cannot be read as YAML: {error}"]) from None
    return re.search(r"^[^#\n]*[^#\s]", text, re.MULTILINE) is not None


def load(config: Mapping[str, Any], schema: Mapping[str, Any], files: Sequence[Path] = (), code: Path = Path()) -> Plan:
    """What a configuration describes, with the schema's defaults for what it leaves out.

    files: the YAML files that the configuration was merged from, searched for keys given twice. code: the folder of
    the project, where a baseline is looked for that is not in the working directory. Raises ConfigError with all
    problems.
    """
    problems = [line for path in files for line in _repeated_keys(path)]
    if unusable := list(not_plain(config)):
        raise ConfigError(problems + unusable)
    config = with_defaults(config, schema)
    errors = _schema_errors(config, schema)
    problems += [line for error in errors for line in explain(error, schema)]
    problems += _unusable_paths(code, files) if isinstance(config["machines"], dict) else ()
    problems += _contradictions(config, _Soundness(errors))
    locks = {} if errors else _locks(config, code, problems)
    experiment = None if errors else _resolve(config, code, locks, problems)
    history = () if errors else _history(config, code, problems)
    if problems or experiment is None:
        raise ConfigError(problems)
    machines = config["machines"] or {}
    experiments = [
        replace(experiment, machine=label, device_name=machine["device_name"]) for label, machine in machines.items()
    ]
    watch = config["watch"]
    return Plan(
        experiments=tuple(experiments or [experiment]),
        watch=Supervision(watch["timeout_seconds"], watch["sample_hz"], watch["exclusive"]),
        slurm={label: machine["slurm"] for label, machine in machines.items()},
        locks=tuple(locks.values()),
        history=history,
    )


def _schema_errors(config: Mapping[str, Any], schema: Mapping[str, Any]) -> list[jsonschema.ValidationError]:
    """All that breaks the schema, in the order of the keys."""
    # Each start of Snakemake pays for this: fastjsonschema says yes in a fraction of the time that
    # jsonschema takes to be imported, but names one error only, and takes 1.0 for an integer.
    with suppress(fastjsonschema.JsonSchemaException):
        fastjsonschema.compile(schema, use_default=False)(config)
        if not _holds_whole_float(config):
            return []
    import jsonschema

    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    keywords = {"pattern": _whole_pattern}
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, keywords, type_checker=types)(schema)
    return sorted(validator.iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path])


def _whole_pattern(validator, pattern: str, text: Any, sub: Mapping[str, Any]) -> Iterator[jsonschema.ValidationError]:
    """As fastjsonschema and ECMAScript read a pattern: ``$`` is the end, and not the place before a last line break."""
    import jsonschema

    if isinstance(text, str) and not re.search(pattern.replace("$", r"\Z"), text):
        yield jsonschema.ValidationError(f"{text!r} does not match {pattern!r}")


def _holds_whole_float(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return (isinstance(value, float) and value.is_integer()) or any(map(_holds_whole_float, parts))


def _locks(config: Mapping[str, Any], code: Path, problems: list[str]) -> dict[str, Lock]:
    """The lock files of all environments by name, those that engines have of their own by the engine; problems with
    more lines."""
    files = {name: Path(_in_project(code, path)) for name, path in config["environments"].items()}
    for device, grid in config["grid"].items():
        for each in variant_problems.of_grid(device, grid["engines"], config["engines"]):
            if engines.ENGINES[each.engine].has_environment:
                files[each.engine] = code / "envs" / f"{each.engine}.lock"
    locks = {}
    for name, path in files.items():
        lock, wrong = environments.read(path)
        problems += [f"environments.{name}: {problem}" for problem in wrong]
        if lock:
            locks[name] = lock
    return locks


def _resolve(
    config: Mapping[str, Any], code: Path, locks: Mapping[str, Lock], problems: list[str]
) -> Experiment | None:
    """The experiment on this machine, or on the first of several; None, and problems with more lines, where it
    cannot be."""
    try:
        device, on_gpu = _device(config)
    except hardware.GpuError as error:
        problems.append(f"device: {show(config['device'])}: {error}; to measure on the CPU, set device to cpu")
        return None
    grid = config["grid"][device]
    variants = {name: config["engines"][name] for name in grid["engines"] if name in config["engines"]}
    used = variant_problems.of_grid(device, grid["engines"], variants)
    uses_torch = any(engines.ENGINES[each.engine].needs_weights for each in used)
    elsewhere = [each for each in used if engines.ENGINES[each.engine].has_environment]
    here = [each for each in used if each not in elsewhere]
    is_current = CURRENT in grid["environments"]
    if on_gpu and uses_torch and is_current and (problem := torch_build.problem(torch_build.torch_build())):
        problems.append(f"device: {show(config['device'])}: {problem}")
    models, label = [], config["machine"]
    baseline_paths = _baseline_paths(config, code)
    for name, path in baseline_paths.items():
        problems += [f"baselines.{name}: {problem}" for problem in baselines.check(Path(path))]
    if is_current:
        problems += _missing_packages(device, here, grid["precisions"])
    needed = _needed_packages(here or elsewhere, grid["precisions"])
    for name in (name for name in grid["environments"] if name in locks):
        problems += environments.lacking(name, locks[name], needed)
    if config["machines"] is None:
        problems += _missing_compiler(device, used)
    if config["machines"] is not None:
        label = next(iter(config["machines"]))
    elif label == "auto":
        try:
            label = hardware.label(device)
        except LookupError as error:
            problems.append(f"machine: {show('auto')} cannot be resolved: {error}; name the machine")
    configs = {}
    for name in (name for name in grid["models"] if name in config["models"]):
        model = dict(config["models"][name])
        if "architecture" in model:
            model.setdefault("seed", 0)
        try:
            config_json = model.get("architecture")
            if "checkpoint" in model:
                config_json = look_into(Path(model["checkpoint"]))
                model["fingerprint"] = fingerprint(Path(model["checkpoint"]))
            configs[name] = config_json
            if config_json:
                problems += _too_long(device, grid, name, config_json)
        except CheckpointError as error:
            problems.append(f"models.{name}.checkpoint: {error}")
        models.append({"name": name, **model})
    if is_current:  # what other transformers have is not known before they are installed
        problems += variant_problems.impossible(device, used, list(configs.values()))
    if uses_torch and len(configs) == len(models):  # else one of them could not be read
        problems += _not_together(device, grid["precisions"], configs)
    if problems:
        return None
    named = grid["environments"]
    engine_environments = {each.name: environments.of_engine(each.engine, named, locks) for each in elsewhere}
    for each in (each for each in elsewhere if not engine_environments[each.name]):
        package = engines.ENGINES[each.engine].package
        problems.append(
            f"{each.where}: no environment of the grid has {package}, which {each.name} needs; add {CURRENT}, where it "
            "has an environment of its own"
        )
    return Experiment(
        machine=label,
        device=device,
        models=tuple(models),
        workloads=tuple(Workload(**workload) for workload in grid["workloads"]),
        engines=tuple(grid["engines"]),
        precisions=tuple(grid["precisions"]),
        batch_sizes=tuple(grid["batch_sizes"]),
        memory_limit_bytes=parse_bytes(grid["memory_limit"]),
        max_batch=grid["max_batch"],
        max_batch_tolerance_percent=grid["max_batch_tolerance_percent"],
        divergence=grid["divergence"],
        timeline=tuple(grid["timeline"]),
        timeline_trace=grid["timeline_trace"],
        **_how_often(config["measurement"], device),
        mixed_provenance=config["mixed_provenance"],
        baselines=baseline_paths,
        variants=variants,
        environments=() if named == [CURRENT] else tuple(environments.of_cell(name, locks) for name in named),
        engine_environments=engine_environments,
    )


def _how_often(settings: Mapping[str, Any], device: str) -> dict[str, Any]:
    """The measurement of each round, and the number of rounds."""
    suits, least, most = dict(_BY_DEVICE[device]), settings["min_seconds"], settings["max_seconds"]
    if least is not None:
        suits["max_seconds"] = max(least, suits["max_seconds"])
    if most is not None:
        suits["min_seconds"] = min(most, suits["min_seconds"])
    each_round = {name: suits.get(name) if value is None else value for name, value in settings.items()}
    return {"rounds": each_round.pop("rounds"), "measurement": Measurement(**each_round)}


def _device(config: Mapping[str, Any]) -> tuple[str, bool]:
    """The device to measure on, and whether it is a GPU of this machine. Raises hardware.GpuError."""
    if config["device"] == "auto":
        device = hardware.detect_device()
        return device, device == "cuda"
    is_here = config["machines"] is None  # else jobs run elsewhere
    return config["device"], config["device"] == "cuda" and is_here and bool(
        hardware.visible(hardware.gpus(), os.environ)
    )


def _baseline_paths(config: Mapping[str, Any], code: Path) -> dict[str, str]:
    """The baselines that are not switched off by a null; each in the working directory, else in the project."""
    paths = {name: path for name, path in config["baselines"].items() if path is not None}
    return {name: _in_project(code, path) for name, path in paths.items()}


def _history(config: Mapping[str, Any], code: Path, problems: list[str]) -> tuple[str, ...]:
    """The results of earlier runs, looked for like baselines; problems with more lines."""
    paths = tuple(_in_project(code, path) for path in config["history"])
    for index, path in enumerate(map(Path, paths)):
        found = baselines.check(path)
        is_dated = path.name == "summary.csv" and path.with_name("provenance.json").exists()
        if not found and path.is_file() and not is_dated:
            found = [f"{path} is no summary.csv with a provenance.json beside it, so its date is unknown; keep both"]
        problems += [f"history[{index}]: {problem}" for problem in found]
    return paths


def _in_project(code: Path, path: str) -> str:
    """A path in the working directory, else in the project."""
    # os.path, because Path.exists raises OSError for a name that is too long.
    return str(code / path) if not os.path.exists(path) and os.path.exists(code / path) else path


# -- what a schema cannot say ------------------------------------------------------------------


@dataclass(frozen=True)
class _Soundness:
    """Which parts of a configuration can be looked into further, in spite of its errors."""

    errors: Sequence[jsonschema.ValidationError]

    def kind(self, *where: str) -> bool:
        """Whether a part and all parts around it are of the right type."""
        return not any(
            error.validator == "type" and (path := tuple(error.absolute_path)) == where[: len(path)]
            for error in self.errors
        )

    def whole(self, *where: str) -> bool:
        """Whether, in addition, no error is within it."""
        return self.kind(*where) and not any(tuple(error.absolute_path)[: len(where)] == where for error in self.errors)


def _contradictions(config: Mapping[str, Any], sound: _Soundness) -> Iterator[str]:
    if sound.whole("machines") and config["machines"] is not None:
        yield from _machine_problems(config)
    models = config["models"] if sound.kind("models") else {}
    for name, model in models.items():
        if sound.whole("models", name):
            yield from model_problems.problems(f"models.{name}", model)
    variants = config["engines"] if sound.kind("engines") else {}
    for name, variant in variants.items():
        if sound.whole("engines", name):
            yield from variant_problems.problems(name, variant)
    if sound.whole("environments") and sound.whole("grid"):
        yield from environments.contradictions(config)
    if sound.whole("measurement", "min_seconds") and sound.whole("measurement", "max_seconds"):
        least, most = config["measurement"]["min_seconds"], config["measurement"]["max_seconds"]
        if None not in (least, most) and most < least:
            yield f"measurement.max_seconds: {show(most)} is less than min_seconds; allowed: {show(least)} or more"
    for device in ("cuda", "cpu"):
        if not sound.whole("grid", device):
            continue
        grid = config["grid"][device]
        for index, name in enumerate(grid["models"]):
            if models and name not in models:
                where = f"grid.{device}.models[{index}]"
                yield f"{where}: {show(name)} is not under models; allowed: {listing(models)}{guess_text(name, models)}"
        yield from variant_problems.unknown(device, grid["engines"], variants)
        yield from variant_problems.not_on(device, grid["engines"], variants)
        for index, size in enumerate(grid["timeline"]):
            if size not in grid["batch_sizes"]:
                where, sizes = f"grid.{device}.timeline[{index}]", ", ".join(map(str, grid["batch_sizes"]))
                yield f"{where}: {size} is not among batch_sizes; allowed: {sizes}"
        try:
            parse_bytes(grid["memory_limit"])
        except ValueError as error:
            yield f"grid.{device}.memory_limit: {error}"
        if device == "cpu" and grid["max_batch"] and grid["memory_limit"] is None:
            yield (
                "grid.cpu.max_batch: true needs a memory_limit on a CPU, or the search would fill the memory of the "
                "whole machine; set grid.cpu.memory_limit, or max_batch to false"
            )


def _machine_problems(config: Mapping[str, Any]) -> Iterator[str]:
    if config["machine"] != "auto":
        label = show(config["machine"])
        yield f"machine: {label} cannot be combined with machines; set machine to auto, or machines to null"
    if config["device"] == "auto":
        yield "device: auto depends on the machine that runs Snakemake; with machines, set cuda or cpu"
    folders = Counter(label.lower() for label in config["machines"])
    for label in (label for label in config["machines"] if folders[label.lower()] > 1):
        yield f"machines.{label}: the same folder as another one where file systems ignore capitals; rename it"
    for label, machine in config["machines"].items():
        if machine["slurm"]["gres"] and machine["slurm"]["gpu_model"]:
            yield f"machines.{label}.slurm: has gres and gpu_model, which ask for a GPU each; set one of them to null"


def _unusable_paths(code: Path, files: Sequence[Path]) -> Iterator[str]:
    """Snakemake puts these between single quotes in the command of a job, and does not look inside."""
    for path in dict.fromkeys((Path.cwd(), code.absolute(), *files)):
        if "'" in str(path):
            yield f"machines: the path {path} cannot be handed to a job, for the ' in it; rename or move it"


def _missing_packages(device: str, used: Sequence[GridEngine], precisions: Sequence[str]) -> Iterator[str]:
    if not families.names():  # what measures is not installed here at all: jobs run elsewhere
        return
    missing = [(each.where, each.name, engines.missing_package(each.engine, options=each.options)) for each in used]
    complete = [each.engine for each in used if engines.missing_package(each.engine) is None]
    for index, precision in enumerate(precisions):
        where = f"grid.{device}.precisions[{index}]"
        missing += [(where, precision, engines.missing_package(engine, precision)) for engine in complete]
    for where, name, package in dict.fromkeys(missing):
        if package:
            install = f"pip install {_INSTALL.get(package, package)}"
            yield f"{where}: {name} needs the package {package}, which is not installed here; {install}"


def _not_together(
    device: str, precisions: Sequence[str], configs: Mapping[str, Mapping[str, Any] | None]
) -> Iterator[str]:
    """Models that the grid has no precision for, and precisions that it has no model for.

    configs: of the models, by name; None where it is not known yet. A precision that only some of the models have is
    n/a for the others.
    """
    reasons = {
        (name, precision): config and architecture.not_in(config, precision)
        for name, config in configs.items()
        for precision in precisions
    }
    where = f"grid.{device}.precisions"
    lacking = [name for name in configs if all(reasons[name, precision] for precision in precisions)]
    for name in lacking:
        others = [precision for precision in engines.PRECISIONS if precision not in architecture.QUANTISED]
        allowed = architecture.quantisation(configs[name]) or listing(others)
        yield f"{where}: none is possible for model {name}: {reasons[name, precisions[0]]}; allowed: {allowed}"
    for index, precision in enumerate(() if lacking else precisions):
        if configs and all(reasons[name, precision] for name in configs):
            why = "; ".join(f"{name}: {reasons[name, precision]}" for name in configs)
            yield f"{where}[{index}]: no model of the grid can be {precision} ({why}); remove it"


def _needed_packages(used: Sequence[GridEngine], precisions: Sequence[str]) -> dict[str, str]:
    """The packages that an environment has to name, each with what needs it."""
    needed: dict[str, str] = {}
    for _, name, engine, options in used:
        if engines.ENGINES[engine].needs_weights:
            needed = {**dict.fromkeys(environments.LIBRARIES, name), **needed}
        for precision in precisions:
            for package, what in engines.needed_packages(engine, precision, options).items():
                needed.setdefault(package, name if what == engine else f"{what} in {name}")
    return needed


def _missing_compiler(device: str, used: Sequence[GridEngine]) -> Iterator[str]:
    """Where cells are measured elsewhere, a compiler that is missing here says nothing."""
    compiling = [each for each in used if each.compiles]
    lacking = compiler.missing(device) if compiling else None
    if lacking is None or not families.installed() or (device == "cuda" and hardware.detect_device() == "cpu"):
        return
    for each in compiling:
        yield f"{each.where}: {each.name} compiles the model, and {lacking}, or remove {each.name}"


def _too_long(device: str, grid: Mapping[str, Any], name: str, config_json: Mapping[str, Any]) -> Iterator[str]:
    room = architecture.size(config_json, "max_position_embeddings")
    for index, workload in enumerate(grid["workloads"] if room else ()):
        length = workload["prompt_tokens"] + workload["new_tokens"]
        if length > room:
            where = f"grid.{device}.workloads[{index}]"
            yield f"{where}: prompt and new tokens make {length} positions; model {name} has {room}"


def _repeated_keys(path: Path) -> Iterator[str]:
    """Keys that a YAML file gives twice: the loader would silently keep the last."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except yaml.YAMLError:  # JSON that is no YAML: with tabs
        return
    rest, seen = [((), root)], set()
    while rest:
        where, node = rest.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            entries = [(key.value, key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
            counts = Counter(name for name, _, _ in entries)
            for name in (name for name, n in counts.items() if n > 1):
                lines = [key.start_mark.line + 1 for each, key, _ in entries if each == name]
                at = where_text([*where, name])
                yield f"{at}: given {counts[name]} times ({path} lines {listing(lines)}); keep one"
            rest += [((*where, name), value) for name, _, value in reversed(entries)]
        elif isinstance(node, yaml.SequenceNode):
            rest += [((*where, index), item) for index, item in reversed([*enumerate(node.value)])]
