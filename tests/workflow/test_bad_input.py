"""Real Snakemake: bad and hostile input."""

from __future__ import annotations

import numpy
import pytest
from made_up import TINY_BLOOM
from running import Workspace, fake_grid
from safetensors.numpy import save_file


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


BERT = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 300}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("measurement: {min_seconds: []}", "measurement.min_seconds: [] is not allowed; allowed: a number >= 0"),
        ("measurement: {? !!python/tuple [1, 2] : 3}", "measurement: the key [1, 2] is no text; write a text"),
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
    """A folder's name is the user's own; it goes through the shell, a record, the tables and the page."""
    hostile = tmp_path / "it's $(touch pwned) <b> {x} ; rm"
    (tmp_path / "w").mkdir()
    hostile.mkdir()
    (hostile / "config.json").write_text('{"model_type": "bloom"}')
    save_file({"weight": numpy.zeros(2, numpy.float32)}, hostile / "model.safetensors")
    grid = fake_grid() | {"models": ["mine"], "precisions": ["fp32"], "batch_sizes": [1]}
    workspace = Workspace.make(tmp_path / "w", grid, {"mine": {"checkpoint": str(hostile)}})
    workspace.run()
    assert not list(tmp_path.rglob("pwned"))
    page = (workspace.folder / "results/box/report.html").read_text()
    assert " <b> {x}" not in page.replace("\\u003c", "")
    assert "&lt;b&gt;" in page
