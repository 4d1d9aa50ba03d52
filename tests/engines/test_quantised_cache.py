"""Caches that hqq quantises, with the real package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import optional_packages
import pytest
from families import FAMILIES
from made_up import MODELS, make_cell
from running import REPO, measure_cli, read_record

from inference_benchmark.experiment.cells import Workload

LOCK = "hqq.lock"


@pytest.fixture(scope="module")
def hqq(tmp_path_factory) -> str:
    """A path with hqq, for PYTHONPATH."""
    return optional_packages.install(LOCK, tmp_path_factory.mktemp("hqq"))


@pytest.fixture(scope="module")
def real_caches(hqq, tmp_path_factory) -> dict[str, Any]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([hqq, str(REPO / "scripts"), str(REPO / "tests")])}
    command = [sys.executable, str(REPO / "tests/quantised_caches.py"), str(tmp_path_factory.mktemp("checkpoints"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def cell_of(cache: str, family: str = "bloom", **changes: Any):
    """A cell of a variant of hf with a quantised cache."""
    return make_cell(
        engine="hf-quantized",
        options={"engine": "hf", "cache": cache},
        model={"name": family, "architecture": (FAMILIES | MODELS)[family], "seed": 0},
        workload=Workload(9, 4),
        **changes,
    )


def test_the_floor_counts_the_bytes_of_a_real_cache(real_caches):
    counts = real_caches["caches"]
    assert len(counts) == 3 * 3 + 3 * 3
    for of, lengths in counts.items():
        for new_tokens, held_bytes, read_bytes in lengths:
            assert held_bytes == read_bytes > 0, (of, new_tokens)


def test_the_floor_counts_new_tokens_as_they_are_until_128_are_quantised_together(real_caches):
    rows, prompt_tokens, layers, width = 3, 7, 2, 256
    in_4_bits = 2 * layers * (width // 2 + 2 * 2 * width // 64)  # a scale and a zero point in bf16 per group of 64
    in_bf16 = 2 * layers * width * 2
    by_hand = {
        128: prompt_tokens * in_4_bits + 127 * in_bf16,
        129: (prompt_tokens + 128) * in_4_bits,
        130: (prompt_tokens + 128) * in_4_bits + in_bf16,
    }
    assert real_caches["window"] == [[n, rows * n_bytes, rows * n_bytes] for n, n_bytes in by_hand.items()]


def test_another_cache_than_the_chosen_one_is_found(real_caches):
    assert real_caches["another"] == [
        f"the cache of bloom is a {found} after 7 prompt and 4 new tokens"
        for found in ("QuantizedCache of 8-bit HQQQuantizedLayer", "DynamicCache")
    ]


def test_a_text_is_read_through_the_quantised_cache(real_caches):
    assert real_caches["differing_logits"] == 0


def test_the_record_has_the_bits_that_ran_and_the_bytes_of_a_token(tmp_path, hqq):
    cell = cell_of("quantized-4bit")
    done = measure_cli(cell, tmp_path / "r.json", PYTHONPATH=hqq)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert record["outcome"] == "ok"
    model = record["model"]
    assert model["cache"] == "QuantizedCache of 4-bit HQQQuantizedLayer"
    assert model["options"] == {"cache": "quantized-4bit"}
    assert model["hqq"] == optional_packages.pins(LOCK)["hqq"]
    numbers = 4 * 2 * 128
    assert model["shapes"]["kv_bytes"] == 4 * numbers
    assert model["shapes"]["quantised_kv_bytes"] == numbers // 2 + numbers // 64 * 2 * 4
    assert model["shapes"]["residual_tokens"] == 128


def test_a_cache_that_cannot_be_quantised_is_not_available(tmp_path, hqq):
    cell = cell_of("quantized-4bit", "llama")
    done = measure_cli(cell, tmp_path / "r.json", PYTHONPATH=hqq)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert record["outcome"] == "unsupported"
    assert "hqq packs 4-bit keys or values by 128, and a token has 64 in a layer" in record["reason"]["message"]


def test_without_the_package_a_cell_is_one_line(tmp_path):
    done = measure_cli(cell_of("quantized-4bit"), tmp_path / "r.json")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "measure.py: fp32 in engine hf-quantized needs the package hqq, which is not installed here"
    )
