"""The Pythons that workers run in: the one of this process, and environments, each made once from its lock file.

An environment is a virtual environment in the cache, outside Snakemake's graph, like weights. Its folder is named by a
digest of the lock, the version of Python and the platform. The marker, which is written last, makes it complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from inference_benchmark import files
from inference_benchmark.cli import TOLD_EVERY_S, every, printable, signals_wait
from inference_benchmark.experiment.environments import NO_DEPS, Lock, lock_path, parse, read
from inference_benchmark.machine import compiler, interpreter
from inference_benchmark.machine.hardware import default_threads
from inference_benchmark.machine.packages import PACKAGES, Package
from inference_benchmark.measure.outcome import MeasurementError
from inference_benchmark.measure.warm_start import PIPED
from inference_benchmark.models.cache import cache_root
from inference_benchmark.units import format_duration

_MARKER = "made.json"
_ERROR = re.compile(r"(?i:error): |\w+(Error|Exception): ")
#: Errors that only say that there is another.
_OF_WHAT_PIP_STARTED = ("subprocess-exited-with-error", "metadata-generation-failed")
#: They are not on PyPI.
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
#: Seconds to make an environment if none that was made says more.
_MAKING_S = 180


def python_of(environment: Mapping[str, str]) -> interpreter.Interpreter:
    """The Python of a cell's environment, made if it is missing. Raises MeasurementError."""
    return _python_of(environment["name"], environment["lock"]) if environment else interpreter.this()


@cache
def _python_of(name: str, digest: str) -> interpreter.Interpreter:
    try:
        python = str(ensure(name, digest))
        return interpreter.ask(python, interpreter.child_environment(python))
    except interpreter.InterpreterError as error:
        raise MeasurementError(f"environment {name}: {error}") from None


def folder_of(digest: str) -> Path:
    """The folder in the cache of the environment of a lock, for this Python, platform and settings of what is built."""
    # The first number counts the ways in which environments were made.
    key = [1, digest, sys.implementation.name, platform.python_version(), sysconfig.get_platform(), *_build_settings()]
    return (cache_root() / "environments" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]).absolute()


def seconds_to_make(digests: Iterable[str]) -> list[float]:
    """How long it will take to make each of the environments of these locks that is missing: as long as it took to make
    others, the median, and to compile what has to be."""
    took = []
    for marker in (cache_root() / "environments").glob(f"*/{_MARKER}"):
        with suppress(OSError, ValueError, KeyError):
            took.append(files.read_json(marker)["took_s"])
    each = statistics.median(took) if took else _MAKING_S
    missing = (lock_path(digest) for digest in digests if not _is_whole(folder_of(digest)))
    locks = (read(path)[0] for path in missing)
    return [each + sum(map(_seconds_to_build, _built(lock) if lock else ())) for lock in locks]


def ensure(name: str, digest: str) -> Path:
    """The Python of an environment, made if it is missing; pip's output goes to stderr. Raises MeasurementError."""
    path, folder = lock_path(digest), folder_of(digest)
    python = _python(folder)
    if _is_whole(folder):
        return python
    try:
        lock, _ = parse(path.read_text(encoding="utf-8"))
        if lock.digest != digest:
            raise MeasurementError(f"environment {name}: {path} has changed; remove it and run Snakemake again")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock"), name) as held:
            if not _is_whole(folder):
                _make(name, lock, folder, held)
    except OSError as error:
        cause = f"{error.filename or folder}: {error.strerror or error}"
        where = "INFERENCE_BENCHMARK_CACHE is the folder with the environments"
        raise MeasurementError(f"environment {name}: {cause}; {where}") from None
    return python


