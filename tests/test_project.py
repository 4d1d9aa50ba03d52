"""The project as a whole: pins, environments, docs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from running import REPO, script


def lock(file: str = "requirements.lock") -> dict[str, str]:
    lines = (REPO / "envs" / file).read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def project() -> dict:
    return tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


def test_the_lock_satisfies_the_ranges():
    pins = lock() | lock("slurm.lock") | lock("torchao.lock") | lock("hqq.lock") | lock("gptqmodel.lock")
    ranges = [*project()["dependencies"], *(r for extra in project()["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, ranges):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_conda_environment_pins_what_the_lock_pins():
    environment = yaml.safe_load((REPO / "envs/benchmark.yaml").read_text())
    pins = dict(pin.split("==") for pin in environment["dependencies"][-1]["pip"])
    ranges = [*project()["dependencies"], *project()["optional-dependencies"]["ctranslate2"]]
    wanted = {canonicalize_name(Requirement(r).name) for r in ranges}
    assert pins == {name: lock()[name] for name in wanted}


def test_optimum_benchmark_has_exact_pins_and_the_same_engine():
    lines = (REPO / "envs/optimum-benchmark.lock").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)] == []
    pins = lock("optimum-benchmark.lock")
    for name in ("torch", "accelerate", "bitsandbytes", "numpy"):
        assert pins[name] == lock()[name], name


def test_every_rule_names_its_environment_and_its_log():
    for path in (REPO / "rules").glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            assert "conda:" in rule, rule
            assert "log:" in rule, rule
            assert '"""' in rule, rule


def test_every_rule_that_takes_no_device_runs_where_snakemake_does():
    """A rule made by "use rule" does not inherit it."""
    for path in (REPO / "rules").glob("*.smk"):
        for rule in re.split(r"^(?=rule |use rule )", path.read_text(), flags=re.MULTILINE)[1:]:
            assert ("localrule: True" in rule) == (path.stem not in ("measure", "studies")), rule


def test_target_rules_are_listed_with_what_they_do():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "snakemake"), "--list-target-rules"],
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    for rule in ("all", "readme"):
        assert re.search(rf"^{rule} \(.+\)$", done.stdout, re.MULTILINE), done.stdout + done.stderr


def test_links_in_the_docs_lead_somewhere():
    for page in (REPO / "README.md", *REPO.glob("docs/*.md"), *REPO.glob("reference/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_each_file_to_change_has_what_is_to_be_changed_in_it():
    """Names in the items of the lists, which begin with the path of a file."""
    for item in re.split(r"^(?=\d\. )", (REPO / "docs/extend.md").read_text(), flags=re.MULTILINE)[1:]:
        # Without examples, and what follows the list.
        words = re.findall(r"`([\w/.]+)`", re.split(r"```|\n\n", item)[0])
        files = [path for word in words if (path := REPO / word).is_file()]
        names = [word for word in words if re.fullmatch(r"_\w+|[A-Z]\w+|test_\w+", word)]
        code = "".join(path.read_text() for path in files)
        missing = [name for name in names if not re.search(rf"\b{name}\b", code)]
        assert missing == [] or not files, item  # or the file is still to be written


def test_the_readme_block_has_its_place():
    from inference_benchmark.render.readme import insert

    page = (REPO / "README.md").read_text()
    assert "x y z" in insert(page, "x y z")
    assert len(page.splitlines()) <= 120


def test_a_missing_file_is_one_line(tmp_path):
    files = {"--summary": "no.csv", "--provenance": "no.json", "--output": "t.md"}
    done = script("tables", *(word for option, name in files.items() for word in (option, tmp_path / name)))
    assert (done.returncode, done.stderr) == (1, f"tables.py: {tmp_path}/no.csv: No such file or directory\n")


def test_text_is_utf_8_by_name():
    """Else it depends on the locale."""
    for path in REPO.glob("scripts/**/*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            # With an argument, read_text is that of a distribution.
            if (name := getattr(call.func, "attr", "")) == "write_text" or (name == "read_text" and not call.args):
                assert "encoding" in [argument.arg for argument in call.keywords], f"{path}:{call.lineno}"


def test_scripts_print_their_signs_under_any_locale():
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    records = next(REPO.glob("results/*/summary.csv")).parent
    command = [sys.executable, REPO / "scripts/compare.py", records, records]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert "≈" in done.stdout


def test_scripts_explain_themselves():
    for path in (REPO / "scripts").glob("*.py"):
        done = script(path.stem, "--help")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) > 5, path


def test_docs_hold_the_table_made_from_the_schema():
    done = subprocess.run(
        [sys.executable, REPO / "scripts/docs.py", "--check"], capture_output=True, text=True, cwd=REPO
    )
    assert done.returncode == 0, done.stderr
