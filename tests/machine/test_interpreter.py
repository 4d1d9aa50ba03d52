"""What another Python says is installed in it."""

from __future__ import annotations

import os
import sys

import pytest
from running import REPO, another_python

from inference_benchmark.machine import interpreter
from inference_benchmark.machine.interpreter import InterpreterError

ENVIRON = {**os.environ, "PYTHONPATH": str(REPO / "scripts")}


def test_a_python_asked_from_outside_says_what_it_says_from_inside():
    assert interpreter.ask(sys.executable, ENVIRON) == interpreter.this()


def test_another_python_says_its_own_versions_and_snakemake_is_the_one_that_runs(tmp_path):
    python = another_python(tmp_path, transformers="4.57.6", snakemake="1.0")
    asked, here = interpreter.ask(python, ENVIRON), interpreter.this()
    assert asked.executable == python
    assert asked.software == {**here.software, "transformers": "4.57.6"}
    assert asked.torch == here.torch, "it has the files of this one's torch"


@pytest.mark.parametrize("leftover", ["", "transformers.egg-info"])
def test_a_checkout_in_pythonpath_is_what_is_imported_and_says_where_it_is(tmp_path, leftover):
    package = tmp_path / "src/transformers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('import os\n\n__version__ = "9.9.9.dev0"\n')
    if leftover:  # as an editable installation leaves it
        (tmp_path / "src" / leftover).mkdir()
        (tmp_path / "src" / leftover / "PKG-INFO").write_text("Name: transformers\nVersion: 5.0.0.dev0\n")
    path = os.pathsep.join((ENVIRON["PYTHONPATH"], str(tmp_path / "src")))
    asked = interpreter.ask(sys.executable, {**ENVIRON, "PYTHONPATH": path})
    assert asked.software == {**interpreter.this().software, "transformers": f"9.9.9.dev0 ({package})"}


def test_a_python_that_cannot_answer_is_one_line(tmp_path):
    with pytest.raises(InterpreterError, match=r"nothing/python cannot be run: No such file or directory"):
        interpreter.ask(str(tmp_path / "nothing/python"), ENVIRON)
    with pytest.raises(InterpreterError, match=r"does not say what is installed: .*No module named"):
        interpreter.ask(sys.executable, {**os.environ, "PYTHONPATH": str(tmp_path)})
