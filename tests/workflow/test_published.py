"""The results that come with the project: what README.md shows, and all that a clone needs to show them."""

from __future__ import annotations

import re
import shutil

import pytest
from running import REPO, SHOWN, Workspace, fake_grid, scramble, script


def test_something_is_published():
    assert SHOWN


@pytest.mark.parametrize(
    ("machine", "arguments"),
    [
        *((machine, ("--config", f"machine={machine}", "device=cpu")) for machine in SHOWN),
        ("engines-on-two-cores", ("--configfile", REPO / "docs/engines.yaml")),
    ],
)
def test_a_clone_plans_nothing_and_has_charts_tables_and_report(machine, arguments, tmp_path):
    run = Workspace.make(tmp_path, fake_grid())
    shutil.copy(REPO / "config.yaml", run.folder)
    shutil.copytree(REPO / "results" / machine, run.folder / "results" / machine)
    scramble(run.folder)
    done = run.snakemake("--dry-run", *arguments)
    assert "Nothing to be done" in done.stdout + done.stderr, done.stdout + done.stderr
    for path in set(re.findall(rf"results/{machine}/[^\s\")]+", (REPO / "README.md").read_text())):
        assert (run.folder / path).exists(), path


@pytest.mark.parametrize("machine", SHOWN)
def test_the_readme_holds_what_the_results_say(machine):
    folder = REPO / "results" / machine
    inputs = ["--summary", folder / "summary.csv", "--provenance", folder / "provenance.json"]
    inputs += ["--charts", f"results/{machine}/charts", "--readme", REPO / "README.md"]
    done = script("readme", "--check", *inputs, cwd=REPO)
    assert done.returncode == 0, done.stderr
