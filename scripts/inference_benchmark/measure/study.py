"""One study from its device to its file: ceilings, the largest batch that fits, how answers differ. No torch."""

from __future__ import annotations

import json
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis.max_batch import next_batch_size
from inference_benchmark.experiment.cells import Watch
from inference_benchmark.experiment.studies import Ceilings, ColumnStudy
from inference_benchmark.machine import conditions
from inference_benchmark.measure.session import Station, check_known, limit, occupy
from inference_benchmark.models import checkpoint
from inference_benchmark.records import study_files


def conduct(study: Ceilings | ColumnStudy, watch: Watch) -> dict[str, Any]:
    """Do a study in worker processes and return its document.

    Raises MeasurementError, checkpoint.CheckpointError and OSError where there is nothing to record.
    """
    if isinstance(study, Ceilings):
        order, task = {"device": study.device, "threads": study.threads}, "ceilings"
    else:
        check_known(study.engine, study.precision)
        weights = checkpoint.ensure(study.model) if engines.ENGINES[study.engine].needs_weights else None
        order = {"study": study.to_json(), "checkpoint": str(weights) if weights else None, "tries": []}
        task = study.kind.replace("-", "_")
    with occupy(study, watch) as station:
        results: list[dict[str, Any]] = []
        while True:
            story = station.work(task, order, study.threads)
            outcome, reason = station.judge(story)
            results += story.results
            if task != "max_batch" or outcome != "oom":
                break
            # Memory ran out where no exception could be caught: while loading, or by the kernel's hand.
            results.append(_lost_try(story, reason))
            order["tries"] = results
            if next_batch_size(results) is None:
                outcome, reason = "ok", None
                break
        return {
            "schema_version": study_files.SCHEMA_VERSION,
            "study": json.loads(study.to_json()),
            "outcome": outcome,
            "reason": reason,
            "results": results,
            "limit": _limit(study, station),
            "conditions": story.conditions,
            "flags": conditions.flags(story.conditions, study.device) if story.conditions else [],
            "model": story.model,
            **station.header(),
        }


def _lost_try(story, reason: dict[str, Any]) -> dict[str, Any]:
    return {
        "batch_size": story.trying or 1,
        "fits": False,
        "exception_type": reason["exception_type"],
        "message": f"during {reason['phase']}: {reason['message']}",
        "memory": story.memory,
    }


def _limit(study: Ceilings | ColumnStudy, station: Station) -> dict[str, Any] | None:
    return limit(study, station.origin) if study.kind == "max-batch" else None
