"""Real Snakemake: bad and hostile input."""

from __future__ import annotations

import importlib.util
import json

import numpy
import pytest
from made_up import TINY_BLOOM
from running import PUBLISHED, Workspace, fake_gpus, fake_grid
from safetensors.numpy import save_file

from inference_benchmark.machine.torch_build import torch_build


def test_a_wrong_configuration_is_told_in_lines_without_traceback(workspace):
    workspace.config["machnie"] = workspace.config.pop("machine")
    workspace.grid["batch_sizes"] = [1, 1, 0]
    workspace.save()
    done = workspace.snakemake()
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert "machnie: unknown key" in printed
    assert "batch_sizes: 1 is listed 2 times" in printed
    assert "batch_sizes[2]: 0 is not allowed" in printed
    assert "Traceback" not in printed
    assert not (workspace.folder / "results").exists()


@pytest.mark.parametrize("name", ["; rm -rf x", "../up", "<script>", "a b", "$(touch pwned)", "", "x" * 65])
def test_hostile_names_never_reach_a_path_or_a_shell(workspace, name):
    workspace.config["machine"] = name
    workspace.config["models"] = {name: {"architecture": dict(TINY_BLOOM)}}
    workspace.grid["models"] = [name]
    workspace.save()
    done = workspace.snakemake()
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("is not allowed") == 2
    assert not (workspace.folder / "results").exists()
    assert not list(workspace.folder.rglob("pwned"))


@pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_slurm") is not None, reason="the plugins are installed"
)
def test_without_the_slurm_plugins_the_profile_says_what_to_install(workspace):
    done = workspace.snakemake("-n", "--profile", "profiles/slurm")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "profiles/slurm needs Snakemake's Slurm plugins, which are not installed here; pip install -r envs/slurm.lock"
    )
    assert "invalid choice" not in done.stderr


BERT = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 300}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("measurement: {min_seconds: []}", "measurement.min_seconds: [] is not allowed; allowed: a number >= 0 or null"),
        ("measurement: {? !!python/tuple [1, 2] : 3}", "measurement: the key [1, 2] is not text; write text"),
        ("models: &a [*a]", "nested more than 20 levels deep, or in itself; write it out"),
        (f"models: {{tiny: {{architecture: {BERT}}}}}", "models.tiny.architecture.model_type: bert is an encoder unless is_decoder is true"),
        ("models: {tiny: {checkpoint: cut}}", "cut/model.safetensors is 50 bytes long, its header says"),
    ],
)  # fmt: skip
def test_odd_configurations_and_models_are_told_before_any_job(workspace, text, line):
    folder = workspace.folder / "cut"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bloom"}')
    save_file({"weight": numpy.zeros(2, numpy.float32)}, folder / "model.safetensors")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:50])
    (workspace.folder / "odd.yaml").write_text(text)
    done = workspace.snakemake("--configfile", "odd.yaml")
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert line in printed
    assert "Traceback" not in printed
    assert not (workspace.folder / "results").exists()


def test_hostile_text_where_text_is_free_stays_text(tmp_path):
    """A folder's name is the user's own; it goes through the shell, and what a file says to a page."""
    hostile = tmp_path / "it's $(touch pwned) ; rm"
    (tmp_path / "w").mkdir()
    hostile.mkdir()
    (hostile / "config.json").write_text('{"model_type": "bloom"}')
    save_file({"weight": numpy.zeros(2, numpy.float32)}, hostile / "model.safetensors")
    grid = fake_grid() | {"models": ["mine"], "precisions": ["fp32"], "batch_sizes": [1]}
    (hostile / "theirs.csv").write_text(f"# {hostile.name}\n{PUBLISHED.read_text()}")
    workspace = Workspace.make(tmp_path / "w", grid, {"mine": {"checkpoint": str(hostile)}})
    workspace.config["baselines"] = {"theirs": f"{hostile}/theirs.csv"}
    workspace.save()
    workspace.run()
    assert not list(tmp_path.rglob("pwned"))
    page = (workspace.folder / "results/box/comparison/theirs.html").read_text()
    assert "it&#39;s $(touch pwned) ; rm" in page


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("nvml", "environ", "said"),
    [
        ({"lost": 15}, {}, "GPU 0 does not answer: GPU is lost (NVML); see nvidia-smi"),
        ({"init_fails": 18}, {}, "the NVIDIA driver does not work: RM has detected an NVML/RM version mismatch."),
        ({}, {"CUDA_VISIBLE_DEVICES": "MIG-6f3a"}, "CUDA_VISIBLE_DEVICES names MIG-6f3a, a part of a GPU (MIG)"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_told_before_any_job(workspace, tmp_path, device, nvml, environ, said):
    workspace.config["device"] = device
    workspace.save()
    gpus = fake_gpus(tmp_path)
    gpus["FAKE_NVML"] = json.dumps(json.loads(gpus["FAKE_NVML"]) | nvml)
    done = workspace.snakemake(**gpus, **environ)
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert f'device: "{device}": {said}' in printed
    assert "to measure on the CPU, set device to cpu" in printed
    assert "Traceback" not in printed
    assert not (workspace.folder / "results").exists()


@pytest.mark.skipif(torch_build() is None, reason="tells what is wrong with the installed torch")
def test_a_torch_that_cannot_use_the_gpu_is_told_before_any_job(workspace, tmp_path):
    """Built without CUDA, or with a newer one than the made-up driver knows."""
    workspace.config["device"] = "cuda"
    workspace.config["grid"]["cuda"]["engines"] = ["hf"]
    workspace.save()
    gpus = fake_gpus(tmp_path)
    gpus["FAKE_NVML"] = json.dumps(json.loads(gpus["FAKE_NVML"]) | {"cuda_driver_version": 1000})
    done = workspace.snakemake(**gpus)
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert f'device: "cuda": {"torch" if torch_build().cuda is None else "the driver"} ' in printed
    assert "Traceback" not in printed
    assert not (workspace.folder / "results").exists()
