"""The cache of a user: folders that a separate process makes once, whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_benchmark.machine.interpreter import child_environment
from inference_benchmark.models.weights import CheckpointError

#: Exit status of a process that makes a folder, where a library cannot do it. The last line of its output says why.
REFUSED = 3


class RefusedError(CheckpointError):
    """A library cannot make what was asked of it; the message says why, in its words."""


def cache_root() -> Path:
    """INFERENCE_BENCHMARK_CACHE, else inference-benchmark under XDG_CACHE_HOME or ~/.cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("INFERENCE_BENCHMARK_CACHE") or home / "inference-benchmark")


def made_once(folder: Path, module: str, request: Mapping[str, Any], failure: str, start: str = "") -> Path:
    """A folder of the cache. If it is missing, start is printed and a separate process creates it.

    module: run with one argument, the request as JSON plus ``output``, the folder to create.
    failure: beginning of the error message. Raises CheckpointError, and RefusedError where it exits with REFUSED.
    """
    if folder.exists():
        return folder
    import filelock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_suffix(".lock")):
            if folder.exists():
                return folder
            # A folder is complete only after the rename. Remove what a killed process left behind.
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            if start:
                print(start, file=sys.stderr, flush=True)
            command = [sys.executable, "-m", module, json.dumps({**request, "output": str(unfinished)})]
            made = subprocess.run(command, env=child_environment(), stdout=subprocess.PIPE, encoding="utf-8")
            if made.returncode == REFUSED:
                *before, reason = made.stdout.splitlines()
                sys.stderr.writelines(f"{line}\n" for line in before)
                raise RefusedError(reason)
            sys.stderr.write(made.stdout)
            if made.returncode != 0:
                raise CheckpointError(f"{failure}; see the message above")
            unfinished.rename(folder)
    except OSError as error:
        raise CheckpointError(
            f"the cache {cache_root()} cannot be used: {error.strerror or error}; "
            "set INFERENCE_BENCHMARK_CACHE to a folder with free space"
        ) from None
    return folder
