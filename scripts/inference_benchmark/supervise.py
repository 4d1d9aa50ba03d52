"""One cell from its device to its record: runs the workers and says how they ended. Imports no torch."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

from inference_benchmark import (
    checkpoint,
    conditions,
    engines,
    evidence,
    lease,
    machine,
    provenance,
    record,
    statistics,
)
from inference_benchmark.cells import Cell, Watch
from inference_benchmark.machine import Gpu
from inference_benchmark.precision import PRECISIONS
from inference_benchmark.worker_process import Story, WorkerProcess


class MeasurementError(RuntimeError):
    """The cell could not be measured and memory is not the reason; the message says what happened."""


class MeasurementTimeout(MeasurementError):
    """A worker had not ended when its time was up, and was killed."""


def measure(cell: Cell, watch: Watch) -> dict[str, Any]:
    """Measure a cell in worker processes and return its record.

    Raises MeasurementError, checkpoint.CheckpointError and OSError where there is nothing to record.
    """
    for what, name, known in (("engine", cell.engine, engines.ENGINES), ("precision", cell.precision, PRECISIONS)):
        if name not in known:
            raise MeasurementError(f"there is no {what} {name!r}; allowed: {', '.join(known)}")
    gpus = _gpus(cell)
    weights = checkpoint.ensure(cell.model) if engines.ENGINES[cell.engine].needs_weights else None
    with lease.hold(gpus) if gpus else nullcontext(None) as gpu:
        busy = _busy(gpu, watch)
        started_at, kills_before = _now(), evidence.oom_kills()
        stories: list[Story] = []
        origin: dict[str, Any] = {}
        while len(stories) < cell.measurement["processes"]:
            with WorkerProcess(cell, weights, gpu) as worker:
                # Gathered while the worker is still importing, well before it loads anything.
                origin = origin or _origin(cell, gpu, worker.environment)
                stories.append(worker.listen(watch))
            try:
                outcome, reason = classify(stories[-1], cell, origin, kills_before, evidence.oom_kills())
            except MeasurementError:
                if finished := [story.run() for story in stories[:-1]]:
                    print(f"what the processes before it had measured: {json.dumps(finished)}", file=sys.stderr)
                raise
            if outcome != "ok":
                break
        ended_at = _now()
    runs = [story.run() for story in stories]
    return {
        "schema_version": record.SCHEMA_VERSION,
        "cell": json.loads(cell.to_json()),
        "outcome": outcome,
        "reason": reason,
        "runs": runs,
        "stability": _stability(cell, runs) if outcome == "ok" else None,
        "flags": flags(stories, cell, busy),
        "model": {**stories[-1].model, "weights": str(weights) if weights else None},
        **origin,
        "started_at": started_at,
        "ended_at": ended_at,
    }


def _gpus(cell: Cell) -> list[Gpu]:
    """The GPUs a cell may use, none for one on the CPU. Raises MeasurementError where it needs one."""
    if cell.device != "cuda":
        return []
    listed = machine.gpus()
    gpus = machine.visible(listed, os.environ)
    if not gpus:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "not set") or "empty"
        raise MeasurementError(
            "the cell asks for cuda and no GPU is visible here "
            f"(NVML lists {len(listed)}, CUDA_VISIBLE_DEVICES is {shown})"
        )
    return gpus


def _busy(gpu: Gpu | None, watch: Watch) -> str | None:
    """Who else uses the GPU, in words. Raises MeasurementError where that is not to be."""
    users = conditions.busy(gpu) if gpu else None
    if users and watch.exclusive == "fail":
        raise MeasurementError(f"GPU {gpu.uuid} is in use: {users}; wait, or set watch.exclusive: warn")
    if users:
        print(f"GPU {gpu.uuid} is in use: {users}; the cell is measured and flagged", file=sys.stderr)
    return users


def _origin(cell: Cell, gpu: Gpu | None, environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        "software": provenance.software(),
        "device": provenance.device(gpu),
        "host": provenance.host(),
        "environment": provenance.environment(environment),
        "git": provenance.git(),
    }


def _stability(cell: Cell, runs: list[dict[str, Any]]) -> dict[str, Any]:
    warmups, samples = ([run[name] for run in runs] for name in ("warmup_s", "samples_s"))
    return statistics.stability(warmups, samples, cell.measurement)


def flags(stories: list[Story], cell: Cell, busy: str | None) -> list[dict[str, str]]:
    """What a reader must know before relying on a cell, each a name and a message with the evidence."""
    found = [{"name": "gpu-busy-at-start", "message": f"when the cell started, {busy}"}] if busy else []
    for story in stories:
        found += conditions.flags(story.conditions, cell.device) if story.conditions else []
        if rows := story.model.get("non_finite_rows"):
            message = (
                f"in {rows} of {cell.batch_size} rows a largest logit was NaN or infinite: the answers mean nothing"
            )
            found.append({"name": "non-finite-logits", "message": message})
        if graphs := story.model.get("compiled_graphs_while_timed"):
            found.append({"name": "compiled-while-timed", "message": f"{graphs} graphs were compiled in timed calls"})
        if story.energy_error:
            found.append({"name": "energy-unknown", "message": story.energy_error})
    first: dict[str, dict[str, str]] = {}
    for flag in found:
        first.setdefault(flag["name"], flag)
    return list(first.values())


def classify(
    story: Story,
    cell: Cell,
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
        return "oom", {**reason, **told, "limit": _limit(cell, origin)}
    if outcome == "error":
        raise MeasurementError(f"{end['exception_type']} during {story.phase}: {end['message']}")
    killed_for_memory = [group for group, count in kills_after.items() if count > kills_before.get(group, count)]
    if story.returncode == -signal.SIGKILL and killed_for_memory:
        return "oom", {
            **reason,
            "exception_type": "SIGKILL",
            "message": "killed by the kernel's out-of-memory killer",
            "limit": origin["host"]["memory_limit"] or _limit(cell, origin),
            "evidence": {"oom_kill_before": dict(kills_before), "oom_kill_after": dict(kills_after)},
        }
    raise MeasurementError(f"the worker {_how_it_ended(story.returncode)} during {story.phase}")


def _limit(cell: Cell, origin: Mapping[str, Any]) -> dict[str, Any] | None:
    """The limit that an allocation ran into: the configured one, else the device's or the machine's."""
    if cell.memory_limit_bytes is not None:
        return {"name": "memory_limit", "bytes": cell.memory_limit_bytes}
    if cell.device == "cuda":
        return {"name": "device memory", "bytes": origin["device"]["memory_bytes"]}
    return origin["host"]["memory_limit"] or {"name": "host memory", "bytes": origin["host"]["memory_bytes"]}


def _how_it_ended(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"ended with exit status {returncode} and no result"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
