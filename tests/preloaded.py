"""Python programs run in forks of a process that has imported their libraries: importing is most of a short program.

A program, and each module of ours that it starts, still has a process of its own. Tests of how a program starts, is
interrupted or is killed start it themselves.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Seconds after which a program hangs for good. No test decides by it.
HANGS_S = 1800
SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


class Preloaded:
    """A process that has imported these modules. It starts with the first program, and ends with this process.

    path: of more packages, as in PYTHONPATH.
    """

    def __init__(self, *modules: str, path: str = "") -> None:
        self.modules = modules
        self.path = os.pathsep.join(filter(None, [str(SCRIPTS), path]))
        self.process: subprocess.Popen | None = None

    def run(
        self, command: Sequence[str | Path], cwd: Path | str | None = None, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess:
        """As subprocess.run with captured text. command: what comes after python: a script or ``-c``, and arguments."""
        if self.process is None:
            self._start()
        wanted = {"command": [str(word) for word in command], "cwd": str(cwd or Path.cwd())}
        with (
            tempfile.TemporaryFile() as request,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            request.write(json.dumps({**wanted, "environ": dict(environ or os.environ)}).encode())
            request.seek(0)
            socket.send_fds(self.socket, [b"f"], [request.fileno(), output.fileno(), errors.fileno()])
            try:
                returncode = int(self.ends.readline())
            except TimeoutError:
                self.process.kill()
                self.process = None
                raise
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(wanted["command"], returncode, *texts)

    def _start(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(HANGS_S)
        with theirs:
            # What libraries ask for when they are imported.
            environ = {**os.environ, "PYTHONPATH": self.path, "HF_HUB_OFFLINE": "1"}
            command = [sys.executable, __file__, str(theirs.fileno()), *self.modules]
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        self.ends = self.socket.makefile("r")


class ForkingPopen(subprocess.Popen):
    """A process that runs a module with this Python (``python -m``) is a fork of this one, if this has one thread: a
    fork of more would wait for those that it does not have."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        if [str(word) for word in args[:2]] != [sys.executable, "-m"] or len(os.listdir("/proc/self/task")) > 1:
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)
            return
        stdin, _, _, stdout, _, stderr = pipes = rest[3:9]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(args[1:], {0: stdin, 1: stdout, 2: stderr}, pass_fds, cwd, env)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def _become(
    command: Sequence[str], streams: Mapping[int, int], kept: Sequence[int], cwd: str | None, environ: Mapping[str, str]
) -> None:
    """Run a command in this process, a fork, and end it."""
    for descriptor, stream in streams.items():
        if stream >= 0:
            os.dup2(stream, descriptor)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:  # of the list itself
                continue
    if environ is not None:
        os.environ.clear()
        os.environ.update(environ)
    os.chdir(cwd or os.curdir)
    status = 1
    try:
        subprocess.Popen = ForkingPopen
        _run(command)
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(command: Sequence[str]) -> None:
    path = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:0] = [part for part in path if part not in sys.path]
    match command:
        case ["-m", module, *arguments]:
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *arguments]:
            sys.argv = ["-c", *arguments]
            exec(code, {"__name__": "__main__"})
        case [script, *_]:
            sys.argv = list(command)
            runpy.run_path(script, run_name="__main__")


def main(descriptor: str, *modules: str) -> None:
    """Fork for each request until the client is gone. descriptor: of a socket."""
    sys.path.remove(str(Path(__file__).parent))
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(descriptor)) as client:
        while True:
            message, descriptors, _, _ = socket.recv_fds(client, 1, 3)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                with os.fdopen(descriptors[0], closefd=False) as stream:
                    wanted = json.load(stream)
                streams = {1: descriptors[1], 2: descriptors[2]}
                _become(wanted["command"], streams, (), wanted["cwd"], wanted["environ"])
            for descriptor in descriptors:
                os.close(descriptor)
            client.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
