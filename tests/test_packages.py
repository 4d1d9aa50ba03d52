"""The packages of the library, and what rules follow from."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import REPO

LIBRARY = REPO / "scripts/inference_benchmark"
#: In the docstring of the library, with its packages in order.
TABLE = ast.get_docstring(ast.parse((LIBRARY / "__init__.py").read_text()))
ORDER = re.findall(r"^    (\w+)/ ", TABLE, re.MULTILINE)


def imports(file: Path) -> set[str]:
    """The modules of the library that a file imports, wherever in it, by their full names."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("inference_benchmark.")}


def test_a_package_imports_only_from_those_above_it():
    small = re.search(r"^    (\w+(?:, \w+)+)   ", TABLE, re.MULTILINE)[1].split(", ")
    assert sorted(ORDER) == sorted(folder.parent.name for folder in LIBRARY.glob("*/__init__.py"))
    assert sorted(small) == sorted(file.stem for file in LIBRARY.glob("*.py") if file.stem != "__init__")
    for file in LIBRARY.rglob("*.py"):
        package = file.relative_to(LIBRARY).parts[0].removesuffix(".py")
        allowed = {*small, *(ORDER[: ORDER.index(package) + 1] if package in ORDER else ())} - {"__init__"}
        wrong = {name for name in imports(file) if name.split(".")[1] not in allowed}
        assert not wrong, f"{file.relative_to(LIBRARY)} imports {', '.join(sorted(wrong))}"


def test_a_worker_needs_no_package_that_its_environment_may_lack():
    """Those that the parent alone needs: the environment of a cell has its engine's packages, torch and transformers."""
    found, unread = set(), [*LIBRARY.glob("worker/*.py")]
    while unread:
        file = unread.pop()
        if file in found or not file.exists():
            continue
        found.add(file)
        unread += [LIBRARY.parent / f"{name.replace('.', '/')}.py" for name in imports(file)]
        unread += [LIBRARY.parent / name.replace(".", "/") / "__init__.py" for name in imports(file)]
    assert LIBRARY / "experiment/cells.py" in found
    wanted = {
        file for file in found if re.search(r"^ *(import|from) (msgspec|fastjsonschema)\b", file.read_text(), re.M)
    }
    assert not wanted


@pytest.mark.parametrize("script", ["collect", "tables", "charts", "report", "compare", "history"])
def test_a_rule_that_only_reads_follows_from_all_code_that_its_script_imports(script):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['scripts/{script}.py', '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit:\n    print(*(name for name in sys.modules if name.startswith('inference_benchmark.')))\n"
    )
    environ = {**os.environ, "PYTHONPATH": "scripts"}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=environ, capture_output=True, text=True)
    imported = {name.split(".")[1] for name in done.stdout.splitlines()[-1].split() if name.count(".") == 2}
    assert len(imported) > 3, done.stderr
    text = "\n".join(file.read_text() for file in (REPO / "rules").glob("*.smk"))
    packages = ast.literal_eval(re.search(r"^PACKAGES = (.*)$", text, re.MULTILINE)[1])
    assert packages == tuple(name for name in ORDER if name not in ("measure", "worker"))
    lasts = re.findall(rf'code=code\("{script}\.py", "(\w+)"\)', text)
    assert lasts
    for last in lasts:
        assert imported <= {*packages[: packages.index(last) + 1]}


def test_no_rule_that_measures_follows_from_code():
    for name in ("measure", "studies"):
        assert "code(" not in (REPO / f"rules/{name}.smk").read_text()


def test_parsing_the_snakefile_imports_nothing_that_is_slow_to_import():
    # Parsing alone: to compare parameters, Snakemake itself imports pandas wherever it is installed.
    command = [sys.executable, "-X", "importtime", "-m", "snakemake", "--list-target-rules"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "snakemake" in imported
    assert not imported & {"torch", "transformers", "scipy", "pandas", "vl_convert", "accelerate", "jsonschema"}
