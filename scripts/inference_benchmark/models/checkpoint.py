"""The folder of a model's weights: a local checkpoint, a hub download, or synthesized weights in a cache.

The cache is not part of Snakemake's graph on purpose. If checkpoints were inputs of a rule, one missing checkpoint
would make Snakemake measure every cell again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from inference_benchmark import files
from inference_benchmark.models import loading, weights
from inference_benchmark.models.architecture import QUANTISED, quantisation, refusal
from inference_benchmark.models.cache import cache_root, made_once
from inference_benchmark.models.weights import CheckpointError

#: Increase it whenever synthesize.py draws different weights from the same seed.
SYNTHESIS_VERSION = 3

#: What transformers does with weights that it has no products with. Found by trial: 5.23, with compressed-tensors 0.20.
_MADE_DENSE = {"compressed-tensors": ", which transformers makes dense in the first call"}


class Checkpoint(NamedTuple):
    """The weights in a folder. fingerprint: as the function of that name. folder: absolute. problem: why they are only
    known from records, and cannot be measured; None if they can."""

    fingerprint: str
    folder: Path
    problem: str | None = None

    def save(self) -> None:
        """Note for jobs in this working directory where they are, if they can be measured. Raises OSError."""
        note = _note_of_folder(self.fingerprint)
        if not self.problem and not (note.exists() and note.read_text(encoding="utf-8") == str(self.folder)):
            files.write(str(self.folder), note)


def _note_of_folder(fingerprint: str) -> Path:
    return Path(".snakemake", "checkpoints", fingerprint)


def ensure(model: Mapping[str, Any]) -> Path:
    """The folder with this model's config.json and weights; synthesized or downloaded if missing. model: as in
    Cell.model. Raises CheckpointError."""
    if "architecture" in model:
        request = {name: model[name] for name in ("architecture", "seed")}
        module = "inference_benchmark.models.synthesize"
        return made_once(cache_folder(**request), module, request, "the weights could not be drawn")
    if "fingerprint" in model:
        note = _note_of_folder(model["fingerprint"])
        if not note.exists():
            raise CheckpointError(f"{note} does not say where the weights of {model['name']} are; run Snakemake")
        folder = Path(note.read_text(encoding="utf-8"))
        if fingerprint(folder) != model["fingerprint"]:
            raise CheckpointError(f"{folder}: its files have changed since this cell was planned; run Snakemake again")
    else:
        folder = _download(model["hub"], model["revision"])
        look_into(folder)
    found = weights.find(folder, read_config(folder))
    if found.format == "pickle":  # transformers reads it with weights_only
        print(f"{found.shards[0]} is a pickle, read without running code from it; prefer safetensors", file=sys.stderr)
    return folder


def cache_folder(architecture: Mapping[str, Any], seed: int) -> Path:
    """The cache folder for the weights of an architecture and seed; its name is a digest of all they depend on."""
    key = json.dumps([SYNTHESIS_VERSION, architecture, seed], sort_keys=True)
    return cache_root() / "weights" / f"{architecture['model_type']}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _download(repo: str, revision: str) -> Path:
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=["*.json", "*.safetensors"])
        if not list(Path(folder).glob("*.safetensors")):
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=["*.json", "*.bin"])
    except Exception as error:  # the hub client raises many kinds of network and repository errors
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"{repo} at {revision} cannot be fetched from the hub: {reason}") from None
    return Path(folder)


def look_into(folder: Path, is_loaded: bool = False) -> dict[str, Any]:
    """The config.json of a checkpoint that can be measured, judged without loading it. Raises CheckpointError if it is
    no causal language model, is quantised by a method that is not in QUANTISED, or lacks a part of its files.
    is_loaded: raises it also if transformers would find other weights in them than those of the model."""
    config = read_config(folder)
    if reason := refusal(config):
        raise CheckpointError(f"{folder}/config.json: {reason}")
    if (method := quantisation(config)) not in (None, *QUANTISED):
        raise CheckpointError(
            f"{folder}/config.json: its weights are quantised already ({method}{_MADE_DENSE.get(method, '')}); "
            f"allowed: {', '.join(QUANTISED)}; weights in fp32, bf16 or fp16, from which each other precision is made"
        )
    found = weights.find(folder, config)
    weights.check(found, is_quantised=method is not None)
    if is_loaded and method is None:
        loading.check(folder, found)
    return config


def fingerprint(folder: Path) -> str:
    """A digest of the content of a checkpoint: its config.json and every byte of its weights. Raises CheckpointError if
    the folder is not a checkpoint."""
    found = weights.find(folder, read_config(folder))
    try:
        parts = [(folder / "config.json").read_bytes(), weights.digest(found, cache_root() / "digests").encode()]
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}") from None
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def facts(folder: Path) -> dict[str, Any]:
    """For the record: the files that the weights are read from, and in which format."""
    found = weights.find(folder, read_config(folder))
    names = [path.name for path in found.shards]
    return {"weights": str(folder), "weights_format": found.format, "weights_files": names}


def weights_files(folder: Path) -> list[Path]:
    return sorted({*folder.glob("*.safetensors"), *folder.glob("*.bin")})


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json. Raises CheckpointError."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder} {_why_no_checkpoint(folder)}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder}/config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder}/config.json is not a mapping")
    return config


def _why_no_checkpoint(folder: Path) -> str:
    allowed = "allowed: a folder that save_pretrained wrote"
    if gguf := [folder] if folder.suffix == ".gguf" and folder.is_file() else sorted(folder.glob("*.gguf")):
        made = f"make a checkpoint of it, once: python scripts/from_gguf.py {gguf[0]} {gguf[0].stem}"
        return f"{'is' if folder in gguf else 'holds'} a GGUF file; {made}"
    if folder.is_file():
        return f"is a file; {allowed}"
    if snapshots := sorted(folder.glob("snapshots/*")):
        return f"is a folder of the hub's cache; give a snapshot in it, such as {snapshots[-1]}"
    is_like_id = not folder.exists() and len(folder.parts) == 2 and not folder.is_absolute()
    or_hub = f"; a model of the hub is hub: {folder}, with its revision" if is_like_id else ""
    return f"holds no config.json; {allowed}{or_hub}"
