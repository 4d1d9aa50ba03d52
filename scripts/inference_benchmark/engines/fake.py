"""An engine that makes up its times, exactly, for tests of the pipeline and of its own overhead.

Nothing it reports is a measurement; every record, path and table names it.

FAKE_ENGINE in the environment, JSON, makes it misbehave:
``sleep_s``: real seconds per call; ``fault``: error, nan-clock, short, padded, kill or hog, in generate;
``after``: calls that go well before the fault; ``on_batch``: the only batch size with the fault.
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
        self.clock = lambda: self.now

    def start(self, device: str, threads: int, checkpoint: Path | None) -> None:
        self.threads = threads

    def unsupported(self, precision: str) -> str | None:
        return None if precision in SECONDS else f"the fake engine has no {precision}"

    def limit_memory(self, n_bytes: int) -> None:
        self.limit = n_bytes

    def load(self, checkpoint: Path | None, precision: str) -> None:
        self.precision = precision
        self._allocate(0)

    @property
    def vocab_size(self) -> int:
        return 1000

    def describe(self) -> dict[str, Any]:
        return {"class": "Fake", "parameters": 0, "weights_bytes": WEIGHTS_BYTES[self.precision]}

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        batch, prompt_tokens = prompts.shape
        self._allocate(batch * (prompt_tokens + new_tokens) * ROW_TOKEN_BYTES)
        self.calls += 1
        due = self.calls > self.behaviour.get("after", 0) and self.behaviour.get("on_batch", batch) == batch
        fault = self.behaviour.get("fault") if due else None
        time.sleep(self.behaviour.get("sleep_s", 0))
        if fault == "error":
            raise ValueError("made-up error")
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hog":
            hoard = []
            while True:
                hoard.append(b"1" * 10**7)
        self.now += float("nan") if fault == "nan-clock" else SECONDS[self.precision] * new_tokens * (1 + batch / 64)
        output = numpy.zeros((batch, new_tokens - (fault == "short")), dtype=numpy.int64)
        if fault == "padded":
            output[0, -1] = self.vocab_size
        return output

    def synchronize(self) -> None:
        pass

    def memory(self) -> dict[str, int]:
        return {"peak_rss_bytes": WEIGHTS_BYTES.get(getattr(self, "precision", ""), 0)}

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, FakeMemoryError)

    def _allocate(self, n_bytes: int) -> None:
        wanted = WEIGHTS_BYTES[self.precision] + n_bytes
        if self.limit is not None and wanted > self.limit:
            raise FakeMemoryError(f"{wanted} bytes wanted, {self.limit} allowed")
