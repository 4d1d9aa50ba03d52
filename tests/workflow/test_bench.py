"""One command that measures one model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from made_up import make_cell
from running import PROGRAMS, REPO, drawn


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """scripts/bench.py as a user calls it in a folder. Its jobs are forked."""
    command = [sys.executable, REPO / "scripts/bench.py", *arguments]
    environ = {**os.environ, **PROGRAMS.for_shells()}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)


def test_one_command_measures_a_checkpoint_and_ends_with_its_columns_ranked(tmp_path):
    weights = drawn(make_cell(engine="hf").model)
    (tmp_path / "my model").symlink_to(weights)
    arguments = ["my model", "--engine", "fake", "--precision", "fp32", "int8", "--batch", "1", "2", "--new", "4"]
    # Once, and without a wait for a quiet machine.
    quick = {"measurement": {"rounds": 1}, "watch": {"patience_seconds": 0, "max_retakes": 0}}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(quick))
    arguments += ["--prompt", "3", "--configfile", str(tmp_path / "quick.yaml")]
    done = bench(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    name = weights.name
    written = yaml.safe_load((tmp_path / f"bench/{name}/config.yaml").read_text())
    assert written["models"] == {name: {"checkpoint": str(tmp_path / "my model")}}
    assert written["grid"]["cpu"] == written["grid"]["cuda"]
    assert written["grid"]["cpu"]["workloads"] == [{"prompt_tokens": 3, "new_tokens": 4}]
    (summary,) = (tmp_path / f"bench/{name}/results").glob("*/summary.csv")
    assert len(summary.read_text().splitlines()) == 5
    ending = done.stderr[done.stderr.index("The best of each column") :]
    assert f"{name} prompt3-new4 fake int8 batch 2 " in ending
    assert " times as fast as " in ending
    again = bench(tmp_path, *arguments)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr
    assert len(list((tmp_path / f"bench/{name}").glob("config*"))) == 1


def test_another_command_for_the_model_keeps_the_earlier_configuration(tmp_path):
    weights = drawn(make_cell(engine="hf").model)
    for size in ("1", "2"):
        done = bench(tmp_path, str(weights), "--engine", "fake", "--batch", size, "--folder", "mine", "--dry-run")
        assert done.returncode == 0, done.stderr
        assert "Estimated time" in done.stderr
    kept = sorted(path.name for path in (tmp_path / "mine").glob("config*"))
    assert len(kept) == 2
    assert kept[0].startswith("config.superseded-")


def test_prompts_may_be_of_a_text(tmp_path):
    weights = drawn(make_cell(engine="hf").model)
    (tmp_path / "mine.txt").write_text("a text")
    for text, named in (("python", "python"), ("mine.txt", str(tmp_path / "mine.txt"))):
        done = bench(tmp_path, str(weights), "--text", text, "--folder", "mine", "--dry-run")
        assert done.returncode == 1
        assert "has no tokenizer" in done.stdout, done.stderr
        (workload,) = yaml.safe_load((tmp_path / "mine/config.yaml").read_text())["grid"]["cpu"]["workloads"]
        assert workload == {"prompt_tokens": 32, "new_tokens": 32, "prompts": "text", "text": named}


def test_a_model_that_is_nowhere_is_one_line(tmp_path):
    done = bench(tmp_path, "nobody/nothing")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench.py: nobody/nothing: is no folder, and the hub does not tell its newest commit (")
    assert not (tmp_path / "bench").exists()
