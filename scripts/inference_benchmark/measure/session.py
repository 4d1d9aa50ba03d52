"""Where work is done: a device of one's own, workers on it one after the other, and how each ended. No torch."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from inference_benchmark import engines
from inference_benchmark.experiment.cells import Watch
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.machine import cgroups, conditions, gpu_lock, hardware, provenance, slurm
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.measure.worker_process import Story, WorkerProcess
from inference_benchmark.units import format_bytes


class MeasurementError(RuntimeError):
    """It could not be measured and memory is not the reason; the message says what happened."""


class CellFailure(MeasurementError):
    """The cell itself is at fault, whatever the machine: another attempt would end the same way."""


class MeasurementTimeout(CellFailure):
    """A worker had not ended when its time was up, and was killed."""


@dataclass
class Station:
    """A device held for a subject. busy: who else uses it, in words. origin: facts for the record, from the
    first worker on. started_at, ended_at: ISO 8601."""

    subject: Subject
    watch: Watch
    gpu: Gpu | None
    busy: str | None
    origin: dict[str, Any] = field(default_factory=dict)
    started_at: str = field(default_factory=lambda: _now())
    kills_before: Mapping[str, int] = field(default_factory=cgroups.oom_kills)

    def work(self, task: str, order: Mapping[str, Any], threads: int | None) -> Story:
        """Let a worker do a task (a module of tasks) to its end."""
        with WorkerProcess(task, order, threads, self.gpu) as worker:
            # Gathered while the worker is still importing, well before it loads anything.
            self.origin = self.origin or _origin(self.gpu, worker.environment)
            return worker.listen(self.watch)

    def judge(self, story: Story) -> tuple[str, dict[str, Any] | None]:
        """(outcome, reason) of a worker that has just ended; see classify."""
        kills_after = cgroups.oom_kills()
        try:
            return classify(story, self.subject, self.origin, self.kills_before, kills_after)
        finally:
            self.kills_before = kills_after

    def header(self) -> dict[str, Any]:
        """What every record holds of where and when."""
        return {**self.origin, "started_at": self.started_at, "ended_at": _now()}


@contextmanager
def occupy(subject: Subject, watch: Watch) -> Iterator[Station]:
    """A device for a subject, held by nobody else until the block is left. Raises MeasurementError, OSError."""
    gpus = _gpus(subject)
    with gpu_lock.hold(gpus) if gpus else nullcontext(None) as gpu:
        _check_device(gpu, subject, watch)
        yield Station(subject, watch, gpu, _busy(gpu, watch))


def check_known(engine: str, precision: str) -> None:
    """Raises MeasurementError where there is no such engine or precision, or the engine's package is missing."""
    for what, name, known in (("engine", engine, engines.ENGINES), ("precision", precision, engines.PRECISIONS)):
        if name not in known:
            raise MeasurementError(f"there is no {what} {name!r}; allowed: {', '.join(known)}")
    if package := engines.missing_package(engine):
        raise MeasurementError(f"engine {engine} needs the package {package}, which is not installed here")


def _gpus(subject: Subject) -> list[Gpu]:
    """The GPUs a subject may use, none for one on the CPU. Raises MeasurementError where it needs one."""
    if subject.device != "cuda":
        return []
    listed = hardware.gpus()
    gpus = hardware.visible(listed, os.environ)
    if not gpus:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "not set") or "empty"
        raise MeasurementError(
            "the cell asks for cuda and no GPU is visible here "
            f"(NVML lists {len(listed)}, CUDA_VISIBLE_DEVICES is {shown})"
        )
    return gpus


def _check_device(gpu: Gpu | None, subject: Subject, watch: Watch) -> None:
    """Raises MeasurementError where this is other hardware than the machine's label stands for."""
    name = gpu.name if gpu else hardware.cpu_name()
    if not hardware.is_called(name, watch.device_name):
        where = provenance.node_name()
        raise MeasurementError(
            f"this is {name} on {where}, and machines.{subject.machine}.device_name asks for "
            f"{watch.device_name!r}; nothing was measured"
        )


def _busy(gpu: Gpu | None, watch: Watch) -> str | None:
    """Who else uses the GPU, in words. Raises MeasurementError where that is not to be."""
    users = conditions.busy(gpu) if gpu else None
    if users and watch.exclusive == "fail":
        raise MeasurementError(f"GPU {gpu.uuid} is in use: {users}; wait, or set watch.exclusive: warn")
    if users:
        print(f"GPU {gpu.uuid} is in use: {users}; the cell is measured and flagged", file=sys.stderr)
    return users


def _origin(gpu: Gpu | None, environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        "software": provenance.software(),
        "device": provenance.device(gpu),
        "host": provenance.host(),
        "environment": provenance.environment(environment),
        "git": provenance.git(),
    }


def classify(
    story: Story,
    subject: Subject,
    origin: Mapping[str, Any],
    kills_before: Mapping[str, int],
    kills_after: Mapping[str, int],
) -> tuple[str, dict[str, Any] | None]:
    """(outcome, reason) of a worker's story.

    A worker killed by SIGKILL ran out of memory only if the kernel counted such a kill in one of our
    cgroups meanwhile. Raises MeasurementError for every other ending without a result.
    """
    end = story.end or {}
    outcome = end.get("outcome")
    if outcome == "timeout":
        raise MeasurementTimeout(f"timeout during {story.phase}: {end['message']}")
    if outcome == "ok" and story.returncode == 0:
        return "ok", None
    reason = {"phase": story.phase, "exception_type": None, "limit": None, "evidence": {}}
    if outcome == "unsupported":
        return outcome, {**reason, "message": end["message"]}
    if outcome == "oom":
        told = {key: end[key] for key in ("phase", "exception_type", "message")}
        return "oom", {**reason, **told, "limit": limit(subject, origin)}
    if outcome == "error":
        failure = MeasurementError if end["of_the_machine"] else CellFailure
        raise failure(f"{end['exception_type']} during {story.phase}: {end['message']}")
    killed_for_memory = [group for group, count in kills_after.items() if count > kills_before.get(group, count)]
    granted = origin.get("host", {}).get("memory_limit") if slurm.job_id() else None
    if story.returncode == -signal.SIGKILL and killed_for_memory and granted:
        # What the job was granted is no property of the machine: with more, the cell may fit.
        raise MeasurementError(
            f"killed for memory during {story.phase}: the job has {format_bytes(granted['bytes'])} of the host's"
            f"; ask for more with machines.{subject.machine}.slurm.mem_mb"
        )
    if story.returncode == -signal.SIGKILL and killed_for_memory:
        return "oom", {
            **reason,
            "exception_type": "SIGKILL",
            "message": "killed by the kernel's out-of-memory killer",
            "limit": origin["host"]["memory_limit"] or limit(subject, origin),
            "evidence": {"oom_kill_before": dict(kills_before), "oom_kill_after": dict(kills_after)},
        }
    raise MeasurementError(f"the worker {_how_it_ended(story.returncode)} during {story.phase}")


def limit(subject: Subject, origin: Mapping[str, Any]) -> dict[str, Any] | None:
    """The limit that an allocation ran into: the configured one, else the device's or the machine's."""
    if subject.memory_limit_bytes is not None:
        return {"name": "memory_limit", "bytes": subject.memory_limit_bytes}
    if subject.device == "cuda":
        return {"name": "device memory", "bytes": origin["device"]["memory_bytes"]}
    return origin["host"]["memory_limit"] or {"name": "host memory", "bytes": origin["host"]["memory_bytes"]}


def _how_it_ended(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"ended with exit status {returncode} and no result"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
