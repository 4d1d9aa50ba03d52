"""A Python that workers run in, and what is installed in it. Imports no torch, and needs the standard library alone.
Run as a module, it prints what it finds in the Python that runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from inference_benchmark.machine import provenance, torch_build


class InterpreterError(RuntimeError):
    """A Python that cannot be run; the message says why."""


class Interpreter(NamedTuple):
    """executable: its path. software: as provenance.software. torch: None without one."""

    executable: str
    software: Mapping[str, Any]
    torch: torch_build.TorchBuild | None


def this() -> Interpreter:
    """The Python that runs this process."""
    return Interpreter(sys.executable, provenance.software(), torch_build.torch_build())


def ask(executable: str, environ: Mapping[str, str]) -> Interpreter:
    """Another Python, in an environment in which it finds this library. The version of Snakemake is the one here, where
    it runs. Raises InterpreterError."""
    try:
        command = [executable, "-m", "inference_benchmark.machine.interpreter"]
        asked = subprocess.run(command, env=dict(environ), capture_output=True, encoding="utf-8")
        software, build = json.loads(asked.stdout)
    except OSError as error:
        raise InterpreterError(f"{executable} cannot be run: {error.strerror}") from None
    except ValueError:
        last = next(reversed(asked.stderr.splitlines()), f"exit status {asked.returncode}")
        raise InterpreterError(f"{executable} does not say what is installed: {last}") from None
    software["snakemake"] = provenance.software()["snakemake"]
    return Interpreter(executable, software, build and torch_build.TorchBuild(build[0], build[1] and tuple(build[1])))


def child_environment(python: str = sys.executable, **extra: str) -> dict[str, str]:
    """The environment of a child process that imports this library from the same place as this process.
    python: what runs it. One that is not of this process finds its own programs first, and no packages but its own."""
    library = str(Path(__file__).resolve().parents[2])
    if python != sys.executable:
        programs = os.pathsep.join((os.path.dirname(python), os.environ.get("PATH", os.defpath)))
        return {**os.environ, "PYTHONPATH": library, "PATH": programs, **extra}
    path = os.pathsep.join(filter(None, (library, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **extra}


if __name__ == "__main__":
    print(json.dumps([provenance.software(), torch_build.torch_build()]))
