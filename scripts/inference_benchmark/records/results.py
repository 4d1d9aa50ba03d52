"""Records and studies -> one result per cell: what its figures are, and what follows from several records."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Self

from inference_benchmark.analysis import figures, metrics, statistics
from inference_benchmark.analysis.batch_invariance import BatchAnswers
from inference_benchmark.analysis.ceilings import Ceilings
from inference_benchmark.analysis.max_batch import batch_limit
from inference_benchmark.analysis.metrics import NO_PRIORS, Priors
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.analysis.timeline import Timeline
from inference_benchmark.cli import printable
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.studies import study_paths
from inference_benchmark.records import answers, comparability, machine_speed
from inference_benchmark.records.record import Record, StudyRecord
from inference_benchmark.records.rounds import combined_by_split, rounds_by_path
from inference_benchmark.results.cell_result import ABOVE_LIMIT, BATCH_DIFFERS, CellResult
from inference_benchmark.results.column import CURRENT
from inference_benchmark.units import format_number


class Studies(NamedTuple):
    """Study records by path, the facts in which a cell must agree with them, and the ceilings among them."""

    records: Mapping[str, StudyRecord]
    facts: Mapping[str, Mapping[str, object]]
    ceilings: Mapping[str, Ceilings]

    @classmethod
    def of(cls, records: Mapping[str, StudyRecord]) -> Self:
        facts = {path: comparability.facts_that_must_agree(record) for path, record in records.items()}
        ceilings = {path: record for path, record in records.items() if record.study.kind == "ceilings"}
        return cls(records, facts, {path: Ceilings.of(of.results, of.flag_names) for path, of in ceilings.items()})


NO_STUDIES = Studies.of({})


def cell_results(records: Sequence[Record], studies: Mapping[str, StudyRecord] | None = None) -> list[CellResult]:
    """A result for each cell, of all rounds that it has, where cells of another split are others. studies: by path."""
    about = Studies.of(studies or {})
    cells = combined_by_split(records, comparability.splits(records))
    rounds = rounds_by_path(records)
    samples = {}
    for record, split, _ in cells:
        of_runs = rounds[path := record.cell.first_round.path]
        if record.outcome == "ok" and len(of_runs) == len(record.runs):
            samples[path, split] = dict(zip(of_runs, (run.samples_s for run in record.runs), strict=True))
    whole = [record for record, *_ in cells]
    flags = {answers.FLAG: answers.differing(whole, about.records), machine_speed.FLAG: machine_speed.slower(whole)}
    ratios, results = _ratios(cells, samples), []
    for record, split, priors in cells:
        result = cell_result(record, split, about, rounds[record.cell.first_round.path], priors)
        result = replace(result, figures={**result.figures, **ratios.get((record.cell.path, split), {})})
        for name, messages in flags.items():
            result = _flagged(result, name, messages.get(record.cell.path))
        results.append(result)
    return results


def cell_result(
    record: Record,
    split: str = "",
    studies: Studies = NO_STUDIES,
    rounds: Sequence[int] = (),
    priors: Priors = NO_PRIORS,
) -> CellResult:
    """The result of one record, from its samples and the studies about it. rounds: the round of each of its runs.
    priors: from all cells of its run."""
    about = _studies_about(record, studies)
    stability = record.stability
    result = _identity(
        record.cell,
        split,
        outcome=record.outcome,
        reason=printable(record.reason.message) if record.reason else "",
        reason_phase=record.reason.phase if record.reason else "",
        unstable_because=tuple(reason.name for reason in stability.reasons) if stability else (),
        flags=tuple(record.flag_names),
        notes=printable("; ".join(note.message for note in record.notes)),
        started_at=printable(record.started_at),
        ended_at=printable(record.ended_at),
    )
    found = _of_processes(record)
    if search := about.get("max-batch"):
        found |= figures.estimates("largest batch", batch_limit(search.results))
    logits_error = None
    if comparison := about.get("divergence"):
        found |= figures.estimates("answers", comparison.results[0])
        logits_error = comparison.results[0]["logits_error"]["mean"]
    of_batches = about["batch-invariance"].results if "batch-invariance" in about else ()
    for each in (each for each in of_batches if each["batch_size"] == record.cell.batch_size):
        answers_of_batch = BatchAnswers(each, logits_error)
        found |= figures.estimates("batch", answers_of_batch)
        result = _flagged(result, BATCH_DIFFERS, answers_of_batch.error)
    if prediction := about.get("quality"):
        found |= figures.estimates("quality", prediction.results)
    if steps := about.get("timeline"):
        timeline = Timeline.of(steps.results)
        found |= figures.estimates("steps", timeline) | figures.estimates("kinds", timeline)
        result = replace(result, timeline_flags=tuple(steps.flag_names))
    if record.outcome != "ok":
        return replace(result, figures=found)
    ceilings = about.get("ceilings")
    cell = replace(record.measured(studies.ceilings[ceilings.study.path] if ceilings else None), priors=priors)
    for group in ("performance", "samples", "limits"):
        found |= figures.estimates(group, cell)
    result = replace(
        result,
        figures=found,
        whole_s=cell.whole_s,
        first_token_s=cell.first_token_s if cell.new_tokens > 1 else cell.whole_s,
        rounds=tuple(rounds) if len(rounds) == len(record.runs) else (),
        bound_by={phase: limit.bound_by for phase, limit in cell.limits.items()},
        limit_flags=cell.ceilings.flags if cell.ceilings else (),
    )
    above = ", ".join(
        f"{phase} took {format_number(limit.measured_s.value, 4)} s, its floor is {format_number(limit.floor_s, 4)} s"
        for phase, limit in cell.limits.items()
        if limit.is_exceeded
    )
    message = f"limit unknown: {above}; its shapes or the ceilings are wrong" if above else None
    return _flagged(result, ABOVE_LIMIT, message)


def without_record(cell: Cell, outcome: str, reason: str) -> CellResult:
    """The result of a cell without a usable record. outcome: in NOT_MEASURED."""
    return _identity(cell, outcome=outcome, reason=printable(reason))


def left_out(experiment: Experiment) -> list[CellResult]:
    """The results of what is impossible: not supported, and without a record."""
    cells = experiment.left_out()
    return [replace(_identity(cell, outcome="unsupported", reason=reason), record="") for cell, reason in cells]


def _identity(cell: Cell, split: str = "", **more) -> CellResult:
    return CellResult(
        column=replace(cell.column, split=split),
        batch_size=cell.batch_size,
        machine=cell.machine,
        device=cell.device,
        memory_limit_bytes=cell.memory_limit_bytes,
        record=cell.path,
        **more,
    )


def _studies_about(record: Record, studies: Studies) -> dict[str, StudyRecord]:
    """The studies that say something about a cell, by kind: those with a result that agree with it."""
    if not studies.records:
        return {}
    facts = comparability.facts_that_must_agree(record)
    about = {}
    for kind, path in study_paths(record.cell).items():
        study = studies.records.get(path)
        if study and study.outcome == "ok":
            of_study = comparability.facts_about(study.study, studies.facts[path], record.cell)
            if not comparability.disagreeing(of_study, facts):
                about[kind] = study
    return about


def _of_processes(record: Record) -> dict[str, Estimate]:
    """The figures that its processes and its samples have as they are."""
    first = record.runs[0] if record.runs else None
    values = {
        "load_s": first and first.load_s,
        "first_call_s": first.warmup_s[0] if first and first.warmup_s else None,
        "compile_s": record.model.get("compilation", {}).get("seconds"),
        "waited_s": math.fsum(run.waited_s for run in record.runs if run.waited_s) or None,
        "retakes": len(record.set_aside or ()) or None,
        "memory_share": metrics.memory_share(record.memory_bytes),
        "parameters": record.model.get("parameters"),
        "weights_bytes": record.model.get("weights_bytes"),
        "outliers": record.stability and record.stability.outliers,
        "drift": record.stability and record.stability.drift,
    }
    for name in dict.fromkeys(name for run in record.runs for name in run.memory if name != "devices"):
        values[name] = max(run.memory.get(name, 0) for run in record.runs)
    return {name: Estimate(value) for name, value in values.items() if value is not None}


def _flagged(result: CellResult, name: str, message: str | None) -> CellResult:
    """With a further flag, if there is a message."""
    if message is None:
        return result
    notes = "; ".join(filter(None, (result.notes, printable(message))))
    return replace(result, flags=(*result.flags, name), notes=notes)


def _ratios(
    cells: Sequence[tuple[Record, str, Priors]], samples: Mapping[tuple[str, str], Mapping[int, Sequence[float]]]
) -> dict[tuple[str, str], dict[str, Estimate]]:
    """The throughput of variants as a multiple of their engine's, and of environments as one of the current one's, by
    path of the cell and split, for cells that share several rounds with the other. samples: by path of the first round
    and split, then by round."""
    ratios: dict[tuple[str, str], dict[str, Estimate]] = defaultdict(dict)
    for name, base_of in {"engine_ratio": _of_engine, "environment_ratio": _of_current}.items():
        bases = [(record.cell, split, base_of(record.cell)) for record, split, _ in cells]
        pairs = [(cell, split, base) for cell, split, base in bases if base]
        by_round = (
            [samples.get((of.first_round.path, split), {}) for of in (base, cell)] for cell, split, base in pairs
        )
        tests = statistics.paired_ratio_tests([statistics.shifts_of_rounds(*sides) for sides in by_round])
        for (cell, split, _), test in zip(pairs, tests, strict=True):
            if test:
                ratios[cell.path, split][name] = test.speedup
    return ratios


def _of_engine(cell: Cell) -> Cell | None:
    """The cell of the engine that its own is a variant of."""
    return replace(cell, engine=cell.base_engine, options={}) if cell.options else None


def _of_current(cell: Cell) -> Cell | None:
    """The same cell in the current environment, if its own is another."""
    return replace(cell, environment={}) if cell.column.environment != CURRENT else None
