"""llama.cpp without an environment of its own: its packages beside those that run the tests, for which
REQUIRE_OPTIONAL="llama-cpp.lock:some" asks. All of them in forks, this takes seconds once it is compiled; its environment,
and the rest of what it is held to, take minutes (test_llama_cpp.py)."""

from __future__ import annotations

import re
from pathlib import Path

import optional_packages
import pytest
from made_up import MODELS, make_cell
from own_environments import asking_beside_hf, found_beside_hf
from real_engines import FORMS
from running import engines_with, measure_cli, read_record, run_study

from inference_benchmark.experiment.cells import Cell, Workload
from inference_benchmark.experiment.studies import ColumnStudy

LOCK = "llama-cpp.lock"
#: Those that the default lock does not have.
PACKAGES = ("diskcache", "gguf", "llama_cpp_python")


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory) -> str:
    """A path with it, for PYTHONPATH."""
    return optional_packages.install(LOCK, tmp_path_factory.mktemp("llama-cpp"), PACKAGES)


def cell_of(**changes) -> Cell:
    model = {"name": "bloom", "architecture": MODELS["bloom"], "seed": 0}
    return make_cell(**{"engine": "llama-cpp", "model": model, **changes})


def measured(cell: Cell, path: Path, llama_cpp: str) -> dict:
    done = measure_cli(cell, path, PYTHONPATH=llama_cpp)
    assert done.returncode == 0, done.stderr
    return read_record(path, cell)


def test_it_gives_the_tokens_of_hf_in_fp32_in_one_step_each(llama_cpp):
    found = found_beside_hf(engines_with(llama_cpp).run(asking_beside_hf("llama_cpp_engine.py")))
    assert found.keys() == MODELS.keys()
    for of_family in found.values():
        assert of_family["fp32"]["differing"] == []
        assert of_family["fp32"]["additional_steps"] == [0] * len(FORMS)


def test_a_cell_says_what_ran(llama_cpp, tmp_path):
    record = measured(cell_of(precision="q8_0"), tmp_path / "r.json", llama_cpp)
    assert record["outcome"] == "ok"
    model = record["model"]
    assert model["llama_cpp"] == optional_packages.pins(LOCK)["llama_cpp_python"]
    assert model["class"] == "llama_cpp.llama_decode"
    assert model["system_info"].startswith("CPU : ")
    assert (model["cache"], model["is_cache_shared"]) == ("float16 for 256 tokens", True)
    assert model["flash_attention"] is True
    assert model["block_weights"] == {"Q8_0": 4 * 12 * 128 * 128}
    assert (model["activations"], model["non_finite_rows"]) == (["float32"], 0)


def test_real_memory_that_runs_out_is_an_oom(llama_cpp, tmp_path):
    long = Workload(prompt_tokens=100, new_tokens=100)  # each row has a cache of 256 tokens
    record = measured(
        cell_of(batch_size=256, workload=long, memory_limit_bytes=200_000_000), tmp_path / "r.json", llama_cpp
    )
    assert record["outcome"] == "oom"
    assert record["reason"]["limit"] == {"name": "memory_limit", "bytes": 200_000_000}
    assert re.search("failed to allocate|insufficient memory", record["reason"]["message"])


def test_the_largest_batch_is_that_of_the_memory(llama_cpp, tmp_path):
    study = ColumnStudy.of(
        "max-batch", cell_of(workload=Workload(250, 2), memory_limit_bytes=100_000_000), tolerance_percent=50
    )
    tries = run_study(study, tmp_path / "max-batch.json", PYTHONPATH=llama_cpp).results
    assert 8 < max(each["batch_size"] for each in tries if each["fits"]) < 256
    assert not all(each["fits"] for each in tries)
