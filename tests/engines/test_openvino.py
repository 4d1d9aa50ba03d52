"""OpenVINO GenAI in the environment that it has of its own, made from its lock."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import optional_packages
import own_environments
import pytest
from families import FAMILIES
from made_up import MODELS
from own_environments import cell_of, made, measured
from real_engines import FORMS
from running import TABLES, Workspace, run_study

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy

LOCK = "openvino.lock"
#: Families whose weights are compressed, too: one whose matrices are transposed, and one with grouped keys.
COMPRESSED = ("gpt2", "llama")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    with made("openvino", LOCK, tmp_path_factory.mktemp("jobs")) as planned:
        yield planned


@pytest.fixture(scope="module")
def beside_hf(environment) -> dict[str, dict[str, Any]]:
    precisions = {family: ["int8", "int4"] for family in COMPRESSED}
    return own_environments.beside_hf(environment, "openvino_engine.py", precisions=precisions)


@pytest.mark.parametrize("family", MODELS)
def test_it_gives_the_tokens_of_hf_in_fp32_in_one_step_each(beside_hf, family):
    found = beside_hf[family]["fp32"]
    assert found["differing"] == []
    assert found["additional_steps"] == [0] * len(FORMS)
    assert found["logits_error"] < 1e-4
    assert found["shapes_alike"]


@pytest.mark.parametrize("family", COMPRESSED)
@pytest.mark.parametrize(("precision", "bits", "groups_of"), [("int8", 8, None), ("int4", 4, 128)])
def test_compressed_weights_are_what_the_files_hold(beside_hf, family, precision, bits, groups_of):
    found = beside_hf[family][precision]
    as_asked, as_fp32 = found["not_loaded_as"]
    assert as_asked is None
    assert re.fullmatch(rf"openvino has its weights in u{bits}(, u8)?, not in f32", as_fp32)
    sizes_bytes = 0
    for matrix in found["shapes"]["matrices"]:
        inputs, outputs = matrix["inputs"], matrix["outputs"]
        # Each group of an output has a scale of two bytes and a zero point. The output layer is in 8 bits.
        of, n_groups = (8, 1) if matrix["name"] == "lm_head" else (bits, inputs // (groups_of or inputs))
        assert matrix["weight_bytes"] == outputs * (inputs * of // 8 + n_groups * (2 + of / 8))
        assert matrix["arithmetic"] == "int8"
        sizes_bytes += matrix["count"] * matrix["weight_bytes"]
    tables = 4 * 1000 * 128 + 4 * 128 * 128  # embeddings, angles, norms and biases, at most
    assert sizes_bytes < found["file_bytes"] < sizes_bytes + tables
    assert found["answer"] == [3, 12]


def test_a_cell_says_what_ran(environment):
    record = measured(cell_of(environment))
    assert record["outcome"] == "ok"
    pins = optional_packages.pins(LOCK)
    assert record["software"]["transformers"] == pins["transformers"]
    model = record["model"]
    assert model["openvino_genai"].startswith(pins["openvino"])
    assert model["properties"] == {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "INFERENCE_NUM_THREADS": model["threads"],
        "NUM_STREAMS": 1,
    }
    assert model["activations"] == ["float32"]


def test_real_memory_that_runs_out_is_an_oom(environment):
    record = measured(cell_of(environment, batch_size=4096, memory_limit_bytes=200_000_000))
    assert record["outcome"] == "oom"
    assert record["reason"]["limit"] == {"name": "memory_limit", "bytes": 200_000_000}


def test_hf_continuous_is_not_available_with_its_transformers(environment):
    record = measured(cell_of(environment, "llama", engine="hf-continuous"))
    assert record["outcome"] == "unsupported"
    version = optional_packages.pins(LOCK)["transformers"]
    assert record["reason"]["message"] == f"hf-continuous needs transformers 5.17 or newer, and here is {version}"


def test_what_it_does_not_have_is_not_available(environment):
    record = measured(cell_of(environment, precision="nf4"))
    assert (record["outcome"], record["reason"]["message"]) == ("unsupported", "openvino has no nf4")
    model = {"name": "rwkv", "architecture": FAMILIES["rwkv"], "seed": 0}
    record = measured(replace(cell_of(environment), model=model))
    assert record["outcome"] == "unsupported"
    assert record["reason"]["message"].startswith("openvino cannot convert this model: ")


def test_it_exports_whole_checkpoints_whatever_their_padding(environment, tmp_path):
    own_environments.hold_to_whole_checkpoints(environment, tmp_path)


def test_its_studies(environment):
    cell = cell_of(environment, workload=Workload(9, 12), memory_limit_bytes=300_000_000)
    assert own_environments.hold_to_answers_and_steps(cell, 1e-4).shares is None, "without a profile"
    tries = run_study(ColumnStudy.of("max-batch", cell, tolerance_percent=50), Path("max-batch.json")).results
    assert {each["fits"] for each in tries} == {True, False}


def test_it_predicts_a_text_as_transformers_does(environment, tmp_path):
    own_environments.hold_to_a_text(environment, tmp_path / "reader")


def test_a_grid_names_it_as_any_other_engine(environment, workspace: Workspace):
    compared = own_environments.hold_to_a_grid(environment, workspace)
    assert re.search(r"\| transformers +\|", compared), "what differs between the two"
    assert re.search(r"\| +hf<br>fp32 +\| +openvino<br>fp32 +\|", (workspace.folder / TABLES).read_text())
