"""One cell from its device to its record: runs the workers, and refers to a search that has the answer already."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis import statistics
from inference_benchmark.analysis.max_batch import edge
from inference_benchmark.experiment.cells import Cell, Watch
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.machine import conditions
from inference_benchmark.measure.session import MeasurementError, check_known, occupy
from inference_benchmark.measure.worker_process import Story
from inference_benchmark.models import checkpoint
from inference_benchmark.records import record, study_files


def measure(cell: Cell, watch: Watch) -> dict[str, Any]:
    """Measure a cell in worker processes and return its record.

    Raises MeasurementError, checkpoint.CheckpointError and OSError where there is nothing to record.
    """
    check_known(cell.engine, cell.precision)
    weights = checkpoint.ensure(cell.model) if engines.ENGINES[cell.engine].needs_weights else None
    order = {"cell": cell.to_json(), "checkpoint": str(weights) if weights else None}
    with occupy(cell, watch) as station:
        stories: list[Story] = []
        while len(stories) < cell.measurement["processes"]:
            stories.append(station.work("cell", order, cell.measurement["threads"]))
            try:
                outcome, reason = station.judge(stories[-1])
            except MeasurementError:
                if finished := [story.run() for story in stories[:-1]]:
                    print(f"what the processes before it had measured: {json.dumps(finished)}", file=sys.stderr)
                raise
            if outcome != "ok":
                break
        header = station.header()
    runs = [story.run() for story in stories]
    return {
        "schema_version": record.SCHEMA_VERSION,
        "cell": json.loads(cell.to_json()),
        "outcome": outcome,
        "reason": reason,
        "runs": runs,
        "stability": _stability(cell, runs) if outcome == "ok" else None,
        "flags": flags(stories, cell, station.busy),
        "model": {**stories[-1].model, "weights": str(weights) if weights else None},
        **header,
    }


def beyond_the_edge(cell: Cell) -> dict[str, Any] | None:
    """The record of a cell that a search for the largest batch has found not to fit; None where there is no such
    search, or it was one of something else, or this cell fits."""
    study = ColumnStudy.of("max-batch", cell)
    try:
        search = study_files.load_for(study, Path(study.path))
    except FileNotFoundError:
        return None
    except (study_files.StudyError, OSError) as error:
        print(f"{study.path}: not used: {error}", file=sys.stderr)
        return None
    tries = study_files.decisive(search, cell.batch_size)
    if not tries:
        return None
    fits, fails = edge(search["results"])
    return {
        "schema_version": record.SCHEMA_VERSION,
        "cell": json.loads(cell.to_json()),
        "outcome": "oom",
        "reason": {
            "phase": "max-batch",
            "exception_type": tries["exception_type"],
            "message": f"not measured: {fits} fit and {fails} do not; there: {tries['message']}",
            "limit": search["limit"],
            "evidence": {"search": study.path, "searched_at": search["ended_at"], "try": tries},
        },
        "runs": [],
        "stability": None,
        "flags": [],
        "model": search["model"],
        **{name: search[name] for name in ("software", "device", "host", "environment", "git")},
        "started_at": search["started_at"],
        "ended_at": search["ended_at"],
    }


def _stability(cell: Cell, runs: list[dict[str, Any]]) -> dict[str, Any]:
    warmups, samples = ([run[name] for run in runs] for name in ("warmup_s", "samples_s"))
    return statistics.stability(warmups, samples, cell.measurement)


def flags(stories: list[Story], cell: Cell, busy: str | None) -> list[dict[str, str]]:
    """What a reader must know before relying on a cell, each a name and a message with the evidence."""
    found = [{"name": "gpu-busy-at-start", "message": f"when the cell started, {busy}"}] if busy else []
    answers = dict.fromkeys(digest for story in stories for digest in story.answers)
    if len(answers) > 1:
        shown = ", ".join(digest[:12] for digest in answers)
        message = f"{len(answers)} different answers to the same prompts, by their digests {shown}"
        found.append({"name": "nondeterministic", "message": message})
    for story in stories:
        found += conditions.flags(story.conditions, cell.device) if story.conditions else []
        if rows := story.model.get("non_finite_rows"):
            message = (
                f"in {rows} of {cell.batch_size} rows a largest logit was NaN or infinite: the answers mean nothing"
            )
            found.append({"name": "non-finite-logits", "message": message})
        if graphs := story.model.get("graphs_while_timed"):
            found.append({"name": "compiled-while-timed", "message": f"{graphs} graphs were compiled in timed calls"})
        if reason := story.model.get("compilation", {}).get("why_not"):
            found.append({"name": "not-compiled", "message": f"{cell.engine} ran eagerly: {reason}"})
        if story.energy_error:
            found.append({"name": "energy-unknown", "message": story.energy_error})
    first: dict[str, dict[str, str]] = {}
    for flag in found:
        first.setdefault(flag["name"], flag)
    return list(first.values())
