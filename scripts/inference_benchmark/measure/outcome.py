"""How a worker ended: with a result, out of memory, unsupported, or with a failure that leaves no record."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from inference_benchmark.experiment.studies import Subject
from inference_benchmark.machine import slurm
from inference_benchmark.machine.out_of_memory import line_about_memory
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.records.parts import Reason
from inference_benchmark.units import format_bytes

#: Names of limits: of the configuration, and of a GPU.
CONFIGURED, DEVICE = "memory_limit", "device memory"


class MeasurementError(RuntimeError):
    """Nothing could be measured, and not for lack of memory; the message says what happened."""


class CellFailure(MeasurementError):
    """The cell itself is at fault, not the machine: another attempt would fail too."""


class MeasurementTimeout(CellFailure):
    """A worker had not ended when its time was up, and was killed."""


def classify(
    report: WorkerReport,
    subject: Subject,
    origin: Mapping[str, Any],
    kills_before: Mapping[str, int],
    kills_after: Mapping[str, int],
) -> tuple[str, Reason | None]:
    """(outcome, reason) of a worker that has ended.

    origin: where it ran, as a record has it. kills_before, kills_after: as of cgroups.oom_kills. A worker killed by
    SIGKILL ran out of memory only if the kernel counted such a kill meanwhile, and one that a library ended only if its
    last output says so.
    Raises MeasurementError for every other end without a result.
    """
    end = report.end or {}
    outcome = end.get("outcome")
    if outcome == "timeout":
        raise MeasurementTimeout(f"timeout during {report.phase}: {end['message']}")
    if outcome == "ok" and report.returncode == 0:
        return "ok", None
    if outcome in ("unsupported", "oom"):
        limit = memory_limit(subject, origin) if outcome == "oom" else None
        return outcome, Reason(report.phase, end["exception_type"], end["message"], limit, end.get("evidence", {}))
    if outcome == "error":
        failure = MeasurementError if end["of_the_machine"] else CellFailure
        raise failure(f"{end['exception_type']} during {report.phase}: {end['message']}")
    # A C or C++ library that lacks memory aborts (SIGABRT) or exits with status 1, as OpenMP's and bitsandbytes do.
    if not end and report.returncode in (-signal.SIGABRT, 1):
        limited = subject.device == "cpu" and subject.memory_limit_bytes is not None
        if line := line_about_memory(report.last_output, limited):
            exception_type = "SIGABRT" if report.returncode == -signal.SIGABRT else "exit status 1"
            evidence = {"last_output": report.last_output.splitlines()[-10:]}
            return "oom", Reason(report.phase, exception_type, line, memory_limit(subject, origin), evidence)
    is_killed_for_memory = any(count > kills_before.get(group, count) for group, count in kills_after.items())
    if report.returncode == -signal.SIGKILL and is_killed_for_memory:
        host_limit = origin["host"]["memory_limit"]
        if slurm.job_id() and host_limit:
            # The memory that a job was granted is no property of the machine: with more, the cell may fit.
            granted = f"the job has {format_bytes(host_limit['bytes'])} of the host's"
            remedy = f"ask for more with machines.{subject.machine}.slurm.mem_mb"
            raise MeasurementError(f"killed for memory during {report.phase}: {granted}; {remedy}")
        message, limit = "killed by the kernel's out-of-memory killer", host_limit or memory_limit(subject, origin)
        evidence = {"oom_kill_before": dict(kills_before), "oom_kill_after": dict(kills_after)}
        return "oom", Reason(report.phase, "SIGKILL", message, limit, evidence)
    how = f"ended with exit status {report.returncode} and no result"
    if report.returncode is not None and report.returncode < 0:
        how = f"was killed by {signal.Signals(-report.returncode).name}"
    raise MeasurementError(f"{report.peer or 'the worker'} {how} during {report.phase}")


def is_of_host(reason: Reason) -> bool:
    """Whether memory ended that other processes take too: the host's or that of a cgroup, and no limit of the cell's
    own."""
    return reason.exception_type == "SIGKILL" or reason.limit["name"] not in (CONFIGURED, DEVICE)


def memory_limit(subject: Subject, origin: Mapping[str, Any]) -> dict[str, Any] | None:
    """The limit that an allocation ran into: the configured one, else the device's or the machine's."""
    if subject.memory_limit_bytes is not None:
        return {"name": CONFIGURED, "bytes": subject.memory_limit_bytes}
    if subject.device == "cuda":
        # Of several, of the first: out of memory is one of them, and they are alike.
        return {"name": DEVICE, "bytes": origin["device"]["memory_bytes"]}
    return origin["host"]["memory_limit"] or {"name": "host memory", "bytes": origin["host"]["memory_bytes"]}
