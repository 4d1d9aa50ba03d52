"""Once imported, an empty virtual environment is made once for all environments of a test run, and copied. Making one
takes longer than all that tests install into it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import IO

from filelock import FileLock

from inference_benchmark.measure import environments

_run, _empty = environments._run, Path(os.environ["PRELOADED_FOLDER"], "venv")


def _run_or_copy(name: str, command: list[str], held: IO[str]) -> None:
    if command[1:3] != ["-m", "venv"]:
        _run(name, command, held)
        return
    with FileLock(_empty.with_suffix(".lock")):
        if not _empty.exists():
            unfinished = _empty.with_suffix(".unfinished")
            _run(name, [*command[:3], "--clear", str(unfinished)], held)
            unfinished.rename(_empty)
    shutil.copytree(_empty, command[3], symlinks=True)


environments._run = _run_or_copy
