"""A session on a device: held by nobody else, with one worker after the other. The parent process; no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from inference_benchmark import engines
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import CeilingsStudy, ColumnStudy, Subject
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import cgroups, conditions, gpu_lock, hardware, provenance, torch_build
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.machine.interpreter import Interpreter
from inference_benchmark.measure.environments import python_of
from inference_benchmark.measure.outcome import MeasurementError, classify
from inference_benchmark.measure.warm_start import Warm
from inference_benchmark.measure.worker_process import OnResult, WorkerProcess, WorkerReport, ignore_result
from inference_benchmark.records.parts import Reason


@dataclass
class Session:
    """A device held for a cell or study.

    python: what workers run in. gpu: None on the CPU. busy: who else uses it, for a message; None if nobody. origin:
    where and with what, for the record, from the first worker on. started_at: ISO 8601. kills_before: see
    outcome.classify.
    """

    subject: Subject
    watch: Supervision
    python: Interpreter
    gpu: Gpu | None
    busy: str | None
    origin: dict[str, Any] = field(default_factory=dict)
    started_at: str = field(default_factory=lambda: _now())
    kills_before: Mapping[str, int] = field(default_factory=cgroups.oom_kills)

    def look_around(self, task: str, threads: int | None) -> None:
        """Gather where and with what a task would be done, before a worker does it: a forked one goes to work at once,
        and nothing may disturb it."""
        worker = WorkerProcess(task, {}, threads, self.gpu, self.python.executable)
        self.origin = self.origin or _origin(self.gpu, self.python, worker.environment)

    def run_worker(
        self,
        task: str,
        order: Mapping[str, Any],
        threads: int | None,
        on_result: OnResult = ignore_result,
        warm: Warm | None = None,
    ) -> WorkerReport:
        """Let a worker do a task (a module of worker/) to its end. on_result: is given each result as it comes. warm:
        the server that it may be forked from; None where it starts cold."""
        self.look_around(task, threads)
        with WorkerProcess(task, order, threads, self.gpu, self.python.executable, warm) as worker:
            return worker.listen(self.watch, on_result)

    def classify(self, report: WorkerReport) -> tuple[str, Reason | None]:
        """(outcome, reason) of a worker that has just ended; see outcome.classify."""
        kills_after = cgroups.oom_kills()
        try:
            return classify(report, self.subject, self.origin, self.kills_before, kills_after)
        finally:
            self.kills_before = kills_after

    def where_and_when(self) -> dict[str, Any]:
        """The fields that every record has of where and when."""
        return {**self.origin, "started_at": self.started_at, "ended_at": _now()}


@contextmanager
def hold_device(subject: Subject, watch: Supervision) -> Iterator[Session]:
    """A session on a device for a subject, until the block is left. Raises MeasurementError, OSError."""
    python = python_of(subject.environment)
    gpus = _gpus(subject, python)
    with gpu_lock.hold(gpus) if gpus else nullcontext(None) as gpu:
        _check_device(gpu, subject, watch)
        yield Session(subject, watch, python, gpu, _busy(gpu, watch))


def check_engine(subject: Cell | ColumnStudy) -> None:
    """Raises MeasurementError where there is no such engine, precision or option, or where a package is missing."""
    engine = subject.base_engine
    for what, name, allowed in (
        ("engine", engine, engines.ENGINES),
        ("precision", subject.precision, engines.PRECISIONS),
    ):
        if name not in allowed:
            raise MeasurementError(f"there is no {what} {name!r}; allowed: {', '.join(allowed)}")
    for option, problem in engines.option_problems(engine, subject.options):
        raise MeasurementError(f"option {option}: {problem}")
    package = None if subject.environment else engines.missing_package(engine, subject.precision, subject.options)
    if package:
        raise MeasurementError(
            f"{subject.precision} in engine {subject.engine} needs the package {package}, which is not installed here"
        )


def _gpus(subject: Subject, python: Interpreter) -> list[Gpu]:
    """The GPUs that a subject may use, none on the CPU. Raises MeasurementError where it needs one."""
    if subject.device != "cuda":
        return []
    try:
        listed = hardware.gpus()
        gpus = hardware.visible(listed, os.environ)
    except hardware.GpuError as error:
        raise MeasurementError(str(error)) from None
    if gpus and _uses_torch(subject) and (problem := torch_build.problem(python.torch)):
        raise MeasurementError(problem)
    if not gpus:
        variable = os.environ.get("CUDA_VISIBLE_DEVICES", "not set") or "empty"
        raise MeasurementError(
            "the cell asks for cuda and no GPU is visible here "
            f"(NVML lists {len(listed)}, CUDA_VISIBLE_DEVICES is {variable})"
        )
    return gpus


def _uses_torch(subject: Subject) -> bool:
    return isinstance(subject, CeilingsStudy) or engines.ENGINES[subject.base_engine].needs_weights


def _check_device(gpu: Gpu | None, subject: Subject, watch: Supervision) -> None:
    """Raises MeasurementError unless this is the hardware that the machine's label stands for."""
    name = gpu.name if gpu else hardware.cpu_name()
    if not hardware.is_called(name, watch.device_name):
        where = provenance.node_name()
        raise MeasurementError(
            f"this is {name} on {where}, and machines.{subject.machine}.device_name asks for "
            f"{watch.device_name!r}; nothing was measured"
        )


def _busy(gpu: Gpu | None, watch: Supervision) -> str | None:
    """Who else uses the GPU, for a message. Raises MeasurementError where nobody else may."""
    users = conditions.busy(gpu) if gpu else None
    if users and watch.exclusive == "fail":
        raise MeasurementError(f"GPU {gpu.uuid} is in use: {users}; wait, or set watch.exclusive: warn")
    if users:
        print(f"GPU {gpu.uuid} is in use: {users}; the cell is measured and flagged", file=sys.stderr)
    return users


def _origin(gpu: Gpu | None, python: Interpreter, environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        "software": python.software,
        "device": provenance.device(gpu),
        "host": provenance.host(),
        "variables": provenance.environment(environment),
        "git": provenance.git(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
