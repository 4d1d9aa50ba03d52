"""One study from its device to its record: ceilings, the largest batch that fits, or how answers differ."""

from __future__ import annotations

from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis.max_batch import next_batch_size
from inference_benchmark.experiment.cells import Watch
from inference_benchmark.experiment.studies import CeilingsStudy, Study
from inference_benchmark.machine import conditions
from inference_benchmark.measure.outcome import memory_limit
from inference_benchmark.measure.session import check_engine, hold_device
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.models import checkpoint
from inference_benchmark.records.record import Note, Reason, StudyRecord


def run_study(study: Study, watch: Watch) -> StudyRecord:
    """Do a study in worker processes.

    Raises MeasurementError, checkpoint.CheckpointError and OSError where there is nothing to record.
    """
    if isinstance(study, CeilingsStudy):
        order: dict[str, Any] = {"device": study.device, "threads": study.threads}
    else:
        check_engine(study.engine, study.precision)
        weights = checkpoint.ensure(study.model) if engines.ENGINES[study.engine].needs_weights else None
        order = {"study": study.to_json(), "checkpoint": str(weights) if weights else None, "tries": []}
    with hold_device(study, watch) as session:
        results: list[dict[str, Any]] = []
        while True:
            report = session.run_worker(study.kind.replace("-", "_"), order, study.threads)
            outcome, reason = session.classify(report)
            results += report.results
            if study.kind != "max-batch" or outcome != "oom":
                break
            # Memory ran out where no exception could be caught: while loading, or through a kill by the kernel.
            results.append(_lost_try(report, reason))
            order["tries"] = results
            if next_batch_size(results) is None:
                outcome, reason = "ok", None
                break
        return StudyRecord(
            study=study,
            outcome=outcome,
            reason=reason,
            results=tuple(results),
            limit=memory_limit(study, session.origin) if study.kind == "max-batch" else None,
            conditions=report.conditions,
            flags=tuple(Note(**flag) for flag in conditions.flags(report.conditions, study.device)),
            model=report.model,
            **session.where_and_when(),
        )


def _lost_try(report: WorkerReport, reason: Reason) -> dict[str, Any]:
    return {
        "batch_size": report.trying or 1,
        "fits": False,
        "exception_type": reason.exception_type,
        "message": f"during {reason.phase}: {reason.message}",
        "memory": report.memory,
        **({"evidence": reason.evidence} if reason.evidence else {}),
    }
