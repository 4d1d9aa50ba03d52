"""The other processes of a model that is split over several (engines/hf_tensor.py). The worker is the first of them: it
starts the others, which are workers too, and has them do what it does.

What one of them computes needs all: without one the others wait, on a GPU for ever. So if one ends, all do, in its way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from multiprocessing.connection import Connection, Pipe
from signal import raise_signal
from threading import Thread
from typing import TYPE_CHECKING, Any

from inference_benchmark import engines
from inference_benchmark.engines.options import gpus_of

if TYPE_CHECKING:
    from inference_benchmark.worker.engine_session import EngineSession

#: Another process that ends is noticed sooner than this after its connections are closed.
_NOTICED_S = 1.0


class Peers:
    """In the first process: the others, with the engine of its session."""

    rank = 0

    def __init__(self, session: EngineSession, engine: str, options: Mapping[str, Any]) -> None:
        """engine, options: as of engines.create."""
        self.session, self.is_closed, self.is_at_work, self.has_failed = session, False, False, False
        count, started = gpus_of(options), []
        for rank in range(1, count):
            (ours, theirs), (reading, writing) = Pipe(), os.pipe()
            inputs = {"engine": engine, "options": dict(options), "precision": session.precision, "rank": rank}
            inputs["commands"] = theirs.fileno()
            request = {"task": "peers", "inputs": inputs, "gpus": list(map(asdict, session.gpus))}
            command = [sys.executable, "-m", "inference_benchmark.worker", json.dumps(request), str(writing)]
            kept = [theirs.fileno(), writing]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=kept)
            theirs.close()
            os.close(writing)
            started.append((f"process {rank + 1} of {count}", process, ours, reading))
        self._connections = [connection for _, _, connection, _ in started]
        self._watches = [
            Thread(target=self._watch, args=(name, process, reading), daemon=True)
            for name, process, _, reading in started
        ]
        for watch in self._watches:
            watch.start()

    @contextmanager
    def doing(self, method: str, *arguments: Any) -> Iterator[list[Any]]:
        """Have the other engines do what the block does, until all have done it. Yields a list, for what their methods
        return."""
        answers: list[Any] = []
        if self.is_closed or self.is_at_work:  # the block is a part of what they do already
            yield answers
            return
        self.is_at_work = True
        try:
            if self.has_failed:
                raise RuntimeError("this process had an exception, and the others wait for it")
            for connection in self._connections:
                connection.send((self.session.phase, method, arguments))
            yield answers
            answers += [connection.recv() for connection in self._connections]
        except Exception:
            self.has_failed = True
            time.sleep(_NOTICED_S)  # if the reason is that one of them has ended, this process ends meanwhile
            raise
        finally:
            self.is_at_work = False

    def ask(self, method: str) -> list[Any]:
        """What a method of the other engines returns; nothing if they may wait for this process for ever."""
        if self.has_failed:
            return []
        with self.doing(method) as answers:
            pass
        return answers

    def close(self) -> None:
        """End them, and wait until they have ended."""
        self.is_closed = True
        for connection in self._connections:
            connection.close()
        for watch in self._watches:
            watch.join()

    def _watch(self, name: str, process: subprocess.Popen, events: int) -> None:
        """Until another process ends. Unless it was told to, end this one in the same way."""
        with os.fdopen(events, encoding="utf-8") as lines:
            # A killed one may leave half a line.
            ends = (json.loads(line)["end"] for line in lines if line.startswith('{"end"') and line.endswith("\n"))
            end = next(ends, None)
        if end and end["outcome"] != "ok":
            self.session.emit(end={**end, "message": f"{name}: {end['message']}"})
            os._exit(1)
        status = process.wait()
        if end is None:
            self.session.emit(peer=name)
            if status < 0:
                raise_signal(-status)  # to this thread: os.kill may choose another one, which takes it too late
            os._exit(max(status, 1))


class Member:
    """In another process: its place among all. Its engine does what it is told, and tells nobody."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def doing(self, method: str, *arguments: Any) -> nullcontext[None]:
        return nullcontext()

    def ask(self, method: str) -> list[Any]:
        return []


def run(
    session: EngineSession, engine: str, options: Mapping[str, Any], precision: str, rank: int, commands: int
) -> None:
    """In another process: do what the first one tells until it ends. commands: the descriptor of its connection."""
    os.set_inheritable(commands, False)
    connection, session.precision = Connection(commands), precision
    session.engine = engines.create(engine, options)
    session.engine.group = Member(rank)
    while True:
        try:
            session.phase, method, arguments = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(getattr(session.engine, method)(*arguments))
