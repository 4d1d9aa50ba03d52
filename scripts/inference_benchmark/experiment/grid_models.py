"""The models of a grid: their configurations and checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.experiment import baselines
from inference_benchmark.models import architecture
from inference_benchmark.models.checkpoint import Checkpoint, CheckpointError, fingerprint, look_into, weights_files


def models_of_grid(
    config: Mapping[str, Any], device: str, machines: Sequence[str], are_loaded: bool, problems: list[str]
) -> tuple[list[dict[str, Any]], dict[str, Any], list[Checkpoint]]:
    """(the models of the grid as in Cell.model, their transformers configurations by name, the checkpoints among them).
    A configuration is None if it is on the hub, or gone with its weights, and missing if it could not be read.
    are_loaded: whether an engine loads their weights here."""
    grid = config["grid"][device]
    models, configs, checkpoints = [], {}, []
    for name in (name for name in grid["models"] if name in config["models"]):
        model = {"name": name, **config["models"][name]}
        if "architecture" in model:
            model.setdefault("seed", 0)
        models.append(model)
        config_json = model.get("architecture")
        try:
            if "checkpoint" in model:
                folder = Path(os.path.expanduser(model.pop("checkpoint")))
                found, config_json = _checkpoint(folder, name, machines, are_loaded)
                checkpoints.append(found)
                model["fingerprint"] = found.fingerprint
            configs[name] = config_json
            if config_json:
                problems += _too_long(device, grid, name, config_json)
        except CheckpointError as error:
            problems.append(f"models.{name}.checkpoint: {error}")
    return models, configs, checkpoints


def _checkpoint(
    folder: Path, name: str, machines: Sequence[str], is_loaded: bool
) -> tuple[Checkpoint, dict[str, Any] | None]:
    """The checkpoint in a folder, with its config.json. If its weights are gone, it is that of the newest record of the
    model: they are needed to measure, not to read records. Raises CheckpointError."""
    whole = Path(os.path.abspath(folder))
    try:
        config_json = look_into(folder, is_loaded)
        return Checkpoint(fingerprint(folder), whole), config_json
    except CheckpointError as error:
        known = None if weights_files(folder) else _measured_fingerprint(name, machines)
        if known is None:
            raise
        return Checkpoint(known, whole, f"models.{name}.checkpoint: {error}"), None


def _measured_fingerprint(name: str, machines: Sequence[str]) -> str | None:
    """The fingerprint of a model's weights in the newest of its records."""
    found = {}
    for path in (path for machine in machines for path in baselines.records_below(Path("results", machine))):
        if name in path.parts:
            with suppress(OSError, ValueError, LookupError, TypeError):
                record = files.read_json(path)
                if (model := record["cell"]["model"])["name"] == name:
                    found[str(record["ended_at"])] = str(model["fingerprint"])
    return found[max(found)] if found else None


def _too_long(device: str, grid: Mapping[str, Any], name: str, config_json: Mapping[str, Any]) -> Iterator[str]:
    for index, workload in enumerate(grid["workloads"]):
        if reason := architecture.too_long(config_json, workload["prompt_tokens"], workload["new_tokens"]):
            yield f"grid.{device}.workloads[{index}]: too long for model {name}: {reason}"
