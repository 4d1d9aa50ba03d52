"""llama.cpp in the environment that it has of its own, made from its lock."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import own_environments
import pytest
import readers
from families import FAMILIES
from made_up import MODELS
from own_environments import cell_of, made, measured
from real_engines import FORMS, weights
from remade import remade
from running import REPO, Workspace, noted, run_study

from inference_benchmark.analysis import quality
from inference_benchmark.engines import ENGINES
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.machine import interpreter
from inference_benchmark.measure.environments import ensure
from inference_benchmark.models import texts

LOCK = "llama-cpp.lock"
#: Families beside those in MODELS: each that it has, and Llama with scaled rotary embeddings.
_LIKE_LLAMA = {name: size for name, size in MODELS["llama"].items() if name != "model_type"}
ALL = {
    **MODELS,
    "mistral": {**_LIKE_LLAMA, "model_type": "mistral", "sliding_window": None},
    "qwen2": {**_LIKE_LLAMA, "model_type": "qwen2"},
    "qwen3": {**_LIKE_LLAMA, "model_type": "qwen3", "head_dim": 64},
    "llama-3": {**_LIKE_LLAMA, "model_type": "llama", "rope_parameters": FAMILIES["llama-3"]["rope_parameters"]},
    # Blocks of 256 weights fit into its matrices.
    "wide": {**MODELS["llama"], "hidden_size": 256, "intermediate_size": 512},
}
#: Bytes of a block and its weights, by type, as in ggml-common.h.
BLOCKS = {"F16": (2, 1), "BF16": (2, 1), "Q8_0": (34, 32), "Q4_0": (18, 32), "Q4_K": (144, 256), "Q6_K": (210, 256)}
#: For each precision the type of the blocks' matrices, and that of the output layer, which "wide" has.
TYPES = {
    "fp16": ({"F16"}, "F16"),
    "bf16": ({"BF16"}, "BF16"),
    "q8_0": ({"Q8_0"}, "Q8_0"),
    "q4_0": ({"Q4_0"}, "Q6_K"),
    "q4_k_m": ({"Q4_K", "Q6_K"}, "Q6_K"),
}
ARITHMETIC = {"F16": "float16", "BF16": "bfloat16"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    with made("llama-cpp", LOCK, tmp_path_factory.mktemp("jobs")) as planned:
        yield planned


@pytest.fixture(scope="module")
def beside_hf(environment) -> dict[str, dict[str, Any]]:
    precisions = {"wide": list(TYPES), "bloom": ["q4_k_m"]}
    return own_environments.beside_hf(environment, "llama_cpp_engine.py", ALL, precisions)


def test_every_family_that_it_has_is_tried():
    assert {sizes["model_type"] for sizes in ALL.values()} == set(ENGINES["llama-cpp"].families)


@pytest.mark.parametrize("family", ALL)
def test_it_gives_the_tokens_of_hf_in_fp32_in_one_step_each(beside_hf, family):
    found = beside_hf[family]["fp32"]
    assert found["differing"] == []
    assert found["additional_steps"] == [0] * len(FORMS)
    assert found["logits_error"] < 0.02  # with keys and values in fp16 it is 0.025 and more
    assert found["shapes_alike"]


@pytest.mark.parametrize("precision", TYPES)
def test_weights_are_what_the_files_hold(beside_hf, precision):
    found, (of_blocks, of_head) = beside_hf["wide"][precision], TYPES[precision]
    as_asked, as_fp32 = found["not_loaded_as"]
    assert as_asked is None
    assert re.fullmatch(r"most weights of the blocks are not F32; found: ([\d,]+ \w+(, )?)+", as_fp32)
    assert set(found["block_weights"]) == of_blocks
    sizes_bytes = 0
    for matrix in found["shapes"]["matrices"]:
        n_weights = matrix["inputs"] * matrix["outputs"]
        kinds = {of_head} if matrix["name"] == "lm_head" else of_blocks
        fitting = [kind for kind in kinds if matrix["weight_bytes"] * BLOCKS[kind][1] == n_weights * BLOCKS[kind][0]]
        assert [matrix["arithmetic"]] == [ARITHMETIC.get(kind, "int8") for kind in fitting]
        sizes_bytes += matrix["count"] * matrix["weight_bytes"]
    tables = 2 * 1000 * 256 + 2**15  # embeddings, norms and names, at most
    assert sizes_bytes < found["file_bytes"] < sizes_bytes + tables
    assert found["agreement"] == 1


def test_matrices_that_blocks_do_not_fit_into_are_said_and_counted(beside_hf):
    found = beside_hf["bloom"]["q4_k_m"]
    kinds = found["block_weights"]
    assert sum(kinds.values()) == 4 * 12 * 128 * 128
    assert kinds["Q5_0"] > sum(kinds.values()) / 2
    assert found["not_loaded_as"][0].startswith(
        f"most weights of the blocks are not Q4_K; found: {kinds['Q5_0']:,} Q5_0, "
    )


def test_real_memory_that_runs_out_is_an_oom(environment):
    long = Workload(prompt_tokens=100, new_tokens=100)  # each row has a cache of 256 tokens
    record = measured(cell_of(environment, batch_size=256, workload=long, memory_limit_bytes=200_000_000))
    assert record["outcome"] == "oom"
    assert record["reason"]["limit"] == {"name": "memory_limit", "bytes": 200_000_000}
    assert re.search("failed to allocate|insufficient memory", record["reason"]["message"])
    record = measured(cell_of(environment, memory_limit_bytes=1_000_000))
    assert (record["outcome"], record["reason"]["phase"]) == ("oom", "load")


def test_what_it_does_not_have_is_not_available(environment):
    record = measured(cell_of(environment, precision="nf4"))
    assert (record["outcome"], record["reason"]["message"]) == ("unsupported", "llama-cpp has no nf4")
    model = {"name": "rwkv", "architecture": FAMILIES["rwkv"], "seed": 0}
    record = measured(replace(cell_of(environment), model=model))
    assert record["outcome"] == "unsupported"
    assert record["reason"]["message"].startswith("llama-cpp has no rwkv here, only bloom, gpt2, ")
    record = measured(cell_of(environment, batch_size=257))
    assert record["outcome"] == "unsupported"
    assert record["reason"]["message"].endswith("llama.cpp decodes at most 256 rows at once")


def test_settings_that_llama_cpp_does_not_have_are_not_available(environment, tmp_path):
    folder = remade(weights("llama"), tmp_path / "gelu", hidden_act="gelu")
    cell = replace(cell_of(environment), model=noted(folder))
    record = measured(cell)
    assert record["outcome"] == "unsupported"
    assert record["reason"]["message"].endswith("llama.cpp has llama with hidden_act silu only")


def test_it_writes_whole_checkpoints_whatever_their_padding(environment, tmp_path):
    own_environments.hold_to_whole_checkpoints(environment, tmp_path)


def test_its_studies(environment):
    cell = cell_of(environment, workload=Workload(9, 12), memory_limit_bytes=300_000_000)
    assert own_environments.hold_to_answers_and_steps(cell, 1e-3).shares is None, "without a profile"


def test_it_predicts_a_text_as_transformers_and_llama_cpps_own_tool_do(environment, tmp_path):
    reader = tmp_path / "reader"
    cell = own_environments.hold_to_a_text(environment, reader)
    # In fp32 the tool has keys and values in another precision than the engine.
    study = readers.study_of(replace(cell, precision="q8_0"))
    windows = run_study(study, Path("q8_0.json")).results
    python = str(ensure(environment["name"], environment["lock"]))
    asked = [reader, study.precision, texts.saved(study.text_sha256), study.tokens]
    command = [python, REPO / "tests/llama_cpp_perplexity.py", *map(str, asked)]
    done = subprocess.run(command, capture_output=True, text=True, env=interpreter.child_environment(python))
    assert done.returncode == 0, done.stderr
    assert quality.perplexity(windows).value == pytest.approx(float(done.stdout), rel=1e-6)
    assert quality.kl_mean_nats(windows).low > 0


@pytest.mark.parametrize(("prompt_tokens", "limit_mb", "most"), [(250, 100, None), (9, 300, 256)])
def test_the_largest_batch_is_that_of_the_memory_or_of_the_library(environment, prompt_tokens, limit_mb, most):
    cell = cell_of(environment, workload=Workload(prompt_tokens, 2), memory_limit_bytes=limit_mb * 10**6)
    study = ColumnStudy.of("max-batch", cell, tolerance_percent=50)
    tries = run_study(study, Path(study.path)).results
    fits = max(each["batch_size"] for each in tries if each["fits"])
    failed = [each for each in tries if not each["fits"]]
    assert failed
    if most:
        assert fits == most
        assert {each["message"] for each in failed} == {"llama.cpp decodes at most 256 rows at once"}
        assert measured(replace(cell, batch_size=512))["outcome"] == "unsupported"
    else:
        assert 8 < fits < 256


def test_a_killed_worker_and_one_whose_time_is_up_leave_nothing(environment):
    own_environments.hold_to_an_end(environment, timeout_s=20)


def test_a_grid_names_it_as_any_other_engine(environment, workspace: Workspace):
    own_environments.hold_to_a_grid(environment, workspace)
