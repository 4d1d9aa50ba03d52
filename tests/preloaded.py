"""Python programs run in forks of a process that has imported their libraries: importing is most of a short program.

A program, and each module of ours that it starts, still has a process of its own. Tests of how a program starts, is
interrupted or is killed start it themselves.
"""

from __future__ import annotations

import atexit
import filecmp
import gc
import hashlib
import importlib
import json
import marshal
import multiprocessing.context
import multiprocessing.popen_fork
import os
import random
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

from filelock import FileLock

#: Seconds after which a program hangs for good. No test decides by it.
HANGS_S = 1800
SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
LIBRARY = "inference_benchmark"
#: Variables with the folder of all that the processes of a test run share, and the process that they end with.
_FOLDER, _OWNER = "PRELOADED_FOLDER", "PRELOADED_OWNER"


def share() -> None:
    """Called by the first process of a test run: those that it starts use the same preloaded processes."""
    if _OWNER not in os.environ:
        os.environ |= {_OWNER: str(os.getpid()), _FOLDER: tempfile.mkdtemp(prefix="preloaded-")}
        atexit.register(shutil.rmtree, os.environ[_FOLDER], ignore_errors=True)


def folder() -> Path:
    """That of a test run, which ends with it."""
    share()
    return Path(os.environ[_FOLDER])


class Preloaded:
    """A process that has imported these modules. It starts with the first program, and ends with the test run.

    path: of more packages, as in PYTHONPATH.
    """

    def __init__(self, *modules: str, path: str = "") -> None:
        self.modules = modules
        self.path = os.pathsep.join(filter(None, [str(SCRIPTS), path]))

    @cached_property
    def python(self) -> str:
        """The path of a Python, each of whose processes stands for a fork of that process."""
        name = hashlib.sha256(json.dumps([self.modules, self.path]).encode()).hexdigest()[:8]
        own = folder() / name
        with FileLock(own.with_suffix(".lock")):
            if not own.exists():
                own.mkdir()
                self._start(own / "socket")
                client = [sys.executable, "-ISB", str(Path(__file__).with_name("preloaded_client.py")), own / "socket"]
                python = own / "python"
                python.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, client))} "$@"\n')
                python.chmod(0o755)
                # For the shells of jobs, which find the Python of Snakemake first. A job of Slurm is limited and ended
                # by its own processes.
                (own / "bash").write_text(
                    f'[ -n "${{SLURM_JOB_ID:-}}" ] || python() {{ {shlex.join(map(str, client))} "$@"; }}\n'
                )
        return str(own / "python")

    def run(
        self, command: Sequence[str | Path], cwd: Path | str | None = None, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess:
        """As subprocess.run with captured text. command: what comes after python: a script or ``-c``, and arguments."""
        return subprocess.run(
            [self.python, *command], cwd=cwd, env=environ, capture_output=True, text=True, timeout=HANGS_S
        )

    def for_shells(self) -> dict[str, str]:
        """The environment of a program in whose shells ``python`` is this one."""
        return {"BASH_ENV": str(Path(self.python).with_name("bash"))}

    def _start(self, path: Path) -> None:
        environ = {**os.environ, "PYTHONPATH": self.path}
        command = [sys.executable, __file__, str(path), os.environ[_OWNER], *self.modules]
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        with process.stdout as printed:
            assert printed.readline() == "ready\n", f"cannot import {self.modules}"
        process.returncode = 0  # it goes on


class ForkingPopen(subprocess.Popen):
    """A process that runs a module with this Python (``python -m``) is a fork of this one, if this has one thread: a
    fork of more would wait for those that it does not have. Then it is a fork of the server."""

    #: That of the server.
    python = ""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        is_module = [str(word) for word in args[:2]] == [sys.executable, "-m"]
        has_threads = len(os.listdir("/proc/self/task")) > 1
        if is_module and has_threads and not pass_fds:
            args = [self.python, *args[1:]]
        if not is_module or has_threads:
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)
            return
        stdin, _, _, stdout, _, stderr = pipes = rest[3:9]
        process_group = rest[-1]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            if process_group >= 0:
                os.setpgid(0, process_group)
            _become(args[1:], {0: stdin, 1: stdout, 2: stderr}, pass_fds, cwd, env)
        self._child_created = True
        self._close_pipe_fds(*pipes)


class Server:
    """Forks a program for each request until its owner, a process, has ended. listener: a bound socket."""

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self.listener, self.owner = listener, os.pidfd_open(owner)
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self.owner, selectors.EVENT_READ, sys.exit)

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data()

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        _, (request, *streams), _, _ = socket.recv_fds(client, 1, 4)
        pid = os.fork()
        if pid == 0:
            self.selector.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            random.seed()
            with os.fdopen(request, "rb", closefd=False) as stream:
                command, directory, environ = marshal.load(stream)
            _become(command, dict(enumerate(streams)), (), directory, environ)
        for descriptor in (request, *streams):
            os.close(descriptor)
        ended = os.pidfd_open(pid)
        self.selector.register(ended, selectors.EVENT_READ, partial(self._report_end, client, pid, ended))
        self.selector.register(client, selectors.EVENT_READ, partial(self._lose_client, client, ended))

    def _report_end(self, client: socket.socket, pid: int, ended: int) -> None:
        self.selector.unregister(ended)
        os.close(ended)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if client in self.selector.get_map():
            self.selector.unregister(client)
            client.sendall(f"{status}\n".encode())
        client.close()

    def _lose_client(self, client: socket.socket, ended: int) -> None:
        """The process that stands for a program was killed, so the program is."""
        self.selector.unregister(client)
        signal.pidfd_send_signal(ended, signal.SIGKILL)


def _become(
    command: Sequence[str], streams: Mapping[int, int], kept: Sequence[int], cwd: str | None, environ: Mapping[str, str]
) -> None:
    """Run a command in this process, a fork, and end it."""
    for descriptor, stream in streams.items():
        if stream >= 0:
            os.dup2(stream, descriptor)
    # Those of the server may be of files, which can be sought in.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
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
        # As a process that multiprocessing starts, which would import all anew.
        multiprocessing.context.SpawnProcess._Popen = staticmethod(multiprocessing.popen_fork.Popen)
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
            folder = Path(script).resolve().parent
            sys.path.insert(0, str(folder))
            _import_anew_if_edited(folder if (folder / LIBRARY).exists() else Path("scripts"))
            sys.argv = list(command)
            runpy.run_path(script, run_name="__main__")


def _import_anew_if_edited(scripts: Path) -> None:
    """Forget our library where that in a folder, a copy of ours, was edited. Copies have the times of their originals;
    files with others are read."""
    own, other = SCRIPTS / LIBRARY, scripts / LIBRARY
    if other.exists() and not other.samefile(own):
        names = [sorted(path.relative_to(each) for path in each.rglob("*.py")) for each in (own, other)]
        if names[0] != names[1] or any(filecmp.cmpfiles(own, other, names[0])[1:]):
            for name in [name for name in sys.modules if name.partition(".")[0] == LIBRARY]:
                del sys.modules[name]


def main(path: str, owner: str, *modules: str) -> None:
    """Import modules and serve. path: of the socket. owner: a process id."""
    for name in modules:
        importlib.import_module(name)
    sys.path.remove(str(Path(__file__).parent))
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the programs
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        ForkingPopen.python = str(Path(path).with_name("python"))
        Server(listener, int(owner)).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
