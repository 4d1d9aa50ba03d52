"""Workers forked from a server that has imported everything (worker/server.py): a cell starts in a tenth of the time.

A server belongs to one run of Snakemake and ends with it. The servers of a model and round run at the same time, one
for each engine, environment and set of hidden packages, because cells of different engines are measured in turn. The
first cell of another model or round ends them: each round has servers of its own, so that rounds differ in memory
layout. Without a run of Snakemake, or if the platform cannot do it, workers start cold.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from inference_benchmark import files
from inference_benchmark.machine import hardware

#: Variable with the process id of the Snakemake that this process belongs to; set by rules/common.smk.
OWNER = "INFERENCE_BENCHMARK_RUN"
#: Messages to a server: to fork a worker, with its descriptors, and to end.
FORK, QUIT = b"f", b"q"
#: Options of Popen for a process without input and with all its output in one pipe.
PIPED: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


class WarmStartError(RuntimeError):
    """No worker can be forked from a server; the message says why."""


def owner() -> int | None:
    """A descriptor of the Snakemake that this process belongs to, readable when that has ended. None if it belongs to
    none, or on a platform where no server can fork workers. Ends this process if Snakemake has ended."""
    if OWNER not in os.environ or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(int(os.environ[OWNER]))
    except ProcessLookupError:
        end_without_owner()


def end_without_owner() -> NoReturn:
    """End this process, and its worker with it: nobody goes on with a run whose Snakemake was killed."""
    files.remove_private_folder(f"-{int(os.environ[OWNER])}")
    sys.exit("Snakemake, which this job belongs to, has ended; nothing is recorded")


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Another path of a socket: it can have 107 characters at most, and folders for temporary files can have more.
    Raises FileNotFoundError if there is no such folder."""
    folder = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class ForkedWorker:
    """A worker forked by a server, with the interface of subprocess.Popen as far as its parent uses it."""

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
            # If its server has ended, the kernel has killed it.
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
        """Close its descriptors, after its end."""
        self.answers.close()
        self.client.close()
        if self.descriptor is not None:
            os.close(self.descriptor)


class ForkServer(NamedTuple):
    """A server for one engine, folder of a checkpoint, and round. It is started when its first worker is. One that did
    not start is not tried again in this run. hidden: as packages.hidden_for."""

    engine: str
    checkpoint: str
    round: int
    hidden: tuple[str, ...] = ()

    def fork(self, python: str, request: str, variables: Mapping[str, str], pipe: int) -> ForkedWorker:
        """A worker for a request, forked from the server with this Python and these environment variables.
        pipe: the descriptor that the worker writes to. Raises WarmStartError, and OSError."""
        import filelock  # not above: the server imports this module, and its environment may lack filelock

        path = self.path(python, variables)
        folder, of_alike = path.parent, path.name.rpartition(".")[0]
        why_not = folder / f"why-not{path.suffix}"  # in any round
        with filelock.FileLock(folder / "lock"):
            if why_not.exists():
                raise WarmStartError(why_not.read_text(encoding="utf-8"))
            client = _connected(path)
            if client is None:
                _end(other for other in _servers(variables) if other.name.rpartition(".")[0] != of_alike)
                try:
                    self._start(path, python, variables)
                except WarmStartError as error:
                    why_not.write_text(str(error), encoding="utf-8")
                    raise
                client = _connected(path)
        if client is None:
            raise WarmStartError("the server does not answer")
        output, output_end = os.pipe()
        try:
            with os.fdopen(os.memfd_create("request"), "w+") as stream:
                json.dump({"request": request, "variables": dict(variables), "directory": os.getcwd()}, stream)
                stream.seek(0)
                socket.send_fds(client, [FORK], [stream.fileno(), pipe, output_end])
        finally:
            os.close(output_end)
        return ForkedWorker(client, output)

    def path(self, python: str, variables: Mapping[str, str]) -> Path:
        """Where its socket is. Those of one device begin alike, and so do those of one model and round on it. Raises
        OSError."""
        differ_between_jobs = ("PWD", "OLDPWD", "SHLVL", "_")
        settled = {name: value for name, value in variables.items() if name not in differ_between_jobs}
        name = f"{_digest([self.checkpoint, self.round])}.{_digest([self._replace(round=0), python, settled])}"
        return _run_folder() / f"{_device(variables)}.{name}"

    def _start(self, path: Path, python: str, variables: Mapping[str, str]) -> None:
        """Start a server and wait until it is ready. Raises WarmStartError."""
        path.unlink(missing_ok=True)  # of one that was killed
        try:
            # Not the server itself: NVML could leave the files of GPUs open in it.
            device = hardware.detect_device(variables)
        except hardware.GpuError as error:
            raise WarmStartError(str(error)) from None
        arguments = [str(path), os.environ[OWNER], self.engine, self.checkpoint, device, *self.hidden]
        command = [python, "-m", "inference_benchmark.worker.server", *arguments]
        # Ctrl-C is for its owner. A session of its own would have another share of the CPUs.
        server = subprocess.Popen(command, **PIPED, env=dict(variables), text=True, process_group=0)
        lines = []
        too_long = threading.Timer(120, server.kill)
        try:
            too_long.start()
            with server.stdout:
                for line in server.stdout:
                    if line == "ready\n":
                        return
                    lines.append(line)
        except BaseException:  # signals among them
            server.kill()
            server.wait()
            raise
        finally:
            too_long.cancel()
        path.unlink(missing_ok=True)
        raise WarmStartError(f"the server ended: {(lines or ['without a word'])[-1].strip()}")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _connected(path: Path) -> socket.socket | None:
    """A connection to the server at path; None if there is none."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(path) as short:
            client.connect(short)
    except (FileNotFoundError, ConnectionRefusedError):
        client.close()
        return None
    return client


def end_servers(python: str, variables: Mapping[str, str], but: ForkServer | None = None) -> bool:
    """End the servers of this run on a device, but for one, and wait until their memory is free; whether there were
    any. Those with a worker end after it. Raises OSError."""
    if OWNER not in os.environ:
        return False
    import filelock

    kept = but and but.path(python, variables)
    with filelock.FileLock(_run_folder() / "lock"):
        return _end(path for path in _servers(variables) if path != kept)


def _run_folder() -> Path:
    return files.private_folder(f"-{int(os.environ[OWNER])}")


def _device(variables: Mapping[str, str]) -> str:
    return _digest(variables.get("CUDA_VISIBLE_DEVICES"))


def _servers(variables: Mapping[str, str]) -> list[Path]:
    """The sockets of the servers on a device."""
    return list(_run_folder().glob(f"{_device(variables)}.*"))


def _end(servers: Iterable[Path]) -> bool:
    """Tell servers to end when their workers have, and wait until they have ended; whether there were any."""
    found = False
    for path in servers:
        if client := _connected(path):
            found = True
            client.settimeout(10)  # one that still has a worker
            with client, suppress(OSError):
                client.sendall(QUIT)
                client.recv(1)
        path.unlink(missing_ok=True)
    return found
