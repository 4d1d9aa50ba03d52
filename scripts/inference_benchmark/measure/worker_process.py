"""A worker process from the view of its parent: its start, the facts that it sends, and its end. Imports no torch.

While a worker measures, its parent sleeps on a pipe and wakes a few times a second to sample the device. On two cores,
a parent that polls would take half of what is measured.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inference_benchmark.cli import signals_wait
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import cgroups, conditions, hardware, interpreter, variables
from inference_benchmark.measure.warm_start import (
    PIPED,
    ForkedWorker,
    ForkServer,
    WarmStartError,
    end_without_owner,
    owner,
)
from inference_benchmark.records.parts import Run

#: Is called with each result of a study when it comes.
OnResult = Callable[[Mapping[str, Any]], None]


def worker_variables(python: str, gpus: Sequence[hardware.Gpu], threads: int | None) -> dict[str, str]:
    """The environment variables of a worker. threads: None is hardware.default_threads.

    Snakemake sets the variables of numerical libraries to the rule's threads, which count jobs here, not cores. Weights
    are on disk, so the hub is not asked. The worker sees the held devices and no other. Containers of NVIDIA ask for
    TF32; a variant of an engine does so by its option.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    ours = dict.fromkeys(names, str(threads or hardware.default_threads()))
    if gpus:
        ours["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.uuid for gpu in gpus)
    environ = interpreter.child_environment(python, **ours, HF_HUB_OFFLINE="1", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    return {name: value for name, value in environ.items() if name not in variables.NOT_INHERITED}


@dataclass
class WorkerReport:
    """What a worker reported until its end.

    phase: its last one. calls_s: seconds of its calls by phase. tokens_sha256: digests of its different answers.
    results: of a study. trying: the batch size of the last try. end: the outcome and facts about it; None if it sent
    none. peer: of a model that is split over several processes, the one whose end ended it. energy_error,
    profile_error: why the record has none. waited_s, is_quiet: how long it waited for others to leave the CPUs alone,
    and whether they did; None where it did not. compiled_calls: as of Run. conditions: of the device during timed
    calls. last_output: the end of what it and its libraries printed.
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
    profile_error: str | None = None
    yardstick: dict[str, Any] = field(default_factory=dict)
    waited_s: float | None = None
    is_quiet: bool | None = None
    compiled_calls: int | None = None
    end: dict[str, Any] | None = None
    peer: str = ""
    conditions: dict[str, Any] = field(default_factory=dict)
    returncode: int | None = None
    last_output: str = ""

    def receive(self, facts: Mapping[str, Any]) -> None:
        """Note facts by the names of these fields. Mappings and lists grow, other values are replaced."""
        for name, value in facts.items():
            match getattr(self, name):
                case dict() as known:
                    known.update(value)
                case list() as known:
                    known.extend(value)
                case _:
                    setattr(self, name, value)

    def run(self) -> Run:
        """The part that the record of a cell keeps."""
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
            waited_s=self.waited_s,
            compiled_calls=self.compiled_calls,
        )


@dataclass
class WorkerProcess:
    """A worker process, ended when the block is left, however it is left.

    task: a module of worker/. inputs: the arguments of its run. variables: the worker's environment variables. python:
    the executable that it runs in. server: that it is forked from if possible; None: it starts cold.
    """

    task: str
    inputs: Mapping[str, Any]
    gpus: Sequence[hardware.Gpu]
    variables: Mapping[str, str]
    python: str = sys.executable
    server: ForkServer | None = None

    def __enter__(self) -> WorkerProcess:
        self.owner, (self.pipe, writing_end) = owner(), os.pipe()
        self.printed, self.process = b"", None
        try:
            try:
                self._start(writing_end)
            finally:
                os.close(writing_end)
        except BaseException:  # also for a signal
            self.__exit__()
            raise
        return self

    def _start(self, writing_end: int) -> None:
        """Fork the worker from the server if that is possible, else start it cold."""
        gpus = list(map(asdict, self.gpus))
        request = json.dumps({"task": self.task, "inputs": self.inputs, "gpus": gpus})
        if self.server and self.owner is not None:
            try:
                self.process = self.server.fork(self.python, request, self.variables, writing_end)
                return
            except (WarmStartError, OSError) as error:
                print(f"the worker starts cold: {error}", file=sys.stderr)
        command = [self.python, "-m", "inference_benchmark.worker", request, str(writing_end)]
        with signals_wait():  # the worker unblocks them
            self.process = subprocess.Popen(command, env=self.variables, pass_fds=[writing_end], **PIPED)

    def listen(self, watch: Supervision, on_result: OnResult | None = None) -> WorkerReport:
        """Sleep until the worker has ended or its time is up; sample the device while calls are timed.
        Each try of a search has this time for itself. Ends this process if Snakemake has ended."""
        report, unread, deadline = WorkerReport(), b"", time.monotonic() + watch.timeout_s
        report.model["start"] = "forked" if isinstance(self.process, ForkedWorker) else "cold"
        waiting, output = select.poll(), self.process.stdout.fileno()
        for descriptor in (self.pipe, output, self.owner):
            if descriptor is not None:
                waiting.register(descriptor, select.POLLIN)
        next_sample = None  # only while calls are timed
        with conditions.Sampler(self.gpus, self.process.pid) as sampler:
            while True:
                now = time.monotonic()
                if now >= deadline:
                    return self._stop(report, watch)
                if next_sample is not None and now >= next_sample:
                    sampler.sample()
                    next_sample = now + 1 / watch.sample_hz
                until = deadline if next_sample is None else min(deadline, next_sample)
                ready = [descriptor for descriptor, _ in waiting.poll(max(0, until - time.monotonic()) * 1000)]
                if self.owner in ready:
                    end_without_owner()
                if output in ready and not self._pass_on_output():
                    waiting.unregister(output)
                if self.pipe not in ready:
                    continue
                received = os.read(self.pipe, 2**16)
                if not received:
                    break
                *lines, unread = (unread + received).split(b"\n")  # a killed worker may leave half a line
                for facts in map(json.loads, lines):
                    report.receive(facts)
                    if "trying" in facts:
                        deadline = time.monotonic() + watch.timeout_s
                    for result in facts.get("results", ()) if on_result else ():
                        on_result(result)
                    if facts.get("phase") == "measure":
                        sampler.open()
                        next_sample = time.monotonic() + 1 / watch.sample_hz
                    elif next_sample is not None and ("end" in facts or facts.get("phase") == "yardstick"):
                        sampler.close()
                        next_sample, report.conditions = None, sampler.summary()
        try:
            report.returncode = self.process.wait(timeout=max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return self._stop(report, watch)
        report.last_output = self._rest_of_output()
        return report

    def _pass_on_output(self) -> bool:
        """Print what the worker has printed, and keep the end of it. False if it has closed its output."""
        data = os.read(self.process.stdout.fileno(), 2**16)
        sys.stderr.buffer.write(data)
        sys.stderr.flush()
        self.printed = (self.printed + data)[-4096:]
        return bool(data)

    def _rest_of_output(self) -> str:
        """The end of all output of a worker that has ended, without waiting for processes that it left behind."""
        os.set_blocking(self.process.stdout.fileno(), False)
        with suppress(BlockingIOError):
            while self._pass_on_output():
                pass
        return self.printed.decode(errors="replace")

    def _stop(self, report: WorkerReport, watch: Supervision) -> WorkerReport:
        """Kill the worker, and note it in the report."""
        state = cgroups.read(Path(f"/proc/{self.process.pid}/stat")).rpartition(")")[2]  # proc(5): T for stopped
        stopped = ", stopped by a signal," if state.startswith(" T") else ""
        self.process.kill()
        self.process.wait()
        self._rest_of_output()
        what = f" of the try of batch size {report.trying}" if report.trying else ""
        message = f"no end{what} after {watch.timeout_s:g} s; the worker{stopped} was killed"
        report.end = {"outcome": "timeout", "message": message}
        return report

    def __exit__(self, *_: object) -> None:
        os.close(self.pipe)
        if self.owner is not None:
            os.close(self.owner)
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        if isinstance(self.process, ForkedWorker):
            self.process.close()
