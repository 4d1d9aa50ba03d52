"""Environments through real Snakemake: made once, and every cell measured in each."""

from __future__ import annotations

import csv
import os
from importlib.metadata import version
from pathlib import Path

import pytest
from running import NOTHING, REPORT, SUMMARY, TABLES, Workspace, fake_grid, light_lock

GRID = fake_grid(precisions=["fp32"], batch_sizes=[1, 2], environments=["current", "old"])


def prepare(folder: Path, config: dict) -> str:
    """Give a workspace a second environment, which is not made yet; the path of a cache of its own, where it will be."""
    config["environments"] = {"old": "old.lock"}
    (folder / "old.lock").write_text("# the old torch\n" + light_lock(folder / "wheels", torch="1.2.3"))
    (folder / "cache").mkdir()
    asked = Path(os.environ["INFERENCE_BENCHMARK_CACHE"], "transformers")  # about its families, which takes a while
    (folder / "cache/transformers").symlink_to(asked)
    return str(folder / "cache")


@pytest.fixture
def in_two(tmp_path, monkeypatch) -> Workspace:
    """Two cells in the current environment and in one with another torch, and no environment made yet."""
    workspace = Workspace.make(tmp_path, GRID)
    monkeypatch.setenv("INFERENCE_BENCHMARK_CACHE", prepare(tmp_path, workspace.config))
    workspace.save()
    return workspace


@pytest.fixture(scope="session")
def in_two_once(shared_folder) -> Workspace:
    """The same, all done; only to be looked at."""
    folder = shared_folder / "environments"
    cache = {"INFERENCE_BENCHMARK_CACHE": str(folder / "cache")}
    return Workspace.run_once(folder, GRID, lambda config: prepare(folder, config), **cache)


@pytest.fixture
def measured_in_two(in_two_once, tmp_path, monkeypatch) -> Workspace:
    """The same, to be changed."""
    monkeypatch.setenv("INFERENCE_BENCHMARK_CACHE", str(tmp_path / "cache"))
    return in_two_once.copy(tmp_path)


def made(workspace: Workspace) -> list[Path]:
    return sorted(path.parent for path in (workspace.folder / "cache/environments").glob("*/made.json"))


def test_every_cell_is_measured_in_each_environment_and_says_with_what(in_two_once, measured_in_two):
    in_two = measured_in_two
    said = (in_two_once.folder / "run.log").read_text()
    assert "Environment old: installing 1 package into" in said
    assert "Installing collected packages: torch" in said, "what pip says is seen"
    assert len(made(in_two)) == 1
    old, current = in_two.record("fp32", 1, below="old"), in_two.record("fp32", 1)
    assert old["software"] == {**current["software"], "torch": "1.2.3"}
    assert current["software"]["torch"] == version("torch")
    assert "environment" not in current["cell"]
    assert old["cell"]["environment"]["name"] == "old"
    assert in_two.plan() == NOTHING
    rows = csv.DictReader((in_two.folder / SUMMARY).open())
    assert [(row["environment"], row["batch_size"]) for row in rows] == [
        ("current", "1"),
        ("current", "2"),
        ("old", "1"),
        ("old", "2"),
    ]
    tables = (in_two.folder / TABLES).read_text()
    assert "current<br>fp32 | old<br>fp32" in tables
    assert "Environments against the current one (times its throughput)" in tables
    assert "old<br>fp32<br>against current" in tables
    page = (in_two.folder / REPORT).read_text()
    assert "old: torch 1.2.3" in page
    shown = in_two.run("compare").stdout
    assert "# old against current: throughput" in shown
    assert "2 cells in common" in shown
    assert (in_two.folder / "results/box/comparison/current+old.md").read_text() in shown


def test_an_edited_lock_is_another_environment_in_which_its_cells_are_measured_again(measured_in_two):
    in_two = measured_in_two
    lock = in_two.folder / "old.lock"
    lock.write_text(lock.read_text().replace("# the old torch", "# the older torch"))
    assert in_two.plan(SUMMARY) == NOTHING, "a comment installs nothing"
    lock.write_text(light_lock(in_two.folder / "wheels", torch="1.2.4"))
    assert in_two.plan()["measure"] == 2
    for path in (in_two.folder / ".snakemake").rglob("metadata"):
        path.rename(path.with_name("forgotten"))  # as in a clone
    assert in_two.plan()["measure"] == 2
    in_two.run(SUMMARY)
    assert in_two.record("fp32", 1, below="old")["software"]["torch"] == "1.2.4"
    assert len(made(in_two)) == 2


def test_an_environment_that_cannot_be_made_is_one_line_before_any_job(in_two):
    (in_two.folder / "old.lock").write_text(f"--no-index\n--find-links {in_two.folder}/wheels\ntokenizers==9.9.9\n")
    done = in_two.snakemake()
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if "could not be made" in line)
    assert line == (
        "environment old could not be made: "
        "ERROR: Could not find a version that satisfies the requirement tokenizers==9.9.9 (from versions: none)"
    )
    assert "No matching distribution found" in done.stderr, "what pip says is seen"
    assert "Traceback" not in done.stderr
    assert "WorkflowError" not in done.stderr
    assert in_two.all_records() == []


def test_an_environment_is_made_for_jobs_that_need_it_and_by_them_where_it_is_missing(in_two):
    assert in_two.plan()["measure"] == 4
    assert made(in_two) == [], "a dry run makes nothing"
    in_two.run("results/box/tiny/prompt4-new8/fake/fp32/batch-1.json")
    assert made(in_two) == []
    path = "old/tiny/prompt4-new8/fake/fp32/batch-1"
    in_two.run("--no-hooks", f"results/box/{path}.json")  # as on another machine
    assert len(made(in_two)) == 1
    assert "Successfully installed torch-1.2.3" in (in_two.folder / f"logs/box/{path}.log").read_text()