def _make(name: str, lock: Lock, folder: Path, held: IO[str]) -> None:
    n = len(lock.packages)
    packages = f"{n} package{'s' * (n != 1)}"
    print(f"Environment {name}: installing {packages} into {folder}, once", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)  # what a killed process left behind
    begun_at = time.monotonic()
    _run(name, [sys.executable, "-m", "venv", str(folder)], held)
    pip = [str(_python(folder)), "-m", "pip", "--disable-pip-version-check", "--no-input"]

    def tell() -> None:  # pip says nothing while it unpacks
        so_far = format_duration(time.monotonic() - begun_at)
        print(f"Environment {name}: installing for {so_far}", file=sys.stderr, flush=True)

    listed, options = folder / "requirements.txt", [NO_DEPS] if NO_DEPS in lock.text.split() else []
    files.write(lock.text.replace(f"{NO_DEPS}\n", ""), listed)  # pip takes it as an argument only
    install = [*pip, "install", "--progress-bar", "off"]
    telling = every(TOLD_EVERY_S, tell)
    try:
        for package in _built(lock):
            _build(name, package, [*install, NO_DEPS, "-c", str(listed)], held)
        _run(name, [*install, *options, "-r", str(listed)], held)
    finally:
        telling.set()
    made = {"python": platform.python_version(), "requirements": lock.text}
    files.write_json({**made, "took_s": round(time.monotonic() - begun_at)}, folder / _MARKER)
    print(f"Environment {name}: made", file=sys.stderr, flush=True)


def _build(name: str, package: Package, install: list[str], held: IO[str]) -> None:
    """Install a package that pip may have to compile, before the others: if it cannot be, nothing else was fetched."""
    takes = f"{format_duration(_seconds_to_build(package))}, unless pip finds a wheel of it"
    print(f"Environment {name}: compiling {package.distribution}, about {takes}", file=sys.stderr, flush=True)
    # A wheel in the cache may have been built with other settings.
    fresh = ["--no-cache-dir"] if _build_settings() else []
    try:
        _run(name, [*install, *fresh, package.distribution], held)
    except MeasurementError as error:
        if lacking := compiler.missing_to_build():
            needs = f"{package.distribution} has to be compiled, and {lacking}"
            raise MeasurementError(f"environment {name} could not be made: {needs}") from error
        raise


def _built(lock: Lock) -> list[Package]:
    """The packages of a lock that pip may have to compile."""
    return [each for each in PACKAGES.values() if each.build_cpu_s and each.distribution in lock.packages]


def _seconds_to_build(package: Package) -> float:
    return package.build_cpu_s / default_threads()


def _build_settings() -> list[str]:
    """What changes packages that pip compiles."""
    return [os.environ[name] for name in ("CMAKE_ARGS",) if os.environ.get(name)]


def _run(name: str, command: list[str], held: IO[str]) -> None:
    """Run a command. It inherits the lock, and so holds it even if this process is killed."""
    # Packages that these variables name are not installed in the environment.
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    options = {**PIPED, "env": environ, "encoding": "utf-8", "errors": "replace", "pass_fds": [held.fileno()]}
    process, lines = None, []
    try:
        with signals_wait():
            process = subprocess.Popen(command, **options, process_group=0)  # a group with what it starts itself
        with process.stdout:
            for line in process.stdout:
                sys.stderr.write(printable(line))
                sys.stderr.flush()
                lines.append(line.strip())
        if process.wait() == 0:
            return
    except BaseException:  # signals among them
        if process:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise
    cause = cause_in(lines) or f"{command[2]} ended with exit status {process.returncode}"
    shown = cause[:300]  # it may list all versions
    remedy = f"; pip finds CPU builds of torch with PIP_EXTRA_INDEX_URL={_CPU_INDEX}" if "+cpu" in shown else ""
    raise MeasurementError(printable(f"environment {name} could not be made: {shown}{remedy}"))


def cause_in(lines: Sequence[str]) -> str:
    """The line of pip's output that tells why it failed: its first error, or that of what it started, else the last
    line; "" if there is none."""
    errors = (line for line in lines if _ERROR.match(line) and not line.endswith(_OF_WHAT_PIP_STARTED))
    return next(errors, next(filter(None, reversed(lines)), ""))


def _python(folder: Path) -> Path:
    return folder / "bin/python"


def _is_whole(folder: Path) -> bool:
    """Whether an environment is complete, and its Python still exists."""
    return (folder / _MARKER).exists() and os.access(_python(folder), os.X_OK)


@contextmanager
def _locked(path: Path, name: str) -> Iterator[IO[str]]:
    """Hold a file lock."""
    with path.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Environment {name}: another process is making it; waiting", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
