"""Weights on one device, on several, and on disk or in host memory: the same tokens, and what a record says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from made_up import MODELS, make_cell
from real_engines import load, prompts, weights
from running import REPO, drawn, measure_cli, read_record, run_study
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.accelerate import _get_device_map

from inference_benchmark import engines
from inference_benchmark.engines import placement, shapes
from inference_benchmark.engines.hf import HfEngine
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy

#: Of the 3.7 MB of a bloom in MODELS, this leaves room for about a half; of the 0.5 MB of its embeddings for nothing.
HALF_BYTES, LITTLE_BYTES = 3_000_000, 1_000_000
#: 103 MB in fp32, half of them in embeddings: large beside what a process allocates for a call.
LARGE = {"model_type": "bloom", "hidden_size": 512, "n_head": 8, "n_layer": 4, "vocab_size": 25_000}


def offloading(precision: str = "fp32", family: str = "bloom", room_bytes: int = HALF_BYTES, **options) -> HfEngine:
    """An engine whose weights have so much room in memory. Nothing limits what calls allocate."""
    folder = weights(family)
    engine = engines.create("hf", {"engine": "hf", "placement": "disk-offload", **options})
    engine.start("cpu", 2, folder)
    assert engine.unsupported(precision) is None
    engine.limit_bytes = room_bytes
    engine.load(folder, precision)
    return engine


@pytest.mark.parametrize(
    ("family", "precision", "room_bytes"),
    [
        *((family, "fp32", HALF_BYTES) for family in MODELS),
        ("bloom", "bf16", HALF_BYTES // 2),
        ("bloom", "fp32", LITTLE_BYTES),
    ],
)
def test_weights_on_disk_give_the_tokens_of_those_in_memory(family, precision, room_bytes):
    engine, whole = offloading(precision, family, room_bytes), load("hf", precision, family)
    assert engine.not_loaded_as(precision) is None
    facts, wanted = engine.describe(), whole.describe()
    assert set(facts["placement"]) == ({"disk"} if room_bytes == LITTLE_BYTES else {"cpu", "disk"})
    assert sum(here["bytes"] for here in facts["placement"].values()) == wanted["weights_bytes"]
    assert sum(here["modules"] for here in facts["placement"].values()) == len(modules_with_weights(whole.model))
    assert facts["placement"].get("cpu", {"bytes": 0})["bytes"] < room_bytes
    assert {*facts["device_map"].values()} == set(facts["placement"])
    same = ("parameters", "weights_bytes", "dtypes", "block_weights", "attention")
    assert {name: facts[name] for name in same} == {name: wanted[name] for name in same}
    links = facts["shapes"].pop("link_bytes")
    assert facts["shapes"] == wanted["shapes"]
    # Every matrix and vector on disk comes in each step. Those of the embeddings do only for the output layer.
    assert 0 < links["disk"] <= facts["placement"]["disk"]["bytes"]
    assert links["disk"] >= facts["placement"]["disk"]["bytes"] - embeddings_bytes(whole.model)
    for rows, length, new_tokens in [(2, 3, 17), (1, 9, 2), (3, 9, 1)]:
        ids = prompts(rows, length)
        assert (engine.generate(ids, new_tokens) == whole.generate(ids, new_tokens)).all()
    ids, ended = prompts(2), []
    observed, about = engine.observe(ids, 6)
    assert (observed == whole.generate(ids, 6)).all()
    assert about["activations"] == whole.observe(ids, 6)[1]["activations"]
    assert (engine.generate_in_steps(ids, 6, lambda: ended.append(1)) == observed).all()
    assert len(ended) == 6
    assert (engine.next_token_logits(ids, observed) == whole.next_token_logits(ids, observed)).all()
    engine.unload()


def modules_with_weights(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in model.modules() if list(module.parameters(recurse=False))]


def embeddings_bytes(model: torch.nn.Module) -> int:
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    return sum(map(shapes.stored_bytes, tables))


def test_weights_that_all_fit_are_no_offload():
    engine = offloading(room_bytes=10**9)
    assert engine.not_loaded_as("fp32") == "all its weights fit on cpu, and none are on disk"


def test_a_chosen_device_is_found_to_be_the_only_one():
    engine = load("hf", placement="one")
    assert engine.not_loaded_as("fp32") is None
    assert engine.describe()["placement"].keys() == {"cpu"}
    engine.places = {"cpu": {"modules": 1, "bytes": 1}, "disk": {"modules": 1, "bytes": 1}}
    assert engine.not_loaded_as("fp32") == "its weights are on cpu and disk"
    assert "placement" not in load("hf").describe(), "as before it could be chosen"


@pytest.mark.parametrize("options", [{"placement": "cpu-offload"}, {"placement": "layers", "gpus": 2}])
def test_a_cpu_has_no_placement_that_needs_a_gpu(options):
    engine = engines.create("hf", {"engine": "hf", **options})
    engine.start("cpu", 2, weights())
    assert engine.unsupported("fp32").endswith(" needs a GPU, and the device is cpu")


def test_weights_in_host_memory_are_found_and_counted_once():
    """Copied to the CPU itself as accelerate copies them to a GPU. The output layer of bloom is tied to its embeddings."""
    engine, whole = load("hf", placement="one"), load("hf")
    parts = {"transformer": "cpu", "lm_head": "cpu"}
    dispatch_model(engine.model, parts, main_device=torch.device("cpu"), force_hooks=True)
    placement.tie(engine.model)
    engine.places = placement.places(engine.model)
    assert engine.places == {
        "cpu": {"modules": len(modules_with_weights(whole.model)), "bytes": whole.describe()["weights_bytes"]}
    }
    assert {weight.device.type for weight in engine.model.parameters()} == {"meta"}
    assert engine.describe()["parameters"] == whole.describe()["parameters"]
    on_gpu = placement.link_bytes(engine.model, torch.device("cuda"))
    assert on_gpu == {"host": whole.describe()["weights_bytes"]}
    assert (engine.generate(prompts(2), 6) == whole.generate(prompts(2), 6)).all()


def device_map(
    options: dict, devices: Sequence[str], memory_bytes: int, sizes: dict | None = None
) -> dict[str, int | str]:
    """Where transformers would place a bloom of these sizes with the arguments for these devices."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**(sizes or MODELS["bloom"])))
    arguments = placement.arguments(options, list(map(torch.device, devices)), memory_bytes)
    return _get_device_map(model, arguments["device_map"], arguments["max_memory"], None)


