"""An engine with made-up times, to test the pipeline and its overhead.

Nothing it reports is a measurement; every record, path and table names it.

By default the reported time of a call is exactly SECONDS x tokens x (1 + batch / 64); the real time is almost zero.
The environment variable FAKE_ENGINE (JSON) changes this:

``sleep_s``: real seconds per call. ``real_clock``: report real times.
``scatter``: [processes, calls], standard deviations of the logarithm of the time, between processes and between calls.
``slow``: factor on all times. ``drift``: fraction by which each call is slower than the one before.
``fault``, in generate: error, io-error, oom, nan-clock, back-clock, nan-logits, short, padded, moody (another answer
in each call), slow (the call takes ten times as long), kill, abort (of a C++ library, with a real std::bad_alloc),
abort-silently, no-thread (libgomp cannot start a thread), bitsandbytes (a kernel finds no memory), cublas (cannot be
started), compile (a compiler's exception with out of memory behind it), hang or hog.
``after``: number of good calls before the fault. ``on_batch``: the only batch size with the fault.
``at_load``: the fault happens while loading. ``unless_new``: a file; no fault in the process that creates it.
``one_time``: per count of ``compilation``, the numbers of the calls, from 1, that raise it.
``machine_slow``: factors on the times of the yardstick, before and after.
``once``: a file; only the first fault happens, and creates it. ``holds_bytes``: real memory of a loaded model.
"""

import ctypes
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from inference_benchmark.engines.engine import Engine

#: Made-up: bytes of weights, and per row and token; seconds of a pass of the yardstick, and per token.
WEIGHTS_BYTES = {"fp32": 200_000_000, "bf16": 100_000_000, "int8": 60_000_000}
ROW_TOKEN_BYTES = 50_000
YARDSTICK_S = 0.01
SECONDS = {"fp32": 0.002, "bf16": 0.001, "int8": 0.004}


class FakeMemoryError(Exception):
    """The made-up memory is full."""


class FakeEngine(Engine):
    def __init__(self) -> None:
        self.now = 0.0
        self.limit_bytes = None
        self.in_use_bytes = self.calls = 0
        self.behaviour: dict[str, Any] = json.loads(os.environ.get("FAKE_ENGINE", "{}"))
        if self._creates(self.behaviour.get("unless_new")):
            del self.behaviour["fault"]
        process_scatter, self.call_scatter = self.behaviour.get("scatter", (0, 0))
        self.random = numpy.random.default_rng()
        self.time_factor = self.behaviour.get("slow", 1) * self.random.lognormal(0, process_scatter)
        self.machine_slow = list(self.behaviour.get("machine_slow", (1, 1)))
        if not self.behaviour.get("real_clock"):
            self.clock = lambda: self.now

    def start(self, device: str, threads: int, checkpoint: Path | None) -> None:
        self.threads = threads

    def yardstick(self) -> dict[str, Any]:
        seconds = YARDSTICK_S * self.machine_slow.pop(0)
        return {"memory_s": [seconds] * 2, "moved_bytes": 10**8, "arithmetic_s": [seconds] * 2, "flop": 10**9}

    def limit_memory(self, n_bytes: int) -> None:
        self.limit_bytes = n_bytes

    def load(self, checkpoint: Path | None, precision: str) -> None:
        self.precision = precision
        if self.behaviour.get("at_load"):
            self._misbehave(self.behaviour["fault"])
        self._allocate(0)
        self.memory_block = b"1" * self.behaviour.get("holds_bytes", 0)

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
        time_factor = self.time_factor * self.random.lognormal(0, self.call_scatter)
        time_factor *= 10 if fault == "slow" else 1
        time_factor *= (1 + self.behaviour.get("drift", 0)) ** self.calls
        time.sleep(self.behaviour.get("sleep_s", 0) * time_factor)
        self.now += {"nan-clock": float("nan"), "back-clock": -1.0}.get(
            fault, SECONDS[self.precision] * new_tokens * (1 + batch / 64) * time_factor
        )
        output = numpy.zeros((batch, new_tokens - (fault == "short")), dtype=numpy.int64)
        if fault == "moody":
            output[0, 0] = self.calls % self.vocab_size
        if fault == "padded":
            output[0, -1] = self.vocab_size
        return output

    def generate_in_steps(
        self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]
    ) -> numpy.ndarray:
        """The made-up time of the call in equal steps."""
        began = self.now
        output = self.generate(prompts, new_tokens)
        step_s = (self.now - began) / new_tokens
        rows, prompt_tokens = prompts.shape
        for step in range(new_tokens):
            self.now = began + (step + 1) * step_s
            self.in_use_bytes = WEIGHTS_BYTES[self.precision] + rows * (prompt_tokens + step + 1) * ROW_TOKEN_BYTES
            step_ended()
        return output

    def memory_in_use_bytes(self) -> int:
        return self.in_use_bytes

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        output = self.generate(prompts, new_tokens)
        return output, {"non_finite_rows": int(self._fault(len(prompts)) == "nan-logits")}

    def compilation(self) -> dict[str, Any]:
        one_time = self.behaviour.get("one_time", {})
        counts = {name: sum(call <= self.calls for call in calls) for name, calls in one_time.items()}
        return super().compilation() | counts

    def reset_peak_memory(self) -> None:
        pass

    def memory(self) -> dict[str, int]:
        return {"peak_rss_bytes": WEIGHTS_BYTES.get(getattr(self, "precision", ""), 0)}

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, (FakeMemoryError, MemoryError))

    def _creates(self, path: str | None) -> bool:
        if path is None or Path(path).exists():
            return False
        Path(path).touch()
        return True

    def _fault(self, batch: int) -> str | None:
        is_due = self.calls > self.behaviour.get("after", 0) and self.behaviour.get("on_batch", batch) == batch
        if is_due and "once" in self.behaviour:
            is_due = self._creates(self.behaviour["once"])
        return self.behaviour.get("fault") if is_due else None

    def _misbehave(self, fault: str | None) -> None:
        if fault == "error":
            raise ValueError("made-up error")
        if fault == "io-error":
            raise OSError("made-up error of a disk")
        if fault == "oom":
            raise FakeMemoryError("made-up memory is full")
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "abort":
            ctypes.CDLL("libstdc++.so.6")._ZSt17__throw_bad_allocv()
        if fault == "abort-silently":
            os.abort()
        if fault == "no-thread":
            os.write(2, b"\nlibgomp: Thread creation failed: Resource temporarily unavailable\n")
            os._exit(1)
        if fault == "bitsandbytes":
            os.write(2, b"Error out of memory at line 82 in file /src/csrc/ops.cu\n")
            os._exit(1)
        if fault == "cublas":
            raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")
        if fault == "compile":
            try:
                self._misbehave("oom")
            except FakeMemoryError:
                raise RuntimeError("the compiler failed") from None
        if fault == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault == "hog":
            blocks = []
            while True:
                blocks.append(b"1" * 10**7)

    def _allocate(self, n_bytes: int) -> None:
        wanted_bytes = WEIGHTS_BYTES[self.precision] + n_bytes
        if self.limit_bytes is not None and wanted_bytes > self.limit_bytes:
            raise FakeMemoryError(f"{wanted_bytes} bytes wanted, {self.limit_bytes} allowed")
