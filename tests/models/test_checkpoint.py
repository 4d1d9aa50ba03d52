"""Weights from a local folder, the hub, or a seed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up import MODELS, TINY_BLOOM, make_cell
from preloaded import HANGS_S
from running import ENGINES, drawn, measure_cli, noted, read_record, wait_for
from transformers import AutoModelForCausalLM

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.machine import interpreter
from inference_benchmark.models import checkpoint
from inference_benchmark.models.synthesize import synthesize


@pytest.fixture
def real_checkpoint(tmp_path) -> Path:
    """A Llama checkpoint like a user's: saved by transformers in bf16, with a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "my-llama"
    synthesize(MODELS["llama"], 3).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(1000)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1", pad_token="w2").save_pretrained(folder)
    return folder


def test_a_local_checkpoint_is_measured_and_a_change_is_detected(tmp_path, monkeypatch, real_checkpoint):
    monkeypatch.chdir(tmp_path)
    cell = make_cell(engine="hf", model=noted(real_checkpoint))
    process = measure_cli(cell, tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert record["outcome"] == "ok"
    assert (record["model"]["class"], record["model"]["dtypes"]) == ("LlamaForCausalLM", ["float32"])
    assert record["runs"][0]["memory"]["peak_rss_bytes"] > 10**8
    synthesize(MODELS["llama"], 4).to(torch.bfloat16).save_pretrained(real_checkpoint)
    assert checkpoint.fingerprint(real_checkpoint) != cell.model["fingerprint"]
    process = measure_cli(cell, tmp_path / "other.json")
    assert (process.returncode, (tmp_path / "other.json").exists()) == (1, False)
    assert "its files have changed" in process.stderr


def test_a_hub_model_is_read_from_its_snapshot(tmp_path, real_checkpoint):
    """The folder layout of the hub's cache after a download; needs no network."""
    commit = "a" * 40
    folder = Path(os.environ["HF_HOME"], "hub/models--me--my-llama")
    snapshot = folder / "snapshots" / commit
    shutil.copytree(real_checkpoint, snapshot)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(commit)
    for revision in ("main", commit):
        cell = make_cell(engine="hf", model={"name": "mine", "hub": "me/my-llama", "revision": revision})
        process = measure_cli(cell, tmp_path / "r.json")
        assert process.returncode == 0, process.stderr
        assert read_record(tmp_path / "r.json")["model"]["weights"] == str(snapshot)
    longer = replace(cell, workload=Workload(prompt_tokens=100, new_tokens=5000))
    process = measure_cli(longer, tmp_path / "l.json")
    assert process.returncode == 1
    assert "prompt100-new5000 is too long for model mine: prompt and all new tokens but" in process.stderr
    missing = make_cell(engine="hf", model={"name": "mine", "hub": "me/other", "revision": "main"})
    process = measure_cli(missing, tmp_path / "o.json")
    assert process.returncode == 1
    assert "me/other at main cannot be fetched from the hub" in process.stderr


def draw(architecture: dict, seed: int, python: str) -> subprocess.Popen:
    """A process that synthesizes weights, in a process of its own, and prints their folder."""
    code = f"from inference_benchmark.models import checkpoint; print(checkpoint.ensure({{'architecture': {architecture!r}, 'seed': {seed}}}))"
    return subprocess.Popen(
        [python, "-c", code],
        env=interpreter.child_environment(),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_concurrent_processes_draw_the_weights_only_once():
    folder = checkpoint.cache_folder(TINY_BLOOM, 77)
    processes = [draw(TINY_BLOOM, 77, ENGINES.python) for _ in range(3)]
    assert {process.communicate(timeout=HANGS_S)[0].strip() for process in processes} == {str(folder)}
    assert not folder.with_suffix(".unfinished").exists()


def test_weights_killed_half_way_are_drawn_again():
    big = {"model_type": "bloom", "hidden_size": 256, "n_head": 4, "n_layer": 8, "vocab_size": 60_000}
    folder = checkpoint.cache_folder(big, 0)
    drawing = draw(big, 0, sys.executable)
    unfinished = folder.with_suffix(".unfinished")
    wait_for(lambda: unfinished.exists() and list(unfinished.iterdir()))
    os.killpg(drawing.pid, signal.SIGKILL)
    drawing.wait()
    assert unfinished.exists()
    assert not folder.exists(), "half-written weights would be used"
    assert drawn({"architecture": big, "seed": 0}) == folder
    assert not unfinished.exists()
    AutoModelForCausalLM.from_pretrained(folder)
