"""A process that has imported everything that the cells of one engine and model need, and forks a worker for each.

Importing takes several seconds and is most of a small cell. The server has touched no device and started no thread of
its own, so that a fork of it is a worker like any other. measure/warm_start.py starts it and asks for workers.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import random
import selectors
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from inference_benchmark import engines
from inference_benchmark.measure.warm_start import FORK, QUIT
from inference_benchmark.worker import __main__ as worker


class Server:
    """Forks a worker for each request until it is told to end or its owner ends; workers that run are waited for.

    listener: a bound socket. owner: the process, Snakemake's, that it belongs to.
    """

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self.listener = listener
        self.folder = Path(listener.getsockname()).parent
        self.selector = selectors.DefaultSelector()
        self.owner = os.pidfd_open(owner)
        self.workers: dict[int, socket.socket] = {}
        self.on(listener, self._accept)
        self.on(self.owner, self._lose_owner)

    def on(self, readable: socket.socket | int, react: Callable[[], None]) -> None:
        self.selector.register(readable, selectors.EVENT_READ, react)

    def serve(self) -> None:
        """Until it has ended. A server whose owner has ended removes the folder of the run's sockets."""
        while self.listener.fileno() >= 0 or self.workers:
            for key, _ in self.selector.select():
                key.data()

    def stop_listening(self) -> None:
        for readable in (self.listener, self.owner):
            if readable in self.selector.get_map():
                self.selector.unregister(readable)
        self.listener.close()

    def _lose_owner(self) -> None:
        self.stop_listening()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        wanted, descriptors = _receive(client)
        if wanted != FORK or len(descriptors) != 3:
            client.close()
            if wanted == QUIT:
                self.stop_listening()
            return
        pid = os.fork()
        if pid == 0:
            self._become_worker(client, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        ended = os.pidfd_open(pid)
        self.workers[pid] = client
        self.on(ended, lambda: self._tell_end(pid, ended))
        self.on(client, lambda: self._lose_client(pid, client, ended))
        client.sendall(f"{pid}\n".encode())

    def _tell_end(self, pid: int, ended: int) -> None:
        self.selector.unregister(ended)
        os.close(ended)
        returncode = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        client = self.workers.pop(pid)
        if client in self.selector.get_map():
            self.selector.unregister(client)
            client.sendall(f"{returncode}\n".encode())
        client.close()

    def _lose_client(self, pid: int, client: socket.socket, ended: int) -> None:
        """The parent of a worker is gone, and so is the worker then."""
        self.selector.unregister(client)
        signal.pidfd_send_signal(ended, signal.SIGKILL)

    def _become_worker(self, client: socket.socket, request: int, events: int, output: int) -> None:
        """In the fork: do the task with the environment and output of the client, and never return."""
        status = 1
        try:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            self.selector.close()
            for open_socket in (self.listener, client, *self.workers.values()):
                open_socket.close()
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            with os.fdopen(request) as stream:
                wanted = json.load(stream)
            os.environ.clear()
            os.environ.update(wanted["environment"])
            os.chdir(wanted["directory"])
            random.seed()
            status = worker.main(wanted["request"], events)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def device_files() -> list[str]:
    """The files of GPUs that this process holds open. A fork of a process with a CUDA context could not use CUDA."""
    held = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("/dev/nvidia"):
            held.append(target)
    return held


def main(path: str, owner: str, engine: str, checkpoint: str) -> int:
    """path: of the socket. owner: process id. checkpoint: a folder. Writes a line when it is ready."""
    gc.disable()  # until all is imported, which then takes a fifth less
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        engines.create(engine).import_libraries(Path(checkpoint))
        importlib.import_module("inference_benchmark.worker.cell")
        if held := device_files():
            print(f"importing {engine} opened {', '.join(held)}", flush=True)
            return 1
        gc.collect()
        gc.enable()
        gc.freeze()  # what is there stays; a fork that collects garbage would copy all of its pages
        # The kernel sends it to a group with a stopped process, such as a worker, when the job that started it ends.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        server = Server(listener, int(owner))
        print("ready", flush=True)
        # Nothing may hold the output of the job that has started the server.
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        server.serve()
    return 0


def _receive(client: socket.socket) -> tuple[bytes, list[int]]:
    """One byte and the descriptors that came with it."""
    size = array.array("i").itemsize
    message, ancillary, _, _ = client.recvmsg(1, socket.CMSG_SPACE(3 * size))
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % size])
    return message, list(descriptors)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