@pytest.mark.parametrize("n", [2, 4])
def test_layers_are_spread_over_all_gpus_and_nothing_else(n):
    """By the sizes of the model alone: no GPU is asked for."""
    found = device_map({"placement": "layers", "gpus": n}, [f"cuda:{k}" for k in range(n)], 10**9)
    blocks = [found[f"transformer.h.{layer}"] for layer in range(4)]
    assert set(found.values()) <= set(range(n))
    assert blocks == sorted(blocks)
    assert len(set(found.values())) >= 2


def test_what_does_not_fit_on_a_gpu_goes_to_host_memory_or_to_disk_as_is_chosen():
    for chosen, elsewhere in (("cpu-offload", "cpu"), ("disk-offload", "disk")):
        assert set(device_map({"placement": chosen}, ["cuda:0"], HALF_BYTES).values()) == {0, elsewhere}
    both = device_map({"placement": "cpu-offload", "gpus": 2}, ["cuda:0", "cuda:1"], LITTLE_BYTES * 2)
    assert set(both.values()) == {0, 1, "cpu"}


def test_the_examples_of_the_docs_are_placed_as_they_say():
    sizes = {"model_type": "bloom", "hidden_size": 4096, "n_head": 32, "n_layer": 30, "vocab_size": 250_880}
    text = " ".join((REPO / "docs/larger-than-one-gpu.md").read_text().split())

    def layers(found: dict[str, int | str], place: int | str) -> int:
        return sum(found[f"transformer.h.{layer}"] == place for layer in range(30))

    two = device_map({"placement": "layers", "gpus": 2}, ["cuda:0", "cuda:1"], 24 * 10**9, sizes)
    assert two["transformer.word_embeddings"] == two["lm_head"] == 0
    assert f"{layers(two, 0)} of the 30 layers on the first card, and {layers(two, 1)} on the second" in text
    assert layers(two, 0) + layers(two, 1) == 30
    host = device_map({"placement": "cpu-offload"}, ["cuda:0"], 24 * 10**9, sizes)
    n_bytes = layers(host, "cpu") * 4 * (12 * 4096**2 + 13 * 4096)
    stay = (
        f"{layers(host, 0)} of the 30 layers stay on the card. The other {layers(host, 'cpu')}, {n_bytes / 1e9:.1f} GB"
    )
    assert stay in text
    assert f"{n_bytes / 25e6:.0f} ms" in text


