"""The search for the largest batch that fits: worker after worker, from what earlier tries and cells showed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_benchmark.analysis.max_batch import Try, batch_limit, next_batch_size
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.measure.held_device import HeldDevice
from inference_benchmark.measure.outcome import MeasurementError, memory_limit
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.records import record_file, tries
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.comparability import disagreeing
from inference_benchmark.records.parts import Reason


def search(
    study: ColumnStudy, inputs: Mapping[str, Any], device: HeldDevice, output: Path
) -> tuple[WorkerReport, str, Reason | None, tuple[Try, ...], Mapping[str, Any] | None]:
    """(last worker's report, outcome, reason, tries, memory limit) of a search.
    It goes on from the tries of an interrupted search, the last of which is done again, and began when that one did."""
    limit = memory_limit(study, device.origin)
    so_far = tries.Tries(study, tries.circumstances(device.origin, limit), device.started_at)
    try:
        so_far = tries.earlier(output, so_far)
    except RecordError as error:
        print(f"{tries.path(output)}: not used: {error}", file=sys.stderr)

    def keep(result: Try) -> None:
        nonlocal so_far
        so_far = replace(so_far, results=(*so_far.results, result))
        try:
            so_far.write(output)
        except OSError as error:  # the search itself needs no file
            print(f"{tries.path(output)}: {error.strerror or error}; the tries are not kept", file=sys.stderr)

    device.started_at = so_far.started_at
    if so_far.results:
        print(f"{tries.path(output)}: going on from {len(so_far.results)} tries", file=sys.stderr)
    else:
        so_far = replace(so_far, results=tries_from_cells(study, output.parent, so_far.circumstances))
    while True:
        try:
            report, outcome, reason = device.run_worker("max_batch", {**inputs, "tries": so_far.results}, keep)
        except MeasurementError:
            print(f"{tries.path(output)}: the next attempt goes on from {len(so_far.results)} tries", file=sys.stderr)
            raise
        if outcome == "oom":
            if report.trying is None and (fits := batch_limit(so_far.results).fits):
                before = f"out of memory during {reason.phase}, where {fits} rows fitted before"
                raise MeasurementError(f"{before}: {reason.message}; does anything else use the memory?")
            # Memory ran out where no exception could be caught: while loading, or through a kill by the kernel.
            keep(_as_try(report.trying or 1, reason, report.memory, reason.evidence))
            if next_batch_size(so_far.results, study.tolerance) is not None:
                continue
            outcome, reason = "ok", None
        return report, outcome, reason, so_far.results, limit


def tries_from_cells(study: ColumnStudy, folder: Path, circumstances: Mapping[str, Any]) -> tuple[Try, ...]:
    """The largest batch that fits and the smallest that does not, as far as the cells of a column in a folder show it.
    Cells that were measured under other settings, or in other circumstances than these, do not count."""
    found = []
    for path, of_cell in record_file.readable(baselines.records_below(folder), record_file.load):
        origin = {name: getattr(of_cell, name) for name in ("software", "device", "host", "variables", "git")}
        then = tries.circumstances(origin, memory_limit(of_cell.cell, origin))
        is_of_column = ColumnStudy.of("max-batch", of_cell.cell, study.tolerance_percent) == study
        if is_of_column and of_cell.runs and of_cell.outcome != "unsupported" and not disagreeing(then, circumstances):
            of_reason = of_cell.reason.evidence if of_cell.reason else {}
            evidence = {**of_reason, "record": str(path), "ended_at": of_cell.ended_at}
            found.append(_as_try(of_cell.cell.batch_size, of_cell.reason, of_cell.runs[-1].memory, evidence))
    limit = batch_limit(found)
    edge = tuple(each for each in found if each["batch_size"] in limit)
    for each in edge:
        what = "fits" if each["fits"] else "does not fit"
        print(f"batch size {each['batch_size']} {what}: {each['evidence']['record']}", file=sys.stderr)
    return edge


def _as_try(
    batch_size: int, reason: Reason | None, memory: Mapping[str, Any], evidence: Mapping[str, Any]
) -> dict[str, Any]:
    """reason: why the batch does not fit; None if it fits."""
    result = {
        "batch_size": batch_size,
        "fits": reason is None,
        "exception_type": reason and reason.exception_type,
        "message": reason and f"during {reason.phase}: {reason.message}",
        "memory": memory,
    }
    return {**result, "evidence": evidence} if evidence else result
