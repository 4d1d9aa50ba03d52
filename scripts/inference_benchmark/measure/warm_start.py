"""Workers forked from a server that has imported everything (worker/server.py): a cell starts in a tenth of a second.

A server belongs to one run of Snakemake and ends with it. Those of a model and round stand side by side, one for each
engine and environment, because cells of different engines are measured in turn. The first cell of another model or
round ends them: each round has servers of its own, so that rounds differ in memory layout. Without a run of Snakemake,
or where the platform cannot do it, workers start cold.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

#: Variable with the process id of the Snakemake that this process belongs to; set by rules/common.smk.
OWNER = "INFERENCE_BENCHMARK_RUN"
#: Variables that differ from job to job and decide nothing.
_OF_A_JOB = ("PWD", "OLDPWD", "SHLVL", "_")
#: What a server is sent with the descriptors of a worker, and to have it end.
FORK, QUIT = b"f", b"q"
#: Seconds that a server may take to import everything.
_START_S = 120


class Warm(NamedTuple):
    """What the workers that a server forks have in common, besides their environment: the engine, the folder of the
    checkpoint, and the round."""

    engine: str
    checkpoint: str
    round: int


class WarmStartError(RuntimeError):
    """No worker can be forked from a server; the message says why."""


def is_possible() -> bool:
    """Whether this process belongs to a run of Snakemake, on a platform where a server can fork workers."""
    return OWNER in os.environ and hasattr(os, "pidfd_open")


class ForkedWorker:
    """A worker forked by a server, with the part of subprocess.Popen that its parent uses."""

    def __init__(self, client: socket.socket, output: int) -> None:
        """client: connected to the server, which has been sent the request. output: what the worker prints."""
        self.client, self.stdout = client, os.fdopen(output, "rb", buffering=0)
        self.answers = client.makefile("r")
        self.returncode: int | None = None
        line = self.answers.readline()
        if not line:
            raise WarmStartError("the server ended")
        self.pid = int(line)
        try:
            self.descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:  # it has ended
            self.descriptor = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative for a signal. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self.client.settimeout(timeout)
            try:
                line = self.answers.readline()
            except TimeoutError:
                raise subprocess.TimeoutExpired("worker", timeout) from None
            # With its server gone, the kernel has killed it.
            self.returncode = int(line) if line else -signal.SIGKILL
        return self.returncode

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        if self.descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)

    def close(self) -> None:
        """Give back what belongs to it, after its end."""
        self.answers.close()
        self.client.close()
        if self.descriptor is not None:
            os.close(self.descriptor)


def fork_worker(warm: Warm, python: str, request: str, environment: Mapping[str, str], events: int) -> ForkedWorker:
    """A worker for a request, forked from the server for it, which is started if need be.

    python: the executable that it runs in. environment: its variables. events: the descriptor that it writes events to.
    Raises WarmStartError, and OSError.
    """
    owner = os.environ[OWNER]
    folder = _own_folder(owner)
    settled = {name: value for name, value in environment.items() if name not in _OF_A_JOB}
    # The path of a socket has 107 characters at most.
    device = _digest(environment.get("CUDA_VISIBLE_DEVICES"))
    path = folder / f"{device}.{_digest([warm.checkpoint, warm.round])}.{_digest([warm, python, settled])}"
    with _locked(folder):
        client = _connected(path)
        if client is None:
            _end_others(path)
            _start(path, owner, warm, python, environment)
            client = _connected(path)
    if client is None:
        raise WarmStartError("the server does not answer")
    output, output_end = os.pipe()
    request_end, writing_end = os.pipe()
    try:
        socket.send_fds(client, [FORK], [request_end, events, output_end])
    finally:
        os.close(output_end)
        os.close(request_end)
    with os.fdopen(writing_end, "w") as stream:
        json.dump({"request": request, "environment": dict(environment), "directory": os.getcwd()}, stream)
    return ForkedWorker(client, output)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _own_folder(owner: str) -> Path:
    """Where the sockets of a run are: a folder that nobody else can open. Raises WarmStartError, OSError."""
    folder = Path(tempfile.gettempdir(), f"inference-benchmark-{os.getuid()}-{int(owner)}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise WarmStartError(f"{folder} can be opened by others")
    return folder


@contextmanager
def _locked(folder: Path):
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _connected(path: Path) -> socket.socket | None:
    """A connection to the server at path; None where there is none."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        client.close()
        return None
    return client


def _end_others(path: Path) -> None:
    """Have the servers of other models and rounds on this device end, once their workers have."""
    ours = path.name.rpartition(".")[0]
    for other in path.parent.glob(f"{path.name.partition('.')[0]}.*"):
        if other.name.startswith(f"{ours}."):
            continue
        if client := _connected(other):
            with client, suppress(OSError):
                client.sendall(QUIT)
        other.unlink(missing_ok=True)


def _start(path: Path, owner: str, warm: Warm, python: str, environment: Mapping[str, str]) -> None:
    """Start a server and wait until it is ready. Raises WarmStartError."""
    command = [python, "-m", "inference_benchmark.worker.server"]
    server = subprocess.Popen(
        [*command, str(path), owner, warm.engine, warm.checkpoint],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,  # Ctrl-C is for its owner; a session of its own would have another share of the CPUs
    )
    lines = []
    too_long = threading.Timer(_START_S, server.kill)
    too_long.start()
    try:
        with server.stdout:
            for line in server.stdout:
                if line == "ready\n":
                    return
                lines.append(line)
    finally:
        too_long.cancel()
    path.unlink(missing_ok=True)
    raise WarmStartError(f"the server ended: {(lines or ['without a word'])[-1].strip()}")
