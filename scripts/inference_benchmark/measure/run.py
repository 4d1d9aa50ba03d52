"""From a cell or study to its record: measured by workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inference_benchmark import engines
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import CeilingsStudy, ColumnStudy, Study, Subject
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import conditions
from inference_benchmark.machine.packages import hidden_for
from inference_benchmark.measure import batch_search, retakes
from inference_benchmark.measure.held_device import Setup, check_engine, hold_device
from inference_benchmark.measure.outcome import CellFailure
from inference_benchmark.measure.warm_start import ForkServer
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.models import architecture, checkpoint, texts
from inference_benchmark.records.parts import Note, SetAside
from inference_benchmark.records.record import Record, StudyRecord
from inference_benchmark.records.rounds import assess, different_answers, each_once


def measure_cell(cell: Cell, watch: Supervision) -> Record:
    """Measure a cell, in one round. Raises MeasurementError, CheckpointError, OSError if there is nothing to record."""
    weights = _weights(cell)
    with hold_device(cell, watch) as device:
        server = _server(cell, weights, cell.round)
        (report, outcome, reason), others = retakes.least_disturbed(
            lambda patience_s: device.run_worker(
                "timed_calls", _inputs(cell, weights) | {"patience_s": patience_s}, server=server
            ),
            cell.device,
            watch,
            timed_with=f"{cell.device} {cell.base_engine} {cell.threads} {cell.environment.get('name')}",
        )
        where_and_when = device.where_and_when()
    run = report.run()
    return Record(
        cell=cell,
        outcome=outcome,
        reason=reason,
        runs=(run,),
        stability=assess(cell, [run]) if outcome == "ok" else None,
        set_aside=tuple(SetAside(other.report.run(), other.reason) for other in others) or None,
        flags=_flags(report, cell, device.users),
        model={**report.model, **(checkpoint.facts(weights) if weights else {"weights": None})},
        **where_and_when,
    )


def run_study(study: Study, watch: Supervision, output: Path) -> StudyRecord:
    """Do a study. Raises MeasurementError, CheckpointError, OSError if there is nothing to record.
    output: the place of its record. The tries of a search and the trace of a timeline are kept in the same folder."""
    setup, limit, weights = study.setup, None, _weights(study.setup)
    inputs = _inputs(study, weights)
    if study.kind == "quality":
        inputs |= {"text": str(texts.saved(study.text_sha256).absolute()), "scratch": str(output.parent.absolute())}
    if study.kind == "timeline":
        inputs["trace"] = str(output.with_suffix(".trace.json.gz").absolute()) if study.trace else None
    with hold_device(setup, watch) as device:
        if study.kind == "max-batch":
            report, outcome, reason, results, limit = batch_search.search(study, inputs, device, output)
        elif study.kind == "ceilings":
            (report, outcome, reason), others = retakes.least_disturbed(
                lambda patience_s: device.run_worker("ceilings", inputs | {"patience_s": patience_s}),
                study.device,
                watch,
            )
            # A ceiling is the fastest sample, and others only make samples slower.
            results = [*report.results, *(result for other in others for result in other.report.results)]
        else:
            # Divergence and timeline come right after cells, whose server still runs.
            server = _server(setup, weights, 1)
            report, outcome, reason = device.run_worker(study.kind.replace("-", "_"), inputs, server=server)
            results = report.results
        where_and_when = device.where_and_when()
    return StudyRecord(
        study=study,
        outcome=outcome,
        reason=reason,
        results=tuple(results),
        limit=limit,
        conditions=report.conditions,
        flags=(*_condition_flags(report, setup), *_errors(report)),
        model=report.model,
        **where_and_when,
    )


def _weights(setup: Setup) -> Path | None:
    """The checkpoint that a setup needs, made if it is missing. Raises MeasurementError, CheckpointError, OSError."""
    if isinstance(setup, CeilingsStudy):
        return None
    check_engine(setup)
    if not engines.ENGINES[setup.base_engine].needs_weights:
        return None
    folder = checkpoint.ensure(setup.model)
    # The configuration of a model on the hub is not known before.
    workload = setup.workload
    if reason := architecture.too_long(checkpoint.read_config(folder), workload.prompt_tokens, workload.new_tokens):
        raise CellFailure(f"{workload.name} is too long for model {setup.model['name']}: {reason}")
    return folder


def _server(setup: Cell | ColumnStudy, weights: Path | None, number: int) -> ForkServer | None:
    """That workers of a round are forked from; None for an engine without weights."""
    return weights and ForkServer(setup.base_engine, str(weights), number, hidden_for(setup.precision))


def _inputs(subject: Subject, weights: Path | None) -> dict[str, Any]:
    return {"subject": subject.to_json(), "checkpoint": str(weights) if weights else None}


def _condition_flags(report: WorkerReport, setup: Setup) -> tuple[Note, ...]:
    return tuple(Note(**flag) for flag in conditions.flags(report.conditions, setup.device))


def _errors(report: WorkerReport) -> Iterator[Note]:
    for name, error in ("energy-unknown", report.energy_error), ("profile-unknown", report.profile_error):
        if error:
            yield Note(name, error)


def _compilation_flags(model: Mapping[str, Any], cell: Cell) -> Iterator[Note]:
    while_timed = {
        "graphs compiled": model.get("graphs_while_timed"),
        "CUDA graphs recorded": model.get("cuda_graphs_recorded_while_timed"),
        "CUDA graphs given up": model.get("cuda_graphs_skipped_while_timed"),
    }
    if any(while_timed.values()):
        counts = ", ".join(f"{count} {what}" for what, count in while_timed.items() if count)
        yield Note("compiled-while-timed", f"in timed calls: {counts}")
    compilation = model.get("compilation", {})
    if reason := compilation.get("why_not"):
        yield Note("not-compiled", f"{cell.engine} ran eagerly: {reason}")
    elif compilation.get("graphs") == 0 and engines.ENGINES[cell.base_engine].compiles:
        yield Note("not-compiled", f"{cell.engine} compiled nothing: a call of one token has no step")
    recorded, skipped = (compilation.get(f"cuda_graphs_{name}") for name in ("recorded", "skipped"))
    # A call of one token is prefill only, which is not compiled.
    if recorded is not None and cell.workload.new_tokens > 1 and (skipped or not recorded):
        message = f"{recorded} CUDA graphs recorded, {skipped} given up: the launches of kernels are in the figures"
        yield Note("without-cuda-graphs", message)


def _flags(report: WorkerReport, cell: Cell, users: str | None) -> tuple[Note, ...]:
    """The warnings about a cell's figures, each kind once. users: who else used the GPU at the start."""
    notes = [Note("gpu-busy-at-start", f"when the cell started, {users}")] if users else []
    notes += different_answers(report.tokens_sha256)
    notes += _condition_flags(report, cell)
    if rows := report.model.get("non_finite_rows"):
        message = "the largest logit was NaN or infinite: the answers are not valid"
        notes.append(Note("non-finite-logits", f"in {rows} of {cell.batch_size} rows {message}"))
    notes += _compilation_flags(report.model, cell)
    notes += _errors(report)
    return each_once(notes)
