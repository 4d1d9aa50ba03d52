"""Real Snakemake: the workflow run in another folder, and as a module of another workflow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from running import PROGRAMS, REPO, SNAKEMAKE, Workspace, fake_grid, fault

from inference_benchmark.experiment.experiment import Experiment

PROGRAM = str(Path(sys.executable).parent / "snakemake")


def files_of(folder: Path) -> dict[str, int]:
    """What is in a folder, but for the bytecode that Python keeps there."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def snakemake(folder: Path, *arguments: str | Path, **environ: str) -> subprocess.CompletedProcess:
    return SNAKEMAKE.run([PROGRAM, *arguments], folder, {**os.environ, **PROGRAMS.for_shells(), **environ})


@pytest.fixture
def code(tmp_path) -> Workspace:
    """The project in a folder that nothing is to be written to."""
    (tmp_path / "the code").mkdir()
    return Workspace.make(tmp_path / "the code", fake_grid(precisions=["fp32"]))


def test_results_logs_and_metadata_go_to_the_working_directory(code, tmp_path):
    before = files_of(code.folder)
    command = ("-s", code.folder / "Snakefile", "--directory", tmp_path / "run")
    done = snakemake(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert files_of(code.folder) == before
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".snakemake", "logs", "results"}
    assert (tmp_path / "run/results/box/report.html").exists()
    assert "a100-80gb" in (tmp_path / "run/results/box/comparison/a100-80gb.md").read_text()
    assert "Nothing to be done" in snakemake(tmp_path, *command).stderr
    # The same from within the working directory, with a configuration of its own that holds only what differs.
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(code.config | {"machine": "other"}))
    done = snakemake(tmp_path / "run", "-s", code.folder / "Snakefile", "results/other/summary.csv")
    assert done.returncode == 0, done.stderr
    assert files_of(code.folder) == before


def test_jobs_find_the_library_and_read_utf_8_whatever_python_is_told(measured):
    page = measured.folder / "results/box/report.html"
    page.unlink()
    told = {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    command = [PROGRAM, "results/box/report.html"]
    done = subprocess.run(command, cwd=measured.folder, capture_output=True, text=True, env={**os.environ, **told})
    assert done.returncode == 0, done.stderr
    assert "±" in page.read_text(encoding="utf-8")


def test_an_empty_configuration_and_none_are_those_of_the_schema(code, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("# machine: mine\n\n")
    command = ("-s", code.folder / "Snakefile", "-n", "--config", "device=cpu", "machine=box")
    assert re.search(r"^measure +108$", snakemake(tmp_path / "run", *command).stdout, re.MULTILINE)
    experiment = Experiment.from_json((tmp_path / "run/.snakemake/experiments/box.json").read_text())
    assert [model["name"] for model in experiment.models] == ["bloom-51m"]
    (code.folder / "config.yaml").unlink()
    (tmp_path / "run/config.yaml").unlink()
    assert re.search(r"^measure +108$", snakemake(tmp_path / "run", *command).stdout, re.MULTILINE)


HOST = """
configfile: "host.yaml"

rule everything:
    input:
        "results/box/report.html",
        "lines.txt",

module bench:
    snakefile: "../the code/Snakefile"
    config: config["bench"]
{more}
use rule * from bench as bench_*

use rule measure from bench as bench_measure with:
    threads: 1

rule count:
    input: "results/box/summary.csv"
    output: "lines.txt"
    shell: "wc -l < {{input}} > {{output}}"
"""


def test_it_is_a_module_of_another_workflow(code, tmp_path):
    host = tmp_path / "host"
    host.mkdir()
    (host / "Snakefile").write_text(HOST.format(more=""))
    (host / "host.yaml").write_text(yaml.safe_dump({"bench": code.config}))
    before = files_of(code.folder)
    assert "Estimated time: " in snakemake(host, "-n").stderr.splitlines()[-1]
    failed = snakemake(host, "--cores", "1", "--keep-going", FAKE_ENGINE=fault(fault="error", on_batch=2))
    assert "[3/3] tiny prompt4-new8 fake fp32 batch 512: oom" in failed.stderr
    assert failed.stderr.count("[1/3] ") == 1
    assert "Cells and studies: 1 measured, 1 out of memory, 1 failed." in failed.stderr
    done = snakemake(host, "--cores", "1")
    assert done.returncode == 0, done.stderr
    assert "localrule count:" in done.stderr, "the lines about other rules stay"
    assert re.search(r"^\[1/1\] tiny prompt4-new8 fake fp32 batch 2: \S+ tok/s", done.stderr, re.MULTILINE)
    best, *_, report = done.stderr[done.stderr.index("The best of") :].splitlines()
    assert best == "The best of each column on box, by throughput:"
    assert report == "Report: results/box/report.html; tables: results/box/tables.md"
    assert (host / "lines.txt").read_text().strip() == "4"
    assert "Nothing to be done" in snakemake(host, "--cores", "1").stderr
    assert snakemake(host, "--cores", "1", "bench_all").returncode == 0
    assert (host / "results/box/tables.md").exists()
    # With the rules' own names.
    text = re.sub(r"use rule measure .*\n.*\n", "", (host / "Snakefile").read_text())
    (host / "Snakefile").write_text(text.replace(" as bench_*", ""))
    (host / "results/box/tiny/prompt4-new8/fake/fp32/batch-1.json").unlink()
    assert re.match(r"Estimated time: \d+ s for 1 cells", snakemake(host, "-n", "all").stderr.splitlines()[-1])
    done = snakemake(host, "--cores", "1", "all")
    assert re.search(r"^\[1/1\] tiny prompt4-new8 fake fp32 batch 1: \S+ tok/s", done.stderr, re.MULTILINE)
    assert done.stderr.splitlines()[-1] == report
    assert files_of(code.folder) == before


@pytest.mark.parametrize("config", ["", "bench:\n"], ids=["none", "empty"])
def test_the_module_of_the_documentation_measures_the_default_grid(code, tmp_path, config):
    text = (REPO / "docs/architecture.md").read_text()
    snippet = re.search(r"```\n(module bench:.*?)```", text, re.DOTALL)[1]
    host = tmp_path / "host"
    host.mkdir()
    (host / "config.yaml").write_text(config)
    first = 'configfile: "config.yaml"\n\n' if config else ""
    (host / "Snakefile").write_text(first + snippet.replace("PATH", str(code.folder)))
    done = snakemake(host, "-n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^bench_measure +\d+$", done.stdout, re.MULTILINE)
    assert "Estimated time: " in done.stderr


def test_a_prefix_of_a_module_is_refused(code, tmp_path):
    host = tmp_path / "host"
    host.mkdir()
    (host / "Snakefile").write_text(HOST.format(more='    prefix: "sub"\n'))
    (host / "host.yaml").write_text(yaml.safe_dump({"bench": code.config}))
    done = snakemake(host, "-n")
    assert done.returncode != 0
    assert "prefix and replace_prefix are not supported" in done.stdout + done.stderr
