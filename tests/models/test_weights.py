"""A folder of weights is judged before any job: whole, loadable, and known by every byte."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from made_up import TINY_BLOOM, make_cell
from running import measure_cli, noted, read_record
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from inference_benchmark.models import checkpoint, weights
from inference_benchmark.models.cache import cache_root
from inference_benchmark.models.checkpoint import CheckpointError
from inference_benchmark.models.synthesize import synthesize

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    """A small model as transformers saves it: in one file, in shards, and as torch saved models before."""
    model = synthesize(TINY_BLOOM, 0)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("one", "shards", "pickle", "old-pickle")}
    model.save_pretrained(folders["one"])
    model.save_pretrained(folders["shards"], max_shard_size="120KB")
    for name, is_zip in (("pickle", True), ("old-pickle", False)):
        model.config.save_pretrained(folders[name])
        torch.save(model.state_dict(), folders[name] / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    return folders


@pytest.fixture
def copy(saved, tmp_path):
    def of(name: str) -> Path:
        return Path(shutil.copytree(saved[name], tmp_path / name))

    return of


@pytest.mark.parametrize("name", ["one", "shards", "pickle", "old-pickle"])
def test_a_whole_checkpoint_passes(copy, name):
    folder = copy(name)
    assert checkpoint.look_into(folder)["model_type"] == "bloom"
    facts = checkpoint.facts(folder)
    assert facts["weights_format"] == ("pickle" if "pickle" in name else "safetensors")
    assert all((folder / file).is_file() for file in facts["weights_files"])
    assert len(facts["weights_files"]) == (len(list(folder.glob("*.safetensors"))) if name == "shards" else 1)


def shards(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    assert len(found) >= 2
    return found


def cut(path: Path, n_bytes: int = 100) -> None:
    path.write_bytes(path.read_bytes()[:-n_bytes])


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def store(folder: Path, name: str, tensor: torch.Tensor) -> None:
    """Store a tensor in place of one of the checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    assert name in tensors
    save_file({**tensors, name: tensor}, folder / "model.safetensors")


