"""Checkpoints that are quantised already. gptqmodel, which is no part of the default lock, is in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import optional_packages
import pytest
from made_up import make_cell
from quantised import GROUP_SIZE, data_bytes, save
from real_engines import load, prompts
from running import REPO, measure_cli, noted, read_record

from inference_benchmark.engines import ENGINES, needed_packages, shapes
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.models.architecture import QUANTISED

LOCK = "gptqmodel.lock"
#: Weights in the linear layers of a llama in MODELS.
N_WEIGHTS = 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def gptqmodel(tmp_path_factory) -> dict[str, str]:
    """The environment of a process that finds gptqmodel."""
    return {"PYTHONPATH": optional_packages.install(LOCK, tmp_path_factory.mktemp("gptqmodel"))}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    saved = {method: save(tmp_path_factory.mktemp(method), method) for method in ("gptq", "awq")}
    return {**saved, "desc_act": save(tmp_path_factory.mktemp("desc_act"), "gptq", desc_act=True)}


def cell_of(folder: Path, precision: str, engine: str = "hf"):
    return make_cell(engine=engine, precision=precision, model=noted(folder), workload=Workload(9, 4))


def measured(folder: Path, precision: str, output: Path, engine: str = "hf", **environ: str) -> dict:
    cell = cell_of(folder, precision, engine)
    done = measure_cli(cell, output, **environ)
    assert done.returncode == 0, done.stderr
    return read_record(output, cell)


@pytest.mark.parametrize(
    ("name", "method", "read"),
    [
        ("gptq", "gptq", (".qweight", ".qzeros", ".scales")),  # the inputs of a group follow each other
        ("desc_act", "gptq", (".qweight", ".qzeros", ".scales", ".g_idx")),
        ("awq", "awq", (".qweight", ".qzeros", ".scales")),
    ],
)
def test_the_loaded_layers_are_quantised_and_their_bytes_are_those_of_the_files(
    tmp_path, folders, gptqmodel, name, method, read
):
    record = measured(folders[name], method, tmp_path / "r.json", **gptqmodel)
    assert record["outcome"] == "ok", record["reason"]
    model = record["model"]
    assert model["block_weights"] == {"int4": N_WEIGHTS}
    assert model["activations"] == ["bfloat16"]
    assert (model["quantised"]["library"], model["quantised"]["bits"]) == ("gptqmodel", [4])
    assert model["quantised"]["group_size"] == [GROUP_SIZE]
    assert sum(model["quantised"]["modules"].values()) == 4 * 7
    assert f"gptqmodel=={model['gptqmodel']}" in (REPO / "envs" / LOCK).read_text()
    assert model["parameters"] == N_WEIGHTS + 2 * 128 * 1000 + 9 * 128
    layers = [m for m in model["shapes"]["matrices"] if m["name"] != "lm_head"]
    assert {m["arithmetic"] for m in layers} == {"bfloat16"}
    counted = sum(m["count"] * m["weight_bytes"] for m in layers)
    assert counted == data_bytes(folders[name] / "model.safetensors", *read)


LOGITS = """
import sys
from pathlib import Path
import numpy
from inference_benchmark.engines import create
folder, method = Path(sys.argv[1]), sys.argv[2]
prompts, answers = numpy.arange(18).reshape(2, 9), numpy.arange(4).reshape(2, 2)
logits = []
for weights, precision in ((folder, method), (folder / "dense", "fp32")):
    engine = create("hf")
    engine.start("cpu", 2, weights)
    assert engine.unsupported(precision) is None
    engine.load(weights, precision)
    logits.append(engine.next_token_logits(prompts, answers))
quantised, full = logits
print(numpy.linalg.norm(quantised - full) / numpy.linalg.norm(full))
"""


@pytest.mark.parametrize(("name", "method"), [("desc_act", "gptq"), ("awq", "awq")])
def test_a_quantised_checkpoint_answers_like_the_same_weights_in_full(folders, gptqmodel, name, method):
    paths = os.pathsep.join([gptqmodel["PYTHONPATH"], str(REPO / "scripts")])
    command = [sys.executable, "-c", LOGITS, str(folders[name]), method]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 0.1  # that of bf16 products


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("hf", "fp32", "its weights are quantised already, by gptq"),
        ("ctranslate2", "int8", "its weights are quantised already, by gptq"),
        ("ctranslate2", "gptq", "ctranslate2 has no gptq"),
        ("hf-static", "gptq", "hf-static has no gptq"),
    ],
)
def test_another_precision_or_engine_is_not_available_and_loads_nothing(tmp_path, folders, engine, precision, message):
    record = measured(folders["gptq"], precision, tmp_path / "r.json", engine)
    assert (record["outcome"], record["reason"]["phase"]) == ("unsupported", "start")
    assert record["reason"]["message"] == message


def test_plain_weights_are_not_quantised_by_a_method_of_checkpoints(tmp_path, folders, gptqmodel):
    record = measured(folders["gptq"] / "dense", "gptq", tmp_path / "r.json", **gptqmodel)
    assert record["outcome"] == "unsupported"
    assert record["reason"]["message"] == "its weights are not quantised by gptq"


def test_answers_cannot_be_compared_with_weights_that_there_are_not(tmp_path, folders, gptqmodel):
    study = ColumnStudy.of("divergence", cell_of(folders["gptq"], "gptq"))
    done = measure_cli(study, tmp_path / "study.json", **gptqmodel)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "study.json").read_text())
    assert (record["outcome"], record["results"]) == ("unsupported", [])
    assert record["reason"]["message"] == "its weights are quantised already, by gptq"


def test_without_the_package_a_cell_is_one_line(tmp_path, folders):
    done = measure_cli(cell_of(folders["gptq"], "gptq"), tmp_path / "r.json")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "measure.py: gptq in engine hf needs the package gptqmodel, which is not installed here"
    )


def test_every_method_of_checkpoints_is_a_precision_and_names_its_packages():
    assert set(QUANTISED) <= ENGINES["hf"].precisions.keys()
    for method in QUANTISED:
        assert method in needed_packages("hf", method).values()


def test_weights_that_the_first_call_makes_dense_are_noticed():
    """As compressed-tensors does in transformers."""
    engine = load("hf", "bf16")
    engine.model.register_forward_pre_hook(lambda model, inputs: model.float() and None)
    n_weights = sum(m.weight.numel() for _, m in shapes.matrix_modules(engine.model)) - 128 * 1000
    message = f"the first call makes {{'float32': {n_weights}}} of the weights of the blocks, which were {{'bfloat16': {n_weights}}}"
    with pytest.raises(UnsupportedError) as caught:
        engine.observe(prompts(1), 2)
    assert str(caught.value) == message
