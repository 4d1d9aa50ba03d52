"""Where a model's weights are: a local folder, a hub download, or drawn once into a cache.

The cache lies outside Snakemake's graph on purpose. As a rule's input, one missing checkpoint would
make Snakemake measure every cell again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Raised whenever synthesize.py draws other weights from the same seed.
SYNTHESIS_VERSION = 3

_WEIGHTS = ("*.safetensors", "*.bin")
_SAMPLE_BYTES = 2**16


class CheckpointError(RuntimeError):
    """The weights cannot be had; the message says why and what to do."""


def ensure(model: Mapping[str, Any]) -> Path:
    """The folder with this model's config.json and weights, made or fetched if need be.

    model: as in Cell.model. Raises CheckpointError.
    """
    if "checkpoint" in model:
        folder = Path(model["checkpoint"])
        found = fingerprint(folder)
        if found != model["fingerprint"]:
            raise CheckpointError(f"{folder} is not the checkpoint this cell names: its files have changed; start anew")
        return folder
    if "hub" in model:
        return _download(model["hub"], model["revision"])
    return _synthesized(model["architecture"], model["seed"])


def cache_root() -> Path:
    """INFERENCE_BENCHMARK_CACHE, else inference-benchmark under XDG_CACHE_HOME or ~/.cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("INFERENCE_BENCHMARK_CACHE") or home / "inference-benchmark")


def cache_folder(architecture: Mapping[str, Any], seed: int) -> Path:
    """Where the weights of an architecture and seed belong: the name is a digest of what they depend on."""
    key = json.dumps([SYNTHESIS_VERSION, architecture, seed], sort_keys=True)
    return cache_root() / "weights" / f"{architecture['model_type']}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _synthesized(architecture: Mapping[str, Any], seed: int) -> Path:
    return made_once(
        cache_folder(architecture, seed),
        "inference_benchmark.models.synthesize",
        {"architecture": architecture, "seed": seed},
        "the weights could not be drawn",
    )


def made_once(folder: Path, module: str, request: Mapping[str, Any], failure: str) -> Path:
    """A folder of the cache, made by a process of its own where it is not there yet.

    module: runs with one argument, JSON with request and ``output``, a folder to make.
    Raises CheckpointError, in the words of failure, where it does not succeed.
    """
    import filelock

    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_suffix(".lock")):
            if folder.exists():
                return folder
            # Only the rename makes a folder count: whatever a killed run left is swept away here.
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            command = [sys.executable, "-m", module, json.dumps({**request, "output": str(unfinished)})]
            if subprocess.run(command, env=child_environment(), stdout=sys.stderr).returncode != 0:
                raise CheckpointError(f"{failure}; the reason stands above")
            unfinished.rename(folder)
    except OSError as error:
        raise CheckpointError(
            f"the cache {cache_root()} cannot be used: {error.strerror or error}; "
            "set INFERENCE_BENCHMARK_CACHE to a folder with room"
        ) from None
    return folder


def _download(repo: str, revision: str) -> Path:
    import huggingface_hub

    try:
        listing = huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=["*.json", "*.safetensors"])
        if not list(Path(listing).glob("*.safetensors")):
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=["*.json", "*.bin"])
    except Exception as error:  # the hub client raises a wide family of network and repository errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{repo} at {revision} cannot be fetched from the hub: {reason}") from None
    return Path(listing)


def fingerprint(folder: Path) -> str:
    """A digest that tells one local checkpoint from another, quick even for many gigabytes.

    Over config.json whole, and name, size, first and last 64 KiB of every weights file.
    Raises CheckpointError where the folder is no checkpoint.
    """
    read_config(folder)
    files = weights_files(folder)
    if not files:
        raise CheckpointError(f"{folder} holds no weights; allowed: a folder with {' or '.join(_WEIGHTS)} files")
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(_SAMPLE_BYTES))
            stream.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def weights_files(folder: Path) -> list[Path]:
    """Every file of weights in a checkpoint's folder."""
    return sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json. Raises CheckpointError."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no config.json; allowed: a folder that save_pretrained wrote") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder}/config.json is not a mapping")
    return config


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of a child that imports this library: found wherever this process found it."""
    library = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (library, os.environ.get("PYTHONPATH")) if part)
    return {**os.environ, "PYTHONPATH": path, **extra}