LAYER = "transformer.h.0.mlp.dense_h_to_4h.weight"
BROKEN = {
    "a missing shard": ("shards", lambda f: shards(f)[1].unlink(), "names shards that are not there (1 of"),
    "a cut shard": ("shards", lambda f: cut(shards(f)[1]), "cut off or still being copied"),
    "a long shard": ("shards", lambda f: shards(f)[1].write_bytes(shards(f)[1].read_bytes() + b"\0"), "its header says"),
    "a shard of another checkpoint": ("shards", lambda f: shutil.copy(*shards(f)[:2]), "names tensors that their shards do not hold"),
    "an index that is no JSON": ("shards", lambda f: (f / INDEX).write_text("{"), "cannot be read as an index of shards"),
    "an index that is a list": ("shards", lambda f: (f / INDEX).write_text("[]"), "cannot be read as an index of shards"),
    "a shard elsewhere": ("shards", lambda f: edit_json(f / INDEX, weight_map={"a": "../../x.safetensors"}), "a shard outside the folder"),
    "a cut file": ("one", lambda f: cut(f / "model.safetensors"), "cut off or still being copied"),
    "a file cut in its header": ("one", lambda f: cut(f / "model.safetensors", (f / "model.safetensors").stat().st_size - 99), "its header says"),
    "an empty file": ("one", lambda f: (f / "model.safetensors").write_bytes(b""), "is not a safetensors file"),
    "a pointer of Git LFS": ("one", lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "run: git lfs pull"),
    "a header that is no JSON": ("one", lambda f: (f / "model.safetensors").write_bytes((9).to_bytes(8, "little") + b"x" * 9), "a header that is not a safetensors header"),
    "a header of numbers": ("one", lambda f: (f / "model.safetensors").write_bytes((7).to_bytes(8, "little") + b'{"a":1}'), "a header that is not a safetensors header"),
    "no weights": ("one", lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "a cut pickle": ("pickle", lambda f: cut(f / "pytorch_model.bin"), "is cut off or still being copied"),
    "no pickle": ("pickle", lambda f: (f / "pytorch_model.bin").write_text("weights"), "is not a weights file written by torch"),
    "no config.json": ("one", lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "a config.json that is no JSON": ("one", lambda f: (f / "config.json").write_text("{"), "cannot be read"),
    "a config.json that is a list": ("one", lambda f: (f / "config.json").write_text("[]"), "is not a mapping"),
    "a config.json without a type": ("one", lambda f: (f / "config.json").write_text("{}"), "has no model_type"),
    "an encoder": ("one", lambda f: edit_json(f / "config.json", model_type="bert"), "bert is an encoder unless is_decoder is true"),
    "an encoder and a decoder": ("one", lambda f: edit_json(f / "config.json", model_type="t5"), "t5 is an encoder and a decoder"),
    "an unknown type": ("one", lambda f: edit_json(f / "config.json", model_type="mine"), "transformers has no mine"),
    "quantised weights": ("one", lambda f: edit_json(f / "config.json", quantization_config={"quant_method": "fp8"}), "quantised already (fp8); allowed: gptq, awq; weights in fp32, bf16 or fp16,"),
    "quantised weights that become dense": ("one", lambda f: edit_json(f / "config.json", quantization_config={"quant_method": "compressed-tensors"}), "quantised already (compressed-tensors, which transformers makes dense in the first call); allowed: gptq, awq;"),
    "weights quantised in an unknown way": ("one", lambda f: edit_json(f / "config.json", quantization_config={"bits": 4}), "quantised already (quantization_config)"),
    "weights in 8 bits": ("one", lambda f: store(f, LAYER, torch.zeros(256, 64, dtype=torch.int8)), f"{LAYER} is stored as I8, quantised already"),
    "weights in fp8": ("one", lambda f: store(f, LAYER, torch.zeros(256, 64).to(torch.float8_e4m3fn)), f"{LAYER} is stored as F8_E4M3, quantised already"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_measured_is_told_in_one_line(copy, case):
    name, break_it, line = BROKEN[case]
    folder = copy(name)
    break_it(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.look_into(folder)
    assert line in str(caught.value)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_integers_that_are_no_weights_are_no_quantisation(copy):
    """gpt2 keeps its causal mask as bytes."""
    folder = copy("one")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)}, folder / "model.safetensors")
    checkpoint.look_into(folder)


def test_safetensors_are_read_where_there_are_both(copy, saved):
    folder = copy("pickle")
    shutil.copy(saved["one"] / "model.safetensors", folder)
    assert checkpoint.facts(folder)["weights_files"] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["pickle", "shards"])
def test_the_record_says_which_files_were_read(copy, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = copy(name)
    cell = make_cell(engine="hf", model=noted(folder))
    process = measure_cli(cell, tmp_path / "r.json")
    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert {key: record["model"][key] for key in ("weights", "weights_format", "weights_files")} == checkpoint.facts(
        folder
    )
    assert ("pytorch_model.bin is a pickle" in process.stderr) == (name == "pickle")


# -- the fingerprint ---------------------------------------------------------------------------------


def age(path: Path) -> None:
    """Date a file back, so that its digest is remembered."""
    os.utime(path, ns=(10**18, 10**18))


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once: a test cannot set the time at which an inode changed."""
    monkeypatch.setattr(weights, "_SETTLED_NS", -(10**9))


@pytest.mark.parametrize("part", [0.02, 0.25, 0.5, 0.75, 0.999])
@pytest.mark.parametrize("name", ["one", "shards", "pickle"])
def test_a_change_anywhere_is_noticed(copy, settled, name, part):
    """Also one that leaves size, time of modification and inode as they were."""
    folder = copy(name)
    files = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    for path in files:
        age(path)
    before = checkpoint.fingerprint(folder)
    assert checkpoint.fingerprint(folder) == before
    for path in files:
        offset = int(path.stat().st_size * part)
        with path.open("r+b") as stream:
            stream.seek(offset)
            byte = stream.read(1)
            stream.seek(offset)
            stream.write(bytes([byte[0] ^ 1]))
        age(path)
        after = checkpoint.fingerprint(folder)
        assert after != before
        before = after


def test_a_changed_layer_of_a_small_file_is_noticed(copy):
    """The first and last 64 KiB stay as they are."""
    folder = copy("one")
    before = checkpoint.fingerprint(folder)
    store(folder, LAYER, load_file(folder / "model.safetensors")[LAYER] + 1)
    assert checkpoint.fingerprint(folder) != before


@pytest.mark.parametrize("change", [{"n_head": 4}, {"new": 1}])
def test_a_changed_config_is_noticed(copy, change):
    folder = copy("one")
    before = checkpoint.fingerprint(folder)
    edit_json(folder / "config.json", **change)
    assert checkpoint.fingerprint(folder) != before


def test_a_changed_index_is_noticed(copy):
    folder = copy("shards")
    before = checkpoint.fingerprint(folder)
    edit_json(folder / INDEX, metadata={"total_size": 1})
    assert checkpoint.fingerprint(folder) != before


def test_files_that_are_not_read_are_no_part_of_it(copy):
    folder = copy("one")
    before = checkpoint.fingerprint(folder)
    (folder / "training_args.bin").write_bytes(b"x")
    (folder / "README.md").write_text("x")
    assert checkpoint.fingerprint(folder) == before


def test_a_copy_has_the_same_fingerprint(copy, saved):
    assert checkpoint.fingerprint(copy("shards")) == checkpoint.fingerprint(saved["shards"])


def test_a_file_that_has_not_changed_is_not_read_again(copy, settled, monkeypatch):
    folder = copy("one")
    before = checkpoint.fingerprint(folder)
    monkeypatch.setattr(weights, "_file_digest", None)
    assert checkpoint.fingerprint(folder) == before


def test_a_file_that_has_just_changed_is_read_again(copy):
    """A second change within the same tick of the clock would not show in size, times or inode."""
    folder = copy("one")
    checkpoint.fingerprint(folder)
    assert weights._known(folder / "model.safetensors", cache_root() / "digests") is None


def test_a_cache_that_cannot_be_written_to_changes_nothing(copy, settled, monkeypatch, tmp_path):
    folder = copy("one")
    before = checkpoint.fingerprint(folder)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INFERENCE_BENCHMARK_CACHE", str(tmp_path / "file"))
    assert checkpoint.fingerprint(folder) == before


@pytest.mark.usefixtures("forked")
def test_changed_weights_are_converted_again(copy):
    """ctranslate2 kept its conversion of the earlier weights."""
    from inference_benchmark.engines import ctranslate2

    folder = copy("one")
    first = ctranslate2.converted(folder)
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensor = file.get_tensor(LAYER)
    store(folder, LAYER, -tensor)
    second = ctranslate2.converted(folder)
    assert first != second
    assert (first / "model.bin").read_bytes() != (second / "model.bin").read_bytes()