def test_what_fits_nowhere_is_out_of_memory():
    """accelerate leaves it on disk."""
    found = {"cuda:0": {"modules": 1, "bytes": 10}, "disk": {"modules": 1, "bytes": 7}}
    assert placement.overflow({"placement": "disk-offload"}, found) is None
    assert placement.overflow({"placement": "layers", "gpus": 2}, {"cuda:0": found["cuda:0"]}) is None
    for chosen, where in (("layers", "the GPUs"), ("cpu-offload", "the GPUs and host memory")):
        said = placement.overflow({"placement": chosen}, found)
        assert said == f"7 bytes of weights do not fit into the memory of {where}"
    devices = [torch.device("cuda:0"), torch.device("cuda:1")]
    assert placement.not_placed({"placement": "layers", "gpus": 2}, devices, {"cuda:0": found["cuda:0"]}) == (
        "all its weights fit on cuda:0, and none are on cuda:1"
    )


# -- under a real limit -----------------------------------------------------------------------------------


def large_cell(**changes):
    """A cell of hf whose weights are in memory, and which any limit that is too small for them would end."""
    model = {"name": "large", "architecture": LARGE, "seed": 0}
    return make_cell(**{"engine": "hf", "model": model, "workload": Workload(9, 4)} | changes)


def offloaded(limit_bytes: int = 100_000_000) -> dict:
    """What such a cell has whose weights are on disk as far as they do not fit."""
    options = {"engine": "hf", "placement": "disk-offload"}
    return {"engine": "hf-disk", "options": options, "memory_limit_bytes": limit_bytes}


def record_of(cell, path: Path) -> dict:
    done = measure_cli(cell, path)
    assert done.returncode == 0, done.stderr
    return read_record(path, cell)


def test_a_model_that_does_not_fit_is_measured_with_weights_on_disk_and_gives_the_same_tokens(tmp_path):
    whole = record_of(large_cell(), tmp_path / "whole.json")
    assert record_of(large_cell(memory_limit_bytes=100_000_000), tmp_path / "oom.json")["outcome"] == "oom"
    placed = record_of(large_cell(**offloaded()), tmp_path / "placed.json")
    assert placed["outcome"] == "ok", placed["reason"]
    assert placed["runs"][0]["tokens_sha256"] == whole["runs"][0]["tokens_sha256"]
    assert placed["model"]["options"] == {"placement": "disk-offload"}
    assert placed["model"]["placement"]["disk"]["bytes"] > 0
    # What calls allocate is limited as ever.
    crowded = record_of(large_cell(**offloaded(), batch_size=8192), tmp_path / "crowded.json")
    assert (crowded["outcome"], crowded["reason"]["phase"]) == ("oom", "warm-up")


def test_answers_are_compared_with_a_reference_that_is_placed_the_same_way(tmp_path):
    drawn(large_cell().model)
    study = ColumnStudy.of("divergence", large_cell(**offloaded(50_000_000), precision="bf16"))
    record = run_study(study, tmp_path / "s.json")
    assert record.outcome == "ok", record.reason
    result = record.results[0]
    assert 0 < result["logits_error"]["mean"] < 0.1, "of bf16"
    fits = record_of(large_cell(**offloaded(10**9)), tmp_path / "fits.json")
    assert fits["outcome"] == "unsupported"
    assert fits["reason"]["message"].endswith("all its weights fit on cpu, and none are on disk")
