"""Engines in the environments that they have of their own, made from their locks, and what all of them are held to."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import optional_packages
import pytest
import readers
from made_up import MODELS, make_cell, measurement
from preloaded import HANGS_S
from real_engines import FORMS, weights
from remade import remade, without
from running import (
    NOTHING,
    REPO,
    SUMMARY,
    TABLES,
    Workspace,
    drawn,
    measure_cli,
    noted,
    planned_environment,
    read_record,
    run_study,
    script,
    wait_for,
    worker_of,
)

from inference_benchmark.analysis import quality
from inference_benchmark.analysis.timeline import Timeline
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import ColumnStudy, TimelineStudy
from inference_benchmark.machine import cgroups, interpreter
from inference_benchmark.measure.environments import ensure, folder_of
from inference_benchmark.measure.outcome import MeasurementError
from inference_benchmark.models.cache import cache_root

#: The cache of the person who runs the tests. They get one of their own later.
_USUAL_CACHE = cache_root().absolute()


@contextmanager
def made(engine: str, lock: str, folder: Path) -> Iterator[dict[str, str]]:
    """As a cell has it; that of the usual cache where it is installed. folder: the working directory of jobs."""
    with planned_environment(engine, REPO / "envs" / lock, folder) as planned:
        own = folder_of(planned["lock"])
        installed = _USUAL_CACHE / "environments" / own.name
        is_installed = (installed / "made.json").exists()
        optional_packages.check_wanted(lock, is_installed)
        if is_installed and not own.exists():
            own.parent.mkdir(exist_ok=True)
            own.symlink_to(installed)
        try:
            ensure(planned["name"], planned["lock"])
        except MeasurementError as error:
            optional_packages.cannot_be_installed(lock, str(error))
        yield planned


def beside_hf(
    environment: dict[str, str],
    script: str,
    families: Mapping[str, Mapping[str, Any]] = MODELS,
    precisions: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, dict[str, Any]]:
    """What a script that calls beside_hf.report finds. families: sizes of models. precisions: lists by family."""
    python = str(ensure(environment["name"], environment["lock"]))
    command = [python, *asking_beside_hf(script, families, precisions)]
    done = subprocess.run(command, capture_output=True, text=True, env=interpreter.child_environment(python))
    return found_beside_hf(done)


def asking_beside_hf(
    script: str,
    families: Mapping[str, Mapping[str, Any]] = MODELS,
    precisions: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """The command of beside_hf, without the Python."""
    folders = {family: str(drawn({"architecture": sizes, "seed": 0})) for family, sizes in families.items()}
    request = json.dumps({"folders": folders, "forms": FORMS, "precisions": precisions or {}})
    return [str(REPO / "tests" / script), request]


def found_beside_hf(done: subprocess.CompletedProcess) -> dict[str, dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def cell_of(environment: dict[str, str], family: str = "bloom", **changes: Any) -> Cell:
    model = {"name": family, "architecture": MODELS[family], "seed": 0}
    return make_cell(**{"engine": environment["name"], "environment": environment, "model": model, **changes})


def measured(cell: Cell) -> dict[str, Any]:
    done = measure_cli(cell, Path(cell.path))
    assert done.returncode == 0, done.stderr
    return read_record(Path(cell.path), cell)


def hold_to_whole_checkpoints(environment: dict[str, str], folder: Path, **changes: Any) -> None:
    """It measures them whatever their padding, and no others. folder: for the checkpoints. changes: of the cells."""
    for change, is_whole in ((without("layers.2."), False), (dict, True)):
        mine = remade(weights("llama"), folder / f"whole-{is_whole}", change, pad_token_id=5000)
        cell = replace(cell_of(environment, **changes), model=noted(mine))
        done = measure_cli(cell, Path(cell.path))
        assert (done.returncode == 0) is is_whole, done.stderr
        assert ("missing: model.layers.2.input_layernorm.weight, " in done.stderr) is not is_whole
    plain = measured(cell_of(environment, "llama", **changes))
    assert read_record(Path(cell.path))["runs"][0]["tokens_sha256"] == plain["runs"][0]["tokens_sha256"]


def hold_to_answers_and_steps(cell: Cell, most_logits_error: float) -> Timeline:
    """Its studies find the tokens of hf in fp32, and each step of a call, whose timeline this is."""
    agreement = run_study(ColumnStudy.of("divergence", cell), Path("divergence.json")).results[0]
    assert agreement["token_agreement"] == 1
    assert agreement["logits_error"]["mean"] < most_logits_error
    timeline = Timeline.of(run_study(TimelineStudy(cell, trace=False), Path("timeline-batch-2.json")).results)
    assert len(timeline.step_s) == len(timeline.memory_bytes) == cell.workload.new_tokens == 12
    return timeline


def hold_to_a_text(environment: dict[str, str], folder: Path, **changes: Any) -> Cell:
    """It predicts a text in fp32 as a bare loop of transformers does. folder: for the checkpoint. changes: of the cell,
    which is returned."""
    cell = cell_of(environment, model=noted(readers.save(folder)), **changes)
    windows = run_study(readers.study_of(cell), Path("quality.json")).results
    assert quality.perplexity(windows).value == pytest.approx(readers.bare_perplexity(folder), rel=1e-4)
    assert quality.kl_p99_nats(windows).value < 1e-4
    return cell


def hold_to_a_grid(environment: dict[str, str], workspace: Workspace, variant: str = "", **options: str) -> str:
    """A grid names it, or a variant of it with these options, as any other engine. What compare.py says of both engines
    of the grid."""
    engine = variant or environment["name"]
    workspace.config["models"] = {"tiny": {"architecture": MODELS["bloom"]}}
    if variant:
        workspace.config["engines"] = {variant: {"engine": environment["name"], **options}}
    grid = {"engines": ["hf", engine], "precisions": ["fp32"], "batch_sizes": [1, 2], "memory_limit": None}
    workspace.config["grid"] = {"cpu": {**workspace.grid, **grid, "divergence": True}}
    workspace.save()
    workspace.run(SUMMARY, TABLES)
    assert workspace.plan(SUMMARY, TABLES) == NOTHING
    ours, theirs = (workspace.record("fp32", 2, engine=each) for each in (engine, "hf"))
    assert ours["cell"]["environment"] == environment
    assert "environment" not in theirs["cell"]
    assert ours["runs"][0]["tokens_sha256"] == theirs["runs"][0]["tokens_sha256"]
    rows = list(csv.DictReader((workspace.folder / SUMMARY).open()))
    found = {(row["engine"], row["environment"], row["token_agreement"]) for row in rows}
    assert found == {("hf", "current", "1"), (engine, "current", "1")}
    done = script("compare", "results/box", "--across", "engine", "hf", engine, cwd=workspace.folder)
    assert done.returncode == 0, done.stderr
    assert "2 cells in common" in done.stdout
    return done.stdout


def hold_to_an_end(
    environment: dict[str, str], timeout_s: int, is_due: Callable[[int], Any] = lambda worker: True, **changes: Any
) -> None:
    """A worker that is killed, and one whose time is up, leave neither a record nor a process. is_due: whether to kill
    the worker of this process id. changes: of the cells."""
    endless = cell_of(environment, measurement=measurement(min_seconds=HANGS_S, max_seconds=HANGS_S), **changes)
    measure = [sys.executable, str(REPO / "scripts/measure.py"), "--subject", endless.to_json()]
    mark = str(uuid4())
    options = {"stderr": subprocess.PIPE, "text": True, "env": {**os.environ, "MARK": mark}}
    with subprocess.Popen([*measure, "--output", "killed.json"], **options) as parent:
        worker = worker_of(parent)
        wait_for(lambda: is_due(worker))
        os.kill(worker, signal.SIGKILL)
        _, stderr = parent.communicate(timeout=HANGS_S)
    assert parent.returncode == 1
    assert "was killed by SIGKILL" in stderr
    slow = [*measure, "--output", "slow.json", "--timeout-s", str(timeout_s)]
    done = subprocess.run(slow, timeout=HANGS_S, **options)
    assert done.returncode == 124
    assert "the worker was killed; not tried again" in done.stderr
    assert not Path("killed.json").exists()
    assert not Path("slow.json").exists()
    # What a worker has started sees that it has gone.
    wait_for(lambda: not any(mark in cgroups.read(path) for path in Path("/proc").glob("[0-9]*/environ")))
