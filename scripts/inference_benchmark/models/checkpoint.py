"""The folder of a model's weights: a local checkpoint, a hub download, or synthesized weights in a cache.

The cache is not part of Snakemake's graph on purpose. If checkpoints were inputs of a rule, one missing checkpoint
would make Snakemake measure every cell again.
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

from inference_benchmark.models import weights
from inference_benchmark.models.architecture import QUANTISED, quantisation, refusal
from inference_benchmark.models.weights import CheckpointError

#: Increase it whenever synthesize.py draws different weights from the same seed.
SYNTHESIS_VERSION = 3

#: Exit status of a process that makes a folder, where a library cannot do it. The last line of its output says why.
REFUSED = 3

_WEIGHTS = ("*.safetensors", "*.bin")
#: What transformers does with weights that it has no products with. Found by trial: 5.23, with compressed-tensors 0.20.
_MADE_DENSE = {"compressed-tensors": ", which transformers makes dense in the first call"}


class RefusedError(CheckpointError):
    """A library cannot make what was asked of it; the message says why, in its words."""


def ensure(model: Mapping[str, Any]) -> Path:
    """The folder with this model's config.json and weights; synthesized or downloaded if missing.

    model: as in Cell.model. Raises CheckpointError.
    """
    if "architecture" in model:
        return _synthesized(model["architecture"], model["seed"])
    if "checkpoint" in model:
        folder = Path(model["checkpoint"])
        if fingerprint(folder) != model["fingerprint"]:
            raise CheckpointError(f"{folder}: its files have changed since this cell was planned; run Snakemake again")
    else:
        folder = _download(model["hub"], model["revision"])
        look_into(folder)
    files = weights.find(folder, read_config(folder))
    if files.format == "pickle":  # transformers reads it with weights_only
        print(f"{files.shards[0]} is a pickle, read without running code from it; prefer safetensors", file=sys.stderr)
    return folder


def cache_root() -> Path:
    """INFERENCE_BENCHMARK_CACHE, else inference-benchmark under XDG_CACHE_HOME or ~/.cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("INFERENCE_BENCHMARK_CACHE") or home / "inference-benchmark")


def cache_folder(architecture: Mapping[str, Any], seed: int) -> Path:
    """The cache folder for the weights of an architecture and seed; its name is a digest of all they depend on."""
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
    """A folder of the cache. If it is missing, a separate process creates it.

    module: run with one argument, the request as JSON plus ``output``, the folder to create.
    failure: beginning of the error message. Raises CheckpointError, and RefusedError where it exits with REFUSED.
    """
    import filelock

    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_suffix(".lock")):
            if folder.exists():
                return folder
            # A folder is complete only after the rename. Remove what a killed process left behind.
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            command = [sys.executable, "-m", module, json.dumps({**request, "output": str(unfinished)})]
            made = subprocess.run(command, env=child_environment(), stdout=subprocess.PIPE, text=True)
            sys.stderr.write(made.stdout)
            if made.returncode == REFUSED:
                raise RefusedError(made.stdout.splitlines()[-1])
            if made.returncode != 0:
                raise CheckpointError(f"{failure}; see the message above")
            unfinished.rename(folder)
    except OSError as error:
        raise CheckpointError(
            f"the cache {cache_root()} cannot be used: {error.strerror or error}; "
            "set INFERENCE_BENCHMARK_CACHE to a folder with free space"
        ) from None
    return folder


def _download(repo: str, revision: str) -> Path:
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=["*.json", "*.safetensors"])
        if not list(Path(folder).glob("*.safetensors")):
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=["*.json", "*.bin"])
    except Exception as error:  # the hub client raises many kinds of network and repository errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{repo} at {revision} cannot be fetched from the hub: {reason}") from None
    return Path(folder)


def look_into(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint that can be measured, judged without loading it.

    Raises CheckpointError if it is no causal language model, is quantised by a method that is not in QUANTISED, or
    lacks a part of its weights.
    """
    config = read_config(folder)
    if reason := refusal(config):
        raise CheckpointError(f"{folder}/config.json: {reason}")
    method = quantisation(config)
    if method not in (None, *QUANTISED):
        raise CheckpointError(
            f"{folder}/config.json: its weights are quantised already ({method}{_MADE_DENSE.get(method, '')}); "
            f"allowed: {', '.join(QUANTISED)}; weights in fp32, bf16 or fp16, from which each other precision is made"
        )
    weights.check(weights.find(folder, config), is_quantised=method is not None)
    return config


def fingerprint(folder: Path) -> str:
    """A digest of the content of a checkpoint: its config.json and every byte of its weights.

    Raises CheckpointError if the folder is not a checkpoint.
    """
    files = weights.find(folder, read_config(folder))
    try:
        parts = [(folder / "config.json").read_bytes(), weights.digest(files, cache_root() / "digests").encode()]
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}") from None
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def facts(folder: Path) -> dict[str, Any]:
    """For the record: the files that the weights are read from, and in which format."""
    files = weights.find(folder, read_config(folder))
    return {
        "weights": str(folder),
        "weights_format": files.format,
        "weights_files": [path.name for path in files.shards],
    }


def weights_files(folder: Path) -> list[Path]:
    """All weights files in a checkpoint's folder, sorted."""
    return sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json. Raises CheckpointError."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no config.json; allowed: a folder that save_pretrained wrote") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder}/config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder}/config.json is not a mapping")
    return config


def child_environment(python: str = sys.executable, **extra: str) -> dict[str, str]:
    """The environment of a child process that imports this library from the same place as this process.

    python: what runs it. One that is not of this process finds its own programs first, and no packages but its own.
    """
    library = str(Path(__file__).resolve().parents[2])
    if python != sys.executable:
        programs = os.pathsep.join((os.path.dirname(python), os.environ.get("PATH", os.defpath)))
        return {**os.environ, "PYTHONPATH": library, "PATH": programs, **extra}
    path = os.pathsep.join(part for part in (library, os.environ.get("PYTHONPATH")) if part)
    return {**os.environ, "PYTHONPATH": path, **extra}
