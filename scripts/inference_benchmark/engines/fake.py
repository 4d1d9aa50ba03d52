"""An engine that makes up its times, for tests of the pipeline and of its own overhead.

Without FAKE_ENGINE a call takes SECONDS x tokens x (1 + batch / 64), exactly, and no time at all.

Nothing it reports is a measurement; every record, path and table names it.

FAKE_ENGINE in the environment, JSON, makes it misbehave:
``sleep_s``: real seconds per call. ``real_clock``: the clock tells these, so that a call takes what it takes.
``scatter``: [processes, calls], standard deviations of the logarithm of the time, drawn anew in each.
``slow``: calls take so many times as long. ``drift``: each call takes this part longer than the one before.
``fault``: error, io-error, oom, nan-clock, back-clock, nan-logits, short, padded, moody (another answer each call),
kill, hang or hog, in generate;
``after``: calls that go well before the fault; ``on_batch``: the only batch size with the fault;
``at_load``: the fault comes while loading; ``unless_new``: a file, the process that makes it has no fault;
``once``: a file, the fault that makes it is the last. ``holds_bytes``: real memory that a loaded model takes.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy

from inference_benchmark.engines import Engine

#: Made-up model: bytes of weights and per row and token, seconds per call, token and row.
WEIGHTS_BYTES = {"fp32": 200_000_000, "bf16": 100_000_000, "int8": 60_000_000}
ROW_TOKEN_BYTES = 50_000
SECONDS = {"fp32": 0.002, "bf16": 0.001, "int8": 0.004}


class FakeMemoryError(Exception):
    """The made-up memory is full."""


class FakeEngine(Engine):
    def __init__(self) -> None:
        self.now = 0.0
        self.limit = None
        self.calls = 0
        self.behaviour: dict[str, Any] = json.loads(os.environ.get("FAKE_ENGINE", "{}"))
        if self._makes(self.behaviour.get("unless_new")):
            del self.behaviour["fault"]
        of_process, self.of_call = self.behaviour.get("scatter", (0, 0))
        self.random = numpy.random.default_rng()
        self.pace = self.behaviour.get("slow", 1) * self.random.lognormal(0, of_process)
        if not self.behaviour.get("real_clock"):
            self.clock = lambda: self.now

    def start(self, device: str, threads: int, checkpoint: Path | None) -> None:
        self.threads = threads

    def limit_memory(self, n_bytes: int) -> None:
        self.limit = n_bytes

    def load(self, checkpoint: Path | None, precision: str) -> None:
        self.precision = precision
        if self.behaviour.get("at_load"):
            self._misbehave(self.behaviour["fault"])
        self._allocate(0)
        self.held = b"1" * self.behaviour.get("holds_bytes", 0)

    @property
    def vocab_size(self) -> int:
        return 1000

    def describe(self) -> dict[str, Any]:
        return {"class": "Fake", "parameters": 0, "weights_bytes": WEIGHTS_BYTES[self.precision]}

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        batch, prompt_tokens = prompts.shape
        self._allocate(batch * (prompt_tokens + new_tokens) * ROW_TOKEN_BYTES)
        self.calls += 1
        fault = self._fault(batch)
        self._misbehave(fault)
        pace = self.pace * self.random.lognormal(0, self.of_call)
        pace *= (1 + self.behaviour.get("drift", 0)) ** self.calls
        time.sleep(self.behaviour.get("sleep_s", 0) * pace)
        self.now += {"nan-clock": float("nan"), "back-clock": -1.0}.get(
            fault, SECONDS[self.precision] * new_tokens * (1 + batch / 64) * pace
        )
        output = numpy.zeros((batch, new_tokens - (fault == "short")), dtype=numpy.int64)
        if fault == "moody":
            output[0, 0] = self.calls % self.vocab_size
        if fault == "padded":
            output[0, -1] = self.vocab_size
        return output

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        output = self.generate(prompts, new_tokens)
        return output, {"non_finite_rows": int(self._fault(len(prompts)) == "nan-logits")}

    def reset_peak_memory(self) -> None:
        pass

    def memory(self) -> dict[str, int]:
        return {"peak_rss_bytes": WEIGHTS_BYTES.get(getattr(self, "precision", ""), 0)}

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, FakeMemoryError)

    def _makes(self, path: str | None) -> bool:
        if path is None or Path(path).exists():
            return False
        Path(path).touch()
        return True

    def _fault(self, batch: int) -> str | None:
        due = self.calls > self.behaviour.get("after", 0) and self.behaviour.get("on_batch", batch) == batch
        if due and "once" in self.behaviour:
            due = self._makes(self.behaviour["once"])
        return self.behaviour.get("fault") if due else None

    def _misbehave(self, fault: str | None) -> None:
        if fault == "error":
            raise ValueError("made-up error")
        if fault == "io-error":
            raise OSError("made-up error of a disk")
        if fault == "oom":
            raise FakeMemoryError("made-up memory is full")
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault == "hog":
            hoard = []
            while True:
                hoard.append(b"1" * 10**7)

    def _allocate(self, n_bytes: int) -> None:
        wanted = WEIGHTS_BYTES[self.precision] + n_bytes
        if self.limit is not None and wanted > self.limit:
            raise FakeMemoryError(f"{wanted} bytes wanted, {self.limit} allowed")
