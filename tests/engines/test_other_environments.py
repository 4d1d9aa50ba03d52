"""Workers in an environment of other versions: ENVIRONMENT_LOCK names its lock file, which is installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made_up import MODELS, make_cell
from running import measure_cli, planned_environment, read_record

from inference_benchmark.experiment.cells import Cell

LOCK = os.environ.get("ENVIRONMENT_LOCK")
pytestmark = pytest.mark.skipif(not LOCK, reason="ENVIRONMENT_LOCK names no lock file")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """As a cell has it."""
    with planned_environment("other", Path(LOCK), tmp_path_factory.mktemp("jobs")) as planned:
        yield planned


def measured(cell: Cell) -> dict:
    done = measure_cli(cell, Path(cell.path))
    assert done.returncode == 0, done.stderr
    return read_record(Path(cell.path), cell)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize(("engine", "precision"), [("hf", "fp32"), ("hf", "int8"), ("hf-static", "fp32")])
def test_an_environment_generates_what_the_current_one_does(environment, family, engine, precision):
    model = {"name": family, "architecture": MODELS[family], "seed": 0}
    current = make_cell(engine=engine, precision=precision, model=model)
    other = make_cell(engine=engine, precision=precision, model=model, environment=environment)
    theirs, ours = measured(other), measured(current)
    assert (theirs["outcome"], ours["outcome"]) == ("ok", "ok")
    assert theirs["software"] != ours["software"]
    assert theirs["runs"][0]["tokens_sha256"] == ours["runs"][0]["tokens_sha256"]
    assert theirs["model"]["shapes"] is not None
