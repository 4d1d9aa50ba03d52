"""Weights that torchao quantises, with the real package."""

from __future__ import annotations

import json
from pathlib import Path

import optional_packages
import pytest
from made_up import MODELS, make_cell
from real_engines import weights
from running import engines_with, measure_cli, read_record

from inference_benchmark.experiment.cells import Workload

LOCK = "torchao.lock"


@pytest.fixture(scope="module")
def torchao(tmp_path_factory) -> str:
    """A path with torchao, for PYTHONPATH."""
    return optional_packages.install(LOCK, tmp_path_factory.mktemp("torchao"))


def cell_of(precision: str, family: str = "llama", engine: str = "hf", **sizes: int):
    model = {"name": family, "architecture": MODELS[family] | sizes, "seed": 0}
    return make_cell(engine=engine, precision=precision, model=model, workload=Workload(9, 4))


def test_int8_weights_are_int8_and_counted_as_they_are_stored(tmp_path, torchao):
    cell = cell_of("int8-weight-only")
    done = measure_cli(cell, tmp_path / "r.json", PYTHONPATH=torchao)
    assert done.returncode == 0, done.stderr
    model = read_record(tmp_path / "r.json", cell)["model"]
    per_layer = {"q": (128, 128), "k": (128, 64), "v": (128, 64), "o": (128, 128)} | dict.fromkeys("gud", (128, 256))
    numbers = 4 * sum(inputs * outputs for inputs, outputs in per_layer.values())
    assert model["block_weights"] == {"int8": numbers}
    assert (model["quantised"]["library"], model["torchao"]) == ("torchao", optional_packages.pins(LOCK)["torchao"])
    assert sum(model["quantised"]["modules"].values()) == 4 * 7
    matrices = {(m["name"], m["arithmetic"]): m for m in model["shapes"]["matrices"]}
    up = matrices["up_proj", "bfloat16"]
    per_output = 4 + 1  # a scale in float32 and a zero point in int8
    assert (up["count"], up["weight_bytes"]) == (4, 128 * 256 + 256 * per_output)


SAVE = """
import sys
from transformers import AutoModelForCausalLM
from inference_benchmark.engines import create
from inference_benchmark.engines.shapes import stored_bytes
from pathlib import Path
engine = create("hf")
engine.start("cpu", 2, Path(sys.argv[1]))
engine.load(Path(sys.argv[1]), "int8-weight-only")
engine.model.save_pretrained(sys.argv[2])
print(sum(stored_bytes(weight) for weight in engine.model.parameters()))
"""


def test_the_stored_bytes_are_those_of_the_saved_file(tmp_path, torchao):
    done = engines_with(torchao).run(["-c", SAVE, weights("llama"), tmp_path])
    assert done.returncode == 0, done.stderr
    counted = int(done.stdout.split()[-1])
    assert data_bytes(tmp_path / "model.safetensors") == counted


def data_bytes(path: Path) -> int:
    """The bytes of all tensors in a file: it has the length of its header, the header, and the data."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        tensors = json.loads(file.read(header))
    tensors.pop("__metadata__", None)
    return sum(end - begin for begin, end in (tensor["data_offsets"] for tensor in tensors.values()))


@pytest.mark.parametrize(
    ("precision", "family", "words"),
    [
        ("int4-weight-only", "llama", "torchao has no products with 4-bit weights for a CPU"),
        ("int8-weight-only", "gpt2", "weights of the blocks are int8; found: "),
    ],
)
def test_what_torchao_does_not_quantise_is_not_available(tmp_path, torchao, precision, family, words):
    cell = cell_of(precision, family)
    done = measure_cli(cell, tmp_path / "r.json", PYTHONPATH=torchao)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert record["outcome"] == "unsupported"
    assert words in record["reason"]["message"]


def test_hf_static_compiles_the_8_bit_weights(tmp_path, torchao):
    cell = cell_of("int8-weight-only", engine="hf-static", num_hidden_layers=1)  # each takes a while to compile
    done = measure_cli(cell, tmp_path / "r.json", PYTHONPATH=torchao)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert (record["outcome"], list(record["model"]["block_weights"])) == ("ok", ["int8"])
    assert record["model"]["compilation"]["graphs"] > 0


def test_without_the_package_a_cell_is_one_line(tmp_path):
    done = measure_cli(cell_of("int8-weight-only"), tmp_path / "r.json")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "measure.py: int8-weight-only in engine hf needs the package torchao, which is not installed here"
    )
