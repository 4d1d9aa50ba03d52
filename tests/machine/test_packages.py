"""The table of packages, and what it says of the project's other files."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from running import REPO

from inference_benchmark.engines import ENGINES, OPTIONS, PACKAGES, PRECISIONS
from inference_benchmark.machine.packages import WEIGHTS


@pytest.mark.parametrize("package", PACKAGES.values(), ids=str)
def test_a_package_is_pinned_in_a_lock_and_a_dependency_is_one_of_the_project(package):
    file = package.lock or "*.lock"
    pins = "\n".join(path.read_text() for path in (REPO / "envs").glob(file))
    names = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", pins, re.MULTILINE)}
    assert package.distribution in names
    requirements = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    if package.is_dependency and package.name != "tokenizers":  # which transformers requires
        assert package.distribution in {Requirement(each).name for each in requirements}


def test_what_needs_a_package_is_a_precision_or_the_value_of_an_option():
    known = {WEIGHTS, *PRECISIONS, *(value for option in OPTIONS.values() for value in option.values)}
    assert {what for package in PACKAGES.values() for what in package.needed_for} <= known


def test_an_engine_needs_its_own_package_first():
    from inference_benchmark.engines import needed_packages

    for name, entry in ENGINES.items():
        needed = list(needed_packages(name, "fp32"))
        assert needed[:1] == [entry.package] if entry.package else WEIGHTS not in needed
    assert [*map(str, needed_packages("hf", "gptq", {"engine": "hf", "cache": "quantized-4bit"}))] == [
        "torch", "transformers", "accelerate", "gptqmodel", "optimum", "hqq",
    ]  # fmt: skip
    assert needed_packages("fake", "int8") == {}
