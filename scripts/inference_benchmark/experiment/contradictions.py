"""What a configuration says that a schema cannot forbid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_benchmark.engines import ENGINES
from inference_benchmark.experiment import environments, model_problems
from inference_benchmark.experiment import variants as variant_problems
from inference_benchmark.experiment.config_errors import show, unknown_names
from inference_benchmark.results.column import TEXT, workload_name
from inference_benchmark.units import parse_bytes

if TYPE_CHECKING:
    import jsonschema


@dataclass(frozen=True)
class Soundness:
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


def contradictions(config: Mapping[str, Any], sound: Soundness) -> Iterator[str]:
    if sound.whole("machines") and config["machines"] is not None:
        yield from _machine_problems(config)
    models, variants = (config[key] if sound.kind(key) else {} for key in ("models", "engines"))
    for name in (name for name in models if sound.whole("models", name)):
        yield from model_problems.problems(f"models.{name}", models[name])
    sound_variants = {name: variant for name, variant in variants.items() if sound.whole("engines", name)}
    for name, variant in sound_variants.items():
        yield from variant_problems.problems(name, variant)
    if sound.whole("environments") and sound.whole("grid"):
        yield from environments.contradictions(config)
    if sound.whole("measurement", "min_seconds") and sound.whole("measurement", "max_seconds"):
        least, most = config["measurement"]["min_seconds"], config["measurement"]["max_seconds"]
        if None not in (least, most) and most < least:
            yield f"measurement.max_seconds: {show(most)} is less than min_seconds; allowed: {show(least)} or more"
    if sound.whole("measurement", "rounds") and isinstance(rounds := config["measurement"]["rounds"], Mapping):
        least, most = rounds["least"], rounds["most"]
        if most < least:
            yield f"measurement.rounds.most: {show(most)} is less than least; allowed: {show(least)} or more"
    for device in ("cuda", "cpu"):
        if not sound.whole("grid", device):
            continue
        grid = config["grid"][device]
        if models:
            yield from unknown_names(f"grid.{device}.models", grid["models"], models, "under models")
        yield from unknown_names(f"grid.{device}.engines", grid["engines"], [*ENGINES, *variants])
        yield from variant_problems.not_on(device, grid, sound_variants)
        yield from variant_problems.not_placed(device, grid, sound_variants)
        yield from variant_problems.without_precision(device, grid, sound_variants)
        yield from _workload_problems(f"grid.{device}.workloads", grid["workloads"])
        for index, size in enumerate(grid["timeline"]):
            if size not in grid["batch_sizes"]:
                sizes = ", ".join(map(str, grid["batch_sizes"]))
                yield f"grid.{device}.timeline[{index}]: {size} is not among batch_sizes; allowed: {sizes}"
        try:
            parse_bytes(grid["memory_limit"])
        except ValueError as error:
            yield f"grid.{device}.memory_limit: {error}"
        if device == "cpu" and grid["max_batch"] and grid["memory_limit"] is None:
            yield (
                "grid.cpu.max_batch: true needs a memory_limit on a CPU, or the search would fill the memory of the "
                "whole machine; set grid.cpu.memory_limit, or max_batch to false"
            )


def _workload_problems(where: str, workloads: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for index, workload in enumerate(workloads):
        prompts = TEXT if workload.get("prompts") == TEXT else ""
        name = workload_name(workload["prompt_tokens"], workload["new_tokens"], prompts)
        if "text" in workload and not prompts:
            yield f"{where}[{index}].text: has no use without prompts: {TEXT}; add that, or remove it"
        if name in seen:
            yield f"{where}[{index}]: has the name of {where}[{seen[name]}], {name}; remove one of them"
        seen.setdefault(name, index)


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


def unusable_paths(code: Path, files: Sequence[Path]) -> Iterator[str]:
    """Snakemake puts these between single quotes in the command of a job, and does not look inside."""
    for path in dict.fromkeys((Path.cwd(), code.absolute(), *files)):
        if "'" in str(path):
            yield f"machines: the path {path} cannot be handed to a job, for the ' in it; rename or move it"
