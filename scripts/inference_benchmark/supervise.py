"""The parent: starts a worker, sleeps on it, and says how it ended. Imports no torch.

It reads a pipe and does nothing else while the worker measures: on two cores, a parent that polls is
half of what gets measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inference_benchmark import checkpoint, engines, evidence, machine, provenance, record
from inference_benchmark.cells import Cell
from inference_benchmark.precision import PRECISIONS


class MeasurementError(RuntimeError):
    """The cell could not be measured and memory is not the reason; the message says what happened."""


@dataclass
class Story:
    """What a worker told before it ended, and how it ended."""

    phase: str = "start"
    load_s: float | None = None
    calls_s: dict[str, list[float]] = field(default_factory=lambda: {"warm-up": [], "measure": []})
    memory: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    returncode: int | None = None

    def hear(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "phase":
                self.phase = event["phase"]
            case "load":
                self.load_s = event["seconds"]
            case "call":
                self.calls_s[event["phase"]].append(event["seconds"])
            case "memory" | "describe" as kind:
                name = "memory" if kind == "memory" else "model"
                setattr(self, name, event[name])
            case "end":
                self.end = dict(event)


def measure(cell: Cell) -> dict[str, Any]:
    """Measure a cell in a worker process and return its record.

    Raises MeasurementError and checkpoint.CheckpointError where there is nothing to record.
    """
    for what, name, known in (("engine", cell.engine, engines.ENGINES), ("precision", cell.precision, PRECISIONS)):
        if name not in known:
            raise MeasurementError(f"there is no {what} {name!r}; allowed: {', '.join(known)}")
    if cell.device == "cuda" and not machine.visible(machine.gpus(), os.environ):
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "not set") or "empty"
        raise MeasurementError(f"the cell asks for cuda and no GPU is visible here (CUDA_VISIBLE_DEVICES is {shown})")
    weights = checkpoint.ensure(cell.model) if engines.ENGINES[cell.engine].needs_weights else None
    started_at, kills_before = _now(), evidence.oom_kills()
    with _Worker(cell, weights) as worker:
        # Gathered while the worker is still importing, well before it loads anything.
        origin = {
            "software": provenance.software(),
            "device": provenance.device(cell.device),
            "host": provenance.host(),
            "git": provenance.git(),
        }
        story = worker.listen()
    outcome, reason = classify(story, cell, origin, kills_before, evidence.oom_kills())
    warmups = story.calls_s["warm-up"]
    return {
        "schema_version": record.SCHEMA_VERSION,
        "cell": json.loads(cell.to_json()),
        "outcome": outcome,
        "reason": reason,
        "load_s": story.load_s,
        "first_call_s": warmups[0] if warmups else None,
        "warmup_s": warmups[1:],
        "samples_s": story.calls_s["measure"],
        "memory": story.memory,
        "model": {**story.model, "weights": str(weights) if weights else None},
        **origin,
        "started_at": started_at,
        "ended_at": _now(),
    }


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


class _Worker:
    """A worker process that is gone when the block is left, however it is left."""

    def __init__(self, cell: Cell, weights: Path | None) -> None:
        self.request = json.dumps({"cell": cell.to_json(), "checkpoint": str(weights) if weights else None})
        threads = str(cell.measurement["threads"] or machine.usable_cpus())
        # Snakemake sets OMP_NUM_THREADS to the rule's threads, which count jobs here, not cores; weights
        # are on disk by now, so the hub is not asked; NVML and CUDA are to count devices alike.
        self.environment = checkpoint.child_environment(
            OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads, HF_HUB_OFFLINE="1", CUDA_DEVICE_ORDER="PCI_BUS_ID"
        )

    def __enter__(self) -> _Worker:
        self.pipe, writing_end = os.pipe()
        command = [sys.executable, "-m", "inference_benchmark.worker", self.request, str(writing_end)]
        try:
            self.process = subprocess.Popen(
                command, env=self.environment, pass_fds=[writing_end], stdin=subprocess.DEVNULL, stdout=sys.stderr
            )
        finally:
            os.close(writing_end)
        return self

    def listen(self) -> Story:
        """Sleep until the worker has ended, then return all it told."""
        story = Story()
        with os.fdopen(self.pipe) as stream:
            for line in stream:
                if line.endswith("\n"):  # a killed worker may leave half a line
                    story.hear(json.loads(line))
        story.returncode = self.process.wait()
        return story

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


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
