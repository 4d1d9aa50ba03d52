"""A device that is held for a cell or study, with one worker after the other. In the parent process; no torch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from inference_benchmark import engines
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import CeilingsStudy, ColumnStudy
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import cgroups, conditions, gpu_lock, hardware, provenance, torch_build, variables
from inference_benchmark.machine.interpreter import Interpreter
from inference_benchmark.measure.environments import python_of
from inference_benchmark.measure.outcome import MeasurementError, classify, is_of_host
from inference_benchmark.measure.run_notes import notes_of_run
from inference_benchmark.measure.warm_start import ForkServer, end_servers
from inference_benchmark.measure.worker_process import OnResult, WorkerProcess, WorkerReport, worker_variables
from inference_benchmark.records.parts import Reason

#: Where and with what a cell or study is measured: the setup of a subject.
Setup = Cell | ColumnStudy | CeilingsStudy
#: A server holds about 0.3 GB. Below this limit of a cgroup, those of a few engines are a large part of it.
_AMPLE_BYTES = 8 * 10**9


@dataclass
class HeldDevice:
    """A device held for a cell or study.

    gpus: none on the CPU. users: who else uses them, for a message; None if nobody does. python: what workers run in.
    variables: their environment variables. origin: where and with what, for the record. started_at: ISO 8601.
    """

    setup: Setup
    watch: Supervision
    gpus: Sequence[hardware.Gpu]
    users: str | None
    python: str
    variables: Mapping[str, str]
    origin: Mapping[str, Any]
    started_at: str

    def run_worker(
        self, task: str, inputs: Mapping[str, Any], on_result: OnResult | None = None, server: ForkServer | None = None
    ) -> tuple[WorkerReport, str, Reason | None]:
        """(report, outcome, reason) of a worker that does a task to its end; arguments as of WorkerProcess and listen.

        Servers of workers hold memory while they wait. Where it is scarce, those of other engines end before, and
        before a worker that needs no server all do. A worker that ran out of memory beside one has another try without.
        Raises MeasurementError, as outcome.classify, and OSError.
        """
        limit = self.origin["host"]["memory_limit"]
        if server is None or (limit and limit["bytes"] < _AMPLE_BYTES):
            end_servers(self.python, self.variables, but=server)
        ended = _, outcome, reason = self._run(task, inputs, on_result, server)
        if server and outcome == "oom" and is_of_host(reason) and end_servers(self.python, self.variables):
            print(f"out of memory during {reason.phase} beside idle servers of workers: once more", file=sys.stderr)
            return self._run(task, inputs, on_result, None)
        return ended

    def _run(
        self, task: str, inputs: Mapping[str, Any], on_result: OnResult | None, server: ForkServer | None
    ) -> tuple[WorkerReport, str, Reason | None]:
        kills_before = cgroups.oom_kills()
        with WorkerProcess(task, inputs, self.gpus, self.variables, self.python, server) as worker:
            report = worker.listen(self.watch, on_result)
        return report, *classify(report, self.setup, self.origin, kills_before, cgroups.oom_kills())

    def where_and_when(self) -> dict[str, Any]:
        """The fields that all records have about where and when."""
        return {**self.origin, "started_at": self.started_at, "ended_at": _now()}


@contextmanager
def hold_device(setup: Setup, watch: Supervision) -> Iterator[HeldDevice]:
    """Hold a device for a setup until the block is left. Raises MeasurementError, OSError."""
    python = python_of(setup.environment)
    visible = _gpus(setup, python)
    with gpu_lock.hold(visible, setup.gpus) if visible else nullcontext(()) as gpus:
        users, started_at = _other_users(gpus, setup, watch), _now()
        environ = worker_variables(python.executable, gpus, setup.threads)
        origin = {
            "software": python.software,
            "device": provenance.device(gpus),
            "host": provenance.host(),
            "variables": variables.recorded(environ),
            "git": provenance.git(),
        }
        yield HeldDevice(setup, watch, gpus, users, python.executable, environ, origin, started_at)


def check_engine(subject: Cell | ColumnStudy) -> None:
    """Raises MeasurementError if there is no such engine, precision or option, or a package is missing."""
    engine, precision = subject.base_engine, subject.precision
    for what, name, allowed in ("engine", engine, engines.ENGINES), ("precision", precision, engines.PRECISIONS):
        if name not in allowed:
            raise MeasurementError(f"there is no {what} {name!r}; allowed: {', '.join(allowed)}")
    for option, problem in engines.option_problems(engine, subject.options):
        raise MeasurementError(f"option {option}: {problem}")
    if not subject.environment and (package := engines.missing_package(engine, precision, subject.options)):
        needs = f"{precision} in engine {subject.engine} needs the package {package}"
        raise MeasurementError(f"{needs}, which is not installed here")
    on_gpu = subject.device == "cuda" and not subject.environment
    if on_gpu and (lacking := engines.missing_for_gpu(engine, precision, subject.options)):
        raise MeasurementError(f"{precision} in engine {subject.engine} cannot run on this GPU: {lacking}")


def _gpus(setup: Setup, python: Interpreter) -> list[hardware.Gpu]:
    """The GPUs that a setup may use, none on the CPU. Raises MeasurementError if it needs more than there are."""
    if setup.device != "cuda":
        return []
    try:
        listed = hardware.gpus()
        gpus = hardware.visible(listed, os.environ)
    except hardware.GpuError as error:
        raise MeasurementError(str(error)) from None
    if len(gpus) < setup.gpus:
        variable = os.environ.get("CUDA_VISIBLE_DEVICES", "not set") or "empty"
        what = f"NVML lists {len(listed)}, CUDA_VISIBLE_DEVICES is {variable}"
        asks = f"{setup.gpus} GPUs and only {len(gpus)} are visible here" if gpus else "cuda and no GPU is visible here"
        raise MeasurementError(f"the cell asks for {asks} ({what})")
    uses_torch = isinstance(setup, CeilingsStudy) or engines.ENGINES[setup.base_engine].needs_weights
    if uses_torch and (problem := torch_build.problem(python.torch)):
        raise MeasurementError(problem)
    return gpus


def _other_users(gpus: Sequence[hardware.Gpu], setup: Setup, watch: Supervision) -> str | None:
    """Who else uses the GPUs, for a message. Raises MeasurementError if nobody else may, or if the hardware is not what
    the machine's label stands for."""
    for name in [gpu.name for gpu in gpus] or [hardware.cpu_name()]:
        if not hardware.is_called(name, watch.device_name):
            asks = f"machines.{setup.machine}.device_name asks for {watch.device_name!r}"
            raise MeasurementError(f"this is {name} on {provenance.node_name()}, and {asks}; nothing was measured")
    by_gpu = _users_after_wait(gpus, watch.patience_s)
    for uuid, users in by_gpu.items():
        if watch.exclusive == "fail":
            raise MeasurementError(f"GPU {uuid} is in use: {users}; wait, or set watch.exclusive: warn")
        print(f"GPU {uuid} is in use: {users}; the cell is measured and flagged", file=sys.stderr)
    return "; ".join(by_gpu.values()) or None


def _users_after_wait(gpus: Sequence[hardware.Gpu], patience_s: float) -> dict[str, str]:
    """Who still uses which GPU after a wait for them to leave it, for a message."""

    def users() -> dict[str, str]:
        return {gpu.uuid: who for gpu in gpus if (who := conditions.busy(gpu))}

    by_gpu = users()
    if not by_gpu:
        return {}
    with notes_of_run() as notes:
        until = time.monotonic() + notes.worth(patience_s)
    while by_gpu and time.monotonic() < until:
        time.sleep(1)
        by_gpu = users()
    with notes_of_run() as notes:
        notes.escaped(not by_gpu)
    return by_gpu


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
