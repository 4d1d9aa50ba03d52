"""config.yaml -> Plan. Every problem is found at once, each in one line for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastjsonschema
import yaml

from inference_benchmark import engines
from inference_benchmark.cli import ProblemsError
from inference_benchmark.experiment import baselines, model_problems
from inference_benchmark.experiment.cells import Experiment, Measurement, Watch, Workload
from inference_benchmark.experiment.config_errors import explain, guess_text, listing, show, where_text
from inference_benchmark.experiment.defaults import with_defaults
from inference_benchmark.experiment.plan import Plan
from inference_benchmark.machine import hardware
from inference_benchmark.models import architecture, families
from inference_benchmark.models.checkpoint import CheckpointError, fingerprint, read_config
from inference_benchmark.units import parse_bytes

if TYPE_CHECKING:
    import jsonschema


class ConfigError(ProblemsError):
    """A configuration that cannot be used; ``problems`` holds one line each."""


def load(config: Mapping[str, Any], schema: Mapping[str, Any], files: Sequence[Path] = (), code: Path = Path()) -> Plan:
    """What a configuration describes, with the schema's defaults for what it leaves out.

    files: the YAML files that the configuration was merged from, searched for keys given twice. code: the folder of
    the project, where a baseline is looked for that is not in the working directory. Raises ConfigError with all
    problems.
    """
    config = with_defaults(config, schema)
    errors = _schema_errors(config, schema)
    broken = {tuple(error.absolute_path)[:2] for error in errors}  # sections that cannot be looked into further
    problems = [line for path in files for line in _repeated_keys(path)]
    problems += [line for error in errors for line in explain(error, schema)]
    problems += _unusable_paths(code, files) if isinstance(config["machines"], dict) else ()
    problems += _contradictions(config, lambda *where: not any(b and b == where[: len(b)] for b in broken))
    experiment = None if errors else _resolve(config, code, problems)
    if problems or experiment is None:
        raise ConfigError(dict.fromkeys(problems))
    machines = config["machines"] or {}
    experiments = [
        replace(experiment, machine=label, device_name=machine["device_name"]) for label, machine in machines.items()
    ]
    watch = config["watch"]
    return Plan(
        experiments=tuple(experiments or [experiment]),
        watch=Watch(timeout_s=watch["timeout_seconds"], sample_hz=watch["sample_hz"], exclusive=watch["exclusive"]),
        slurm={label: machine["slurm"] for label, machine in machines.items()},
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
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=types)(schema)
    return sorted(validator.iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path])


def _holds_whole_float(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return (isinstance(value, float) and value.is_integer()) or any(map(_holds_whole_float, parts))


def _resolve(config: Mapping[str, Any], code: Path, problems: list[str]) -> Experiment | None:
    """The experiment on this machine, or on the first of several; None, and problems with more lines, where it
    cannot be."""
    device = hardware.detect_device() if config["device"] == "auto" else config["device"]
    grid = config["grid"][device]
    models, label = [], config["machine"]
    baseline_paths = _baseline_paths(config, code)
    for name, path in baseline_paths.items():
        problems += [f"baselines.{name}: {problem}" for problem in baselines.check(Path(path))]
    problems += _missing_packages(device, grid)
    if config["machines"] is not None:
        label = next(iter(config["machines"]))
    elif label == "auto":
        try:
            label = hardware.label(device)
        except LookupError as error:
            problems.append(f"machine: {show('auto')} cannot be resolved: {error}; name the machine")
    for name in (name for name in grid["models"] if name in config["models"]):
        model = dict(config["models"][name])
        if "architecture" in model:
            model.setdefault("seed", 0)
        try:
            config_json = model.get("architecture")
            if "checkpoint" in model:
                config_json = read_config(Path(model["checkpoint"]))
                model["fingerprint"] = fingerprint(Path(model["checkpoint"]))
            if config_json:
                problems += _too_long(device, grid, name, config_json)
        except CheckpointError as error:
            problems.append(f"models.{name}.checkpoint: {error}")
        models.append({"name": name, **model})
    if problems:
        return None
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
        divergence=grid["divergence"],
        measurement=Measurement(**config["measurement"]),
        mixed_provenance=config["mixed_provenance"],
        baselines=baseline_paths,
    )


def _baseline_paths(config: Mapping[str, Any], code: Path) -> dict[str, str]:
    """The baselines that are not switched off by a null; each in the working directory, else in the project."""
    paths = {name: path for name, path in config["baselines"].items() if path is not None}
    return {
        name: str(code / path) if not Path(path).exists() and (code / path).exists() else path
        for name, path in paths.items()
    }


# -- what a schema cannot say ------------------------------------------------------------------


def _contradictions(config: Mapping[str, Any], is_sound) -> Iterator[str]:
    if is_sound("machines") and config["machines"] is not None:
        yield from _machine_problems(config)
    models = config["models"] if is_sound("models") else {}
    for name, model in models.items():
        if is_sound("models", name):
            yield from model_problems.problems(f"models.{name}", model)
    if is_sound("measurement"):
        least, most = config["measurement"]["min_seconds"], config["measurement"]["max_seconds"]
        if most < least:
            yield f"measurement.max_seconds: {show(most)} is less than min_seconds; allowed: {show(least)} or more"
    for device, grid in config["grid"].items() if is_sound("grid") else ():
        if not is_sound("grid", device):
            continue
        for index, name in enumerate(grid["models"]):
            if models and name not in models:
                where = f"grid.{device}.models[{index}]"
                yield f"{where}: {show(name)} is not under models; allowed: {listing(models)}{guess_text(name, models)}"
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


def _missing_packages(device: str, grid: Mapping[str, Any]) -> Iterator[str]:
    if not families.names():  # what measures is not installed here at all: jobs run elsewhere
        return
    for index, engine in enumerate(grid["engines"]):
        if package := engines.missing_package(engine):
            where = f"grid.{device}.engines[{index}]"
            yield f"{where}: {engine} needs the package {package}, which is not installed here; pip install {package}"


def _too_long(device: str, grid: Mapping[str, Any], name: str, config_json: Mapping[str, Any]) -> Iterator[str]:
    room = architecture.size(config_json, "max_position_embeddings") if "model_type" in config_json else None
    for index, workload in enumerate(grid["workloads"] if room else ()):
        length = workload["prompt_tokens"] + workload["new_tokens"]
        if length > room:
            where = f"grid.{device}.workloads[{index}]"
            yield f"{where}: prompt and new tokens make {length} positions; model {name} has {room}"


def _repeated_keys(path: Path) -> Iterator[str]:
    """Keys that a YAML file gives twice: the loader would silently keep the last."""

    def walk(node: yaml.Node, where: list[Any]) -> Iterator[str]:
        if isinstance(node, yaml.MappingNode):
            counts = Counter(key.value for key, _ in node.value)
            for key in (key for key, n in counts.items() if n > 1):
                lines = [k.start_mark.line + 1 for k, _ in node.value if k.value == key]
                at = where_text([*where, key])
                yield f"{at}: given {counts[key]} times ({path} lines {listing(lines)}); keep one"
            for key, value in node.value:
                yield from walk(value, [*where, key.value])
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                yield from walk(item, [*where, index])

    root = yaml.compose(path.read_text(), Loader=yaml.CSafeLoader)
    if root is not None:
        yield from walk(root, [])
