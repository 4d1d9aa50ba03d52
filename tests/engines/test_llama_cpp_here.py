"""llama.cpp in three minutes (REQUIRE_OPTIONAL="llama-cpp.lock:short"); the rest is in test_llama_cpp.py."""

from __future__ import annotations

import optional_packages
import own_environments
import pytest
from made_up import MODELS
from own_environments import cell_of, made, measured
from real_engines import FORMS

LOCK = "llama-cpp.lock"


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    with made("llama-cpp", LOCK, tmp_path_factory.mktemp("jobs"), in_short=True) as planned:
        yield planned


def test_it_gives_the_tokens_of_hf_in_fp32_in_one_step_each(environment):
    found = own_environments.beside_hf(environment, "llama_cpp_engine.py")
    assert found.keys() == MODELS.keys()
    for of_family in found.values():
        assert of_family["fp32"]["differing"] == []
        assert of_family["fp32"]["additional_steps"] == [0] * len(FORMS)


def test_a_cell_says_what_ran(environment):
    record = measured(cell_of(environment, precision="q8_0"))
    assert record["outcome"] == "ok"
    pins, model = optional_packages.pins(LOCK), record["model"]
    assert record["software"]["transformers"] == pins["transformers"]
    assert model["llama_cpp"] == pins["llama_cpp_python"]
    assert model["class"] == "llama_cpp.llama_decode"
    assert model["system_info"].startswith("CPU : ")
    assert (model["cache"], model["is_cache_shared"]) == ("float16 for 256 tokens", True)
    assert model["flash_attention"] is True
    assert model["block_weights"] == {"Q8_0": 4 * 12 * 128 * 128}
    assert (model["activations"], model["non_finite_rows"]) == (["float32"], 0)
