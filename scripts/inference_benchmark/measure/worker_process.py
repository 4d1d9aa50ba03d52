"""A worker process as its parent sees it: its order, the events it sends, and its end. Imports no torch.

While a worker measures, its parent sleeps on a pipe and wakes a few times a second to look at the device. On two
cores, a parent that polls would be half of what gets measured.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import conditions, hardware
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.measure import warm_start
from inference_benchmark.measure.warm_start import ForkedWorker, Warm
from inference_benchmark.models import checkpoint
from inference_benchmark.records.parts import Run

#: Where numerical libraries read the number of their threads.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
#: What asks a parent to stop.
STOPPING = (signal.SIGINT, signal.SIGTERM)
#: Is given each result of a study as it comes.
OnResult = Callable[[Mapping[str, Any]], None]
#: How much of a worker's last output is kept.
_KEPT_BYTES = 4096


def ignore_result(result: Mapping[str, Any]) -> None:
    """The OnResult of a task whose results are of use only together."""


@dataclass
class WorkerReport:
    """What a worker reported until its end.

    phase: what it did last. calls_s: seconds of its calls by phase. tokens_sha256: digests of its different answers.
    results: of a study. trying: the batch size it tried last. conditions: of the device meanwhile. yardstick: times
    ``before`` and ``after``. end: its last event, with the outcome; None where it sent none. last_output: the end of
    what it and its libraries printed.
    """

    phase: str = "start"
    load_s: float | None = None
    calls_s: dict[str, list[float]] = field(default_factory=dict)
    tokens_sha256: dict[str, None] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    trying: int | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    energy: dict[str, Any] | None = None
    energy_error: str | None = None
    yardstick: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    returncode: int | None = None
    last_output: str = ""

    def receive(self, event: Mapping[str, Any]) -> None:
        """Note one event of the worker."""
        match event["event"]:
            case "phase":
                self.phase = event["phase"]
            case "load":
                self.load_s = event["seconds"]
            case "calls":
                self.calls_s[event["phase"]] = event["seconds"]
                if event["phase"] != "first-token":
                    self.tokens_sha256 |= dict.fromkeys(event["tokens_sha256"])
            case "trying":
                self.trying = event["batch_size"]
            case "result":
                self.results.append({key: value for key, value in event.items() if key != "event"})
            case "memory":
                self.memory = event["memory"]
            case "describe":
                self.model |= event["model"]
            case "energy":
                self.energy, self.energy_error = event.get("energy"), event.get("error")
            case "yardstick":
                self.yardstick[event["when"]] = event["times"]
            case "end":
                self.end = dict(event)

    def run(self) -> Run:
        """The part of it that the record of a cell keeps."""
        return Run(
            load_s=self.load_s,
            warmup_s=tuple(self.calls_s.get("warm-up", ())),
            samples_s=tuple(self.calls_s.get("measure", ())),
            first_token_s=tuple(self.calls_s.get("first-token", ())),
            tokens_sha256=tuple(self.tokens_sha256),
            memory=self.memory,
            energy=self.energy,
            conditions=self.conditions,
            yardstick=self.yardstick or None,
        )


class WorkerProcess:
    """A worker process, ended when the block is left, however it is left."""

    def __init__(
        self,
        task: str,
        order: Mapping[str, Any],
        threads: int | None,
        gpu: Gpu | None,
        python: str = sys.executable,
        warm: Warm | None = None,
    ) -> None:
        """task: a module of worker/. order: the argument of its run. threads: None is hardware.default_threads. python:
        the executable that it runs in. warm: the server that it is forked from, if it can be."""
        self.gpu, self.python, self.warm = gpu, python, warm
        self.request = json.dumps({"task": task, "order": order, "gpu": asdict(gpu) if gpu else None})
        # Snakemake sets these to the rule's threads, which count jobs here, not cores. Weights are on disk
        # by now, so the hub is not asked. The worker sees the held device and no other.
        self.environment = checkpoint.child_environment(
            python,
            **dict.fromkeys(_THREADS, str(threads or hardware.default_threads())),
            HF_HUB_OFFLINE="1",
            CUDA_DEVICE_ORDER="PCI_BUS_ID",
        )
        if gpu:
            self.environment["CUDA_VISIBLE_DEVICES"] = gpu.uuid

    def __enter__(self) -> WorkerProcess:
        self.pipe, writing_end = os.pipe()
        self.printed = b""
        self.process = None
        try:
            try:
                self.process = self._forked(writing_end)
                if self.process is None:
                    self._start(writing_end)
            finally:
                os.close(writing_end)
        except BaseException:  # a signal, too
            self.__exit__()
            raise
        return self

    def _forked(self, writing_end: int) -> ForkedWorker | None:
        """The worker as a fork of a server; None where it has to start cold."""
        if self.warm is None or not warm_start.is_possible():
            return None
        try:
            return warm_start.fork_worker(self.warm, self.python, self.request, self.environment, writing_end)
        except (warm_start.WarmStartError, OSError) as error:
            print(f"the worker starts cold: {error}", file=sys.stderr)
            return None

    def _start(self, writing_end: int) -> None:
        """Start the worker cold. A signal waits until the process is known: it would not be ended otherwise.

        The worker inherits that the signals are blocked, and unblocks them.
        """
        command = [self.python, "-m", "inference_benchmark.worker", self.request, str(writing_end)]
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                pass_fds=[writing_end],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def listen(self, watch: Supervision, on_result: OnResult = ignore_result) -> WorkerReport:
        """Sleep until the worker has ended or its time is up; look at the device while calls are timed.

        Each try of a search has that time for itself.
        """
        report, unread, deadline = WorkerReport(), b"", time.monotonic() + watch.timeout_s
        report.model["start"] = "forked" if isinstance(self.process, ForkedWorker) else "cold"
        waiting, output = select.poll(), self.process.stdout.fileno()
        waiting.register(self.pipe, select.POLLIN)
        waiting.register(output, select.POLLIN)
        next_look = None  # only while calls are timed
        with conditions.Sampler(self.gpu, self.process.pid) as sampler:
            while True:
                now = time.monotonic()
                if now >= deadline:
                    return self._stop(report, watch)
                if next_look is not None and now >= next_look:
                    sampler.sample()
                    next_look = now + 1 / watch.sample_hz
                until = deadline if next_look is None else min(deadline, next_look)
                ready = [descriptor for descriptor, _ in waiting.poll(max(0, until - time.monotonic()) * 1000)]
                if output in ready and not self._pass_on_output():
                    waiting.unregister(output)
                if self.pipe not in ready:
                    continue
                received = os.read(self.pipe, 2**16)
                if not received:
                    break
                *lines, unread = (unread + received).split(b"\n")  # a killed worker may leave half a line
                for event in map(json.loads, lines):
                    report.receive(event)
                    if event["event"] == "trying":
                        deadline = time.monotonic() + watch.timeout_s
                    elif event["event"] == "result":
                        on_result(report.results[-1])
                    elif event["event"] == "phase" and event["phase"] == "measure":
                        sampler.open()
                        next_look = time.monotonic() + 1 / watch.sample_hz
                    elif next_look is not None and _ends_timed_calls(event):
                        sampler.close()
                        next_look, report.conditions = None, sampler.summary()
        try:
            report.returncode = self.process.wait(timeout=max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return self._stop(report, watch)
        report.last_output = self._rest_of_output()
        return report

    def _pass_on_output(self) -> bool:
        """Print what the worker has printed, and keep the end of it. False where it prints no more."""
        data = os.read(self.process.stdout.fileno(), 2**16)
        sys.stderr.buffer.write(data)
        sys.stderr.flush()
        self.printed = (self.printed + data)[-_KEPT_BYTES:]
        return bool(data)

    def _rest_of_output(self) -> str:
        """The end of all output of a worker that has ended; processes that it left behind are not waited for."""
        os.set_blocking(self.process.stdout.fileno(), False)
        with suppress(BlockingIOError):
            while self._pass_on_output():
                pass
        return self.printed.decode(errors="replace")

    def _stop(self, report: WorkerReport, watch: Supervision) -> WorkerReport:
        """Kill the worker, and note it in the report."""
        stopped = ", stopped by a signal," if _state(self.process.pid) == "T" else ""
        self.process.kill()
        self.process.wait()
        self._rest_of_output()
        what = f" of the try of batch size {report.trying}" if report.trying else ""
        report.end = {
            "outcome": "timeout",
            "message": f"no end{what} after {watch.timeout_s:g} s; the worker{stopped} was killed",
        }
        return report

    def __exit__(self, *_: object) -> None:
        os.close(self.pipe)
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        if isinstance(self.process, ForkedWorker):
            self.process.close()


def _ends_timed_calls(event: Mapping[str, Any]) -> bool:
    return event["event"] == "end" or (event["event"] == "phase" and event["phase"] == "yardstick")


def _state(pid: int) -> str | None:
    """The kernel's letter for what a process is doing (proc(5)): R, S, T for stopped; None where it does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None
