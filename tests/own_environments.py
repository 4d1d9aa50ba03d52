"""Engines in the environments that they have of their own, made from their locks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optional_packages
from made_up import MODELS, make_cell
from real_engines import FORMS, weights
from running import REPO, measure_cli, planned_environment, read_record

from inference_benchmark.experiment.cells import Cell
from inference_benchmark.machine import interpreter
from inference_benchmark.measure.environments import ensure
from inference_benchmark.measure.outcome import MeasurementError


@contextmanager
def made(engine: str, lock: str, folder: Path) -> Iterator[dict[str, str]]:
    """As a cell has it. folder: the working directory of jobs."""
    optional_packages.check_wanted(lock)
    with planned_environment(engine, REPO / "envs" / lock, folder) as planned:
        try:
            ensure(planned["name"], planned["lock"])
        except MeasurementError as error:
            optional_packages.cannot_be_installed(lock, str(error))
        yield planned


def beside_hf(environment: dict[str, str], **request: Any) -> dict[str, dict[str, Any]]:
    """What tests/beside_hf.py finds."""
    python = str(ensure(environment["name"], environment["lock"]))
    folders = {family: str(weights(family)) for family in MODELS}
    command = [python, str(REPO / "tests/beside_hf.py"), environment["name"]]
    command.append(json.dumps({"folders": folders, "forms": FORMS, **request}))
    done = subprocess.run(command, capture_output=True, text=True, env=interpreter.child_environment(python))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def cell_of(environment: dict[str, str], family: str = "bloom", **changes: Any) -> Cell:
    model = {"name": family, "architecture": MODELS[family], "seed": 0}
    return make_cell(**{"engine": environment["name"], "environment": environment, "model": model, **changes})


def measured(cell: Cell) -> dict[str, Any]:
    done = measure_cli(cell, Path(cell.path))
    assert done.returncode == 0, done.stderr
    return read_record(Path(cell.path), cell)
