"""A process that has imported everything that the cells of one engine and model need, and forks a worker for each.

Importing takes several seconds, which is most of the time of a small cell. The server has used no device and started no
thread of its own, so that its forks are like other workers. measure/warm_start.py starts it and requests workers.
"""

from __future__ import annotations

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
from contextlib import suppress
from functools import partial
from pathlib import Path

from inference_benchmark import engines
from inference_benchmark.measure.warm_start import FORK, QUIT, short_path
from inference_benchmark.worker import __main__ as worker


class Server:
    """Forks a worker for each request until it is told to end or its owner ends. It waits for workers that still run.
    listener: a bound socket. folder: of the run's sockets. owner: the process, Snakemake's, that it belongs to."""

    def __init__(self, listener: socket.socket, folder: Path, owner: int) -> None:
        self.listener, self.folder, self.owner = listener, folder, os.pidfd_open(owner)
        self.selector = selectors.DefaultSelector()
        self.workers: dict[int, socket.socket] = {}
        self.selector.register(listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self.owner, selectors.EVENT_READ, self._lose_owner)

    def serve(self) -> None:
        """Until it has ended. A server whose owner has ended removes the folder of the run's sockets."""
        while self.listener.fileno() >= 0 or self.workers:
            for key, _ in self.selector.select():
                key.data()

    def _stop_listening(self) -> None:
        for readable in (self.listener, self.owner):
            if readable in self.selector.get_map():
                self.selector.unregister(readable)
        self.listener.close()

    def _lose_owner(self) -> None:
        self._stop_listening()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        message, descriptors, _, _ = socket.recv_fds(client, 1, 3)
        if message != FORK or len(descriptors) != 3:
            if message == QUIT:
                self._stop_listening()
                client.detach()  # the kernel closes it, once this process has ended and its memory is free
            client.close()
            return
        pid = os.fork()
        if pid == 0:
            self._become_worker(client, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        ended = os.pidfd_open(pid)
        self.workers[pid] = client
        self.selector.register(ended, selectors.EVENT_READ, partial(self._report_end, pid, ended))
        self.selector.register(client, selectors.EVENT_READ, partial(self._lose_client, client, ended))
        client.sendall(f"{pid}\n".encode())

    def _report_end(self, pid: int, ended: int) -> None:
        self.selector.unregister(ended)
        os.close(ended)
        returncode = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        client = self.workers.pop(pid)
        if client in self.selector.get_map():
            self.selector.unregister(client)
            client.sendall(f"{returncode}\n".encode())
        client.close()

    def _lose_client(self, client: socket.socket, ended: int) -> None:
        """The parent of a worker has ended, so its worker is killed."""
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
                sent = json.load(stream)
            os.environ.clear()
            os.environ.update(sent["variables"])
            os.chdir(sent["directory"])
            random.seed()
            status = worker.main(sent["request"], events)
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
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            targets.append(os.readlink(descriptor))
    return [target for target in targets if target.startswith("/dev/nvidia")]


def main(path: str, owner: str, engine: str, checkpoint: str, device: str, *hidden: str) -> int:
    """path: of the socket. owner: process id. checkpoint: a folder. device: ``cuda`` where a GPU is visible. hidden:
    packages that are not imported, as if they were not installed. Writes a line when it is ready."""
    sys.modules |= dict.fromkeys(hidden)
    gc.disable()  # until all is imported, which then takes a fifth less
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with short_path(Path(path)) as short:
            listener.bind(short)
        listener.listen()
        server = Server(listener, Path(path).parent, int(owner))
        engines.create(engine).import_libraries(Path(checkpoint), on_gpu=device == "cuda")
        importlib.import_module("inference_benchmark.worker.timed_calls")
        if held := device_files():
            print(f"importing {engine} opened {', '.join(held)}", flush=True)
            return 1
        gc.collect()
        gc.enable()
        gc.freeze()  # so that a fork that collects garbage does not copy the pages of all objects
        # The kernel sends SIGHUP to a group with a stopped process, such as a worker, when the starting job ends.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        print("ready", flush=True)
        # The server must not hold the output of the job that started it.
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
