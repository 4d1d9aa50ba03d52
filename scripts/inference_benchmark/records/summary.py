"""Records and studies -> one tidy table, one row per cell: summary.csv."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from inference_benchmark import csv_table
from inference_benchmark.analysis import metrics, statistics
from inference_benchmark.analysis.ceilings import Ceilings
from inference_benchmark.analysis.figures import FIGURES
from inference_benchmark.analysis.max_batch import batch_limit
from inference_benchmark.analysis.metrics import MeasuredCell
from inference_benchmark.analysis.timeline import KINDS, Timeline
from inference_benchmark.cli import ProblemsError, printable
from inference_benchmark.engines.options import chosen
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.environments import CURRENT
from inference_benchmark.experiment.studies import study_paths
from inference_benchmark.records import answers, comparability, machine_speed
from inference_benchmark.records.record import Record, StudyRecord
from inference_benchmark.records.rounds import combined_by_variant, rounds_by_path
from inference_benchmark.units import format_number

#: Parts of a call that have a limit of their own.
PHASES = ("prefill", "decode", "whole")
#: What a divergence study says of every cell of its column.
ANSWERS = (
    "token_agreement", "first_difference", "next_token_agreement",
    "logits_error_mean", "logits_error_max", "kl_mean_nats", "kl_max_nats",
)  # fmt: skip

#: What a timeline says of its cell: seconds of steps, what it cost to find out, and parts of the call by kind of work.
STEPS = (
    "first_step_s", "step_p50_s", "step_p95_s", "step_p99_s", "last_step_s", "step_growth", "steps_s",
    "step_memory_growth_bytes", "steps_cost", "profile_cost", "timeline_flags",
)  # fmt: skip
SHARES = {kind: f"{kind}_share" for kind in KINDS}
#: What a cell is set against, and the columns with its throughput as a multiple of that one's: the ratio, and the ends
#: of its interval by the rounds of both. A variant is set against its engine, an environment against the current one.
RATIOS = {name: tuple(f"{name}_ratio{end}" for end in ("", "_low", "_high")) for name in ("engine", "environment")}

#: Columns of summary.csv, in order; units are in the names.
COLUMNS = (
    "machine", "device", "model", "workload", "prompt_tokens", "new_tokens", "engine", "precision", "batch_size",
    "base_engine", "options", "environment", "variant", "outcome", "reason_phase", "reason",
    *(column for figure in FIGURES for column in figure.columns),
    "processes", "cycles", "latency_median_s", "latency_sd_s", "latency_p95_s", "latency_min_s", "latency_max_s",
    "outliers", "drift", "stable", "unstable_because", "flags", "notes",
    *(f"{phase}_{what}" for phase in PHASES for what in ("floor_s", "bound_by")),
    "limit_flags",
    "max_batch_fits", "max_batch_fails",
    *ANSWERS,
    *STEPS, *SHARES.values(),
    *(column for columns in RATIOS.values() for column in columns),
    "load_s", "first_call_s", "compile_s",
    "loaded_bytes", "peak_rss_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "device_total_bytes",
    "memory_share", "memory_limit_bytes",
    "parameters", "weights_bytes", "started_at", "ended_at", "record",
)  # fmt: skip

#: Columns that hold text.
TEXTS = (
    "machine", "device", "model", "workload", "engine", "precision", "base_engine", "options", "environment", "variant",
    "outcome", "reason_phase", "reason",
    "unstable_because", "flags", "notes", "started_at", "ended_at", "record",
    *(f"{phase}_bound_by" for phase in PHASES),
    "limit_flags", "timeline_flags",
)  # fmt: skip

#: The flag of a cell that is faster than its machine can be. No best figure and no comparison rests on it.
ABOVE_LIMIT = "above-limit"
#: With fewer samples, one of them alone would be the 95th percentile.
P95_SAMPLES = 20


class Studies(NamedTuple):
    """Study records by path, the facts in which a cell must agree with them, and the ceilings among them."""

    records: Mapping[str, StudyRecord]
    facts: Mapping[str, Mapping[str, Any]]
    ceilings: Mapping[str, Ceilings]

    @classmethod
    def of(cls, records: Mapping[str, StudyRecord]) -> Self:
        return cls(
            records,
            {path: comparability.facts_that_must_agree(record) for path, record in records.items()},
            {
                path: Ceilings.of(record.results, record.flag_names)
                for path, record in records.items()
                if record.study.kind == "ceilings"
            },
        )


NO_STUDIES = Studies.of({})


def row(record: Record, variant: str = "", studies: Studies = NO_STUDIES) -> dict[str, Any]:
    """One record as a row of summary.csv: its figures follow from the samples and from the studies about it."""
    about = _studies_about(record, studies)
    first = record.runs[0] if record.runs else None
    values = {
        **_identity(record.cell),
        "variant": variant,
        "outcome": record.outcome,
        "reason_phase": record.reason and record.reason.phase,
        "reason": record.reason and record.reason.message,
        "flags": ", ".join(record.flag_names),
        "notes": "; ".join(note.message for note in record.notes),
        "load_s": first and first.load_s,
        "first_call_s": first.warmup_s[0] if first and first.warmup_s else None,
        "compile_s": record.model.get("compilation", {}).get("seconds"),
        "memory_share": metrics.memory_share(record.memory_bytes),
        "parameters": record.model.get("parameters"),
        "weights_bytes": record.model.get("weights_bytes"),
        "started_at": record.started_at,
        "ended_at": record.ended_at,
    }
    for name in dict.fromkeys(name for run in record.runs for name in run.memory):
        values[name] = max(run.memory.get(name, 0) for run in record.runs)
    values |= _stability(record) | _largest_batch(about.get("max-batch")) | _answers(about.get("divergence"))
    values |= _timeline(about.get("timeline"))
    if record.outcome == "ok":
        cell = _measured(record, about, studies)
        values |= _figures(cell) | _samples(record)
        values |= _limits(cell, values)
    return values


def measured_cell(record: Record, studies: Studies) -> MeasuredCell:
    """What the figures of a measured cell follow from, with its machine's ceilings where they agree with it."""
    return _measured(record, _studies_about(record, studies), studies)


def _measured(record: Record, about: Mapping[str, StudyRecord], studies: Studies) -> MeasuredCell:
    ceilings = about.get("ceilings")
    return record.measured(studies.ceilings[ceilings.study.path] if ceilings else None)


def above_limit(cell: MeasuredCell) -> list[str]:
    """The phases in which a cell is faster than its machine can be, each with its times."""
    return [
        f"{phase} took {format_number(limit.measured_s.value, 4)} s, its floor is {format_number(limit.floor_s, 4)} s"
        for phase, limit in cell.limits.items()
        if limit.is_exceeded
    ]


def blank_row(cell: Cell, outcome: str, reason: str) -> dict[str, Any]:
    """The row of a cell without a record."""
    return {**_identity(cell), "outcome": outcome, "reason": reason}


def summarise(records: Sequence[Record], studies: Mapping[str, StudyRecord] | None = None):
    """A pandas DataFrame with COLUMNS, whole numbers kept whole: a row for each cell, of all rounds that it has.

    studies: by path.
    """
    import pandas

    about = Studies.of(studies or {})
    cells = combined_by_variant(records, comparability.variants(records))
    rows = [row(record, variant, about) for record, variant in cells]
    differing = answers.differing([record for record, _ in cells], about.records)
    slower = machine_speed.slower([record for record, _ in cells])
    ratios = _ratios(cells, rounds_by_path(records))
    for values, (record, variant) in zip(rows, cells, strict=True):
        values |= ratios.get((record.cell.path, variant), {})
        for name, messages in ((answers.FLAG, differing), (machine_speed.FLAG, slower)):
            if message := messages.get(values["record"]):
                values |= _flagged(values, name, message)
    rows = [_printable(values) for values in rows]
    return pandas.DataFrame(rows, columns=COLUMNS).convert_dtypes()


def to_csv(summary) -> str:
    """A summary as CSV. A text that a spreadsheet would take for a formula begins with an apostrophe."""
    texts = summary[[name for name in TEXTS if name in summary]]
    return summary.assign(**texts.map(_no_formula, na_action="ignore")).to_csv(index=False)


def read_summary(path: Path):
    """summary.csv as a DataFrame; names stay text whatever they look like, and only empty fields are missing.

    Raises ProblemsError naming every field that does not fit its column, and OSError.
    """
    import pandas

    table = csv_table.read(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ProblemsError([f"{path}: has no column {', '.join(missing)}; a summary of this version has them all"])
    rows = pandas.DataFrame(table.rows, columns=table.columns)[list(COLUMNS)]
    rows = rows.where(rows != "")
    numbers, problems = {}, []
    for name in (name for name in COLUMNS if name not in (*TEXTS, "stable")):
        numbers[name] = pandas.to_numeric(rows[name], errors="coerce")
        for index, text in rows[name][rows[name].notna() & numbers[name].isna()].items():
            problems.append(f"{path}: row {index + 1}: {name}: {reprlib.repr(text)} is not a number")
    if problems:
        raise ProblemsError(problems)
    return rows.assign(stable=rows["stable"].map({"True": True, "False": False}), **numbers)


def _studies_about(record: Record, studies: Studies) -> dict[str, StudyRecord]:
    """The studies that say something about a cell, by kind."""
    if not studies.records:
        return {}
    facts = comparability.facts_that_must_agree(record)
    return {
        kind: studies.records[path]
        for kind, path in study_paths(record.cell).items()
        if path in studies.records and not comparability.disagreeing(_facts_about(path, studies, record), facts)
    }


def _facts_about(path: str, studies: Studies, record: Record) -> Mapping[str, Any]:
    return comparability.facts_about(studies.records[path].study, studies.facts[path], record.cell)


def _identity(cell: Cell) -> dict[str, Any]:
    """The columns that identify a cell."""
    return {
        "machine": cell.machine,
        "device": cell.device,
        "model": cell.model["name"],
        "workload": cell.workload.name,
        **vars(cell.workload),
        "engine": cell.engine,
        "precision": cell.precision,
        "batch_size": cell.batch_size,
        "base_engine": cell.base_engine,
        "options": ", ".join(f"{name} {value}" for name, value in chosen(cell.options).items()),
        "environment": cell.column.environment,
        "memory_limit_bytes": cell.memory_limit_bytes,
        "record": cell.path,
    }


def _figures(cell: MeasuredCell) -> dict[str, Any]:
    """Every figure of the catalogue with the ends of its interval."""
    values: dict[str, Any] = {}
    for figure in FIGURES:
        if (estimate := figure.formula(cell)) is not None:
            values |= dict(zip(figure.columns, estimate, strict=False))
    return values


def _samples(record: Record) -> dict[str, Any]:
    """How many samples of the latency there are, and how they are distributed."""
    samples = [seconds for run in record.runs for seconds in run.samples_s]
    return {
        "processes": len(record.runs),
        "cycles": len(samples),
        "latency_median_s": statistics.percentile(samples, 50),
        "latency_sd_s": statistics.standard_deviation(samples),
        "latency_p95_s": statistics.percentile(samples, 95) if len(samples) >= P95_SAMPLES else None,
        "latency_min_s": min(samples),
        "latency_max_s": max(samples),
    }


def _stability(record: Record) -> dict[str, Any]:
    if record.stability is None:
        return {"unstable_because": ""}
    return {
        "outliers": record.stability.outliers,
        "drift": record.stability.drift,
        "stable": record.stability.stable,
        "unstable_because": ", ".join(reason.name for reason in record.stability.reasons),
    }


def _limits(cell: MeasuredCell, values: Mapping[str, Any]) -> dict[str, Any]:
    """The limits behind the shares; a cell that is faster than its limit has no share there and is flagged."""
    if cell.ceilings is None:
        return {}
    limits: dict[str, Any] = {"limit_flags": cell.ceilings.flags}
    for phase, limit in cell.limits.items():
        limits |= {f"{phase}_floor_s": limit.floor_s, f"{phase}_bound_by": limit.bound_by}
    if above := above_limit(cell):
        limits |= _flagged(
            values, ABOVE_LIMIT, f"limit unknown: {', '.join(above)}; its shapes or the ceilings are wrong"
        )
    return limits


def _flagged(values: Mapping[str, Any], name: str, message: str) -> dict[str, Any]:
    """The flags and notes of a row with one more, which follows from several records."""
    return {
        "flags": ", ".join(filter(None, [values["flags"], name])),
        "notes": "; ".join(filter(None, [values["notes"], message])),
    }


def _largest_batch(search: StudyRecord | None) -> dict[str, Any]:
    if search is None or search.outcome != "ok":
        return {}
    fits, fails = batch_limit(search.results)
    return {"max_batch_fits": fits, "max_batch_fails": fails}


def _answers(study: StudyRecord | None) -> dict[str, Any]:
    """first_difference: the earliest of any row; None where no row has one."""
    if study is None or study.outcome != "ok":
        return {}
    result = study.results[0]
    return {
        **{name: result[name] for name in ("token_agreement", "next_token_agreement")},
        "first_difference": min((step for step in result["first_difference"] if step is not None), default=None),
        **{f"logits_error_{name}": result["logits_error"][name] for name in ("mean", "max")},
        **{f"kl_{name}_nats": result["kl_nats"][name] for name in ("mean", "max")},
    }


def _timeline(study: StudyRecord | None) -> dict[str, Any]:
    if study is None or study.outcome != "ok":
        return {}
    timeline = Timeline.of(study.results)
    return {
        "first_step_s": timeline.step_s[0],
        **{f"step_p{percent}_s": timeline.decode_percentile_s(percent) for percent in (50, 95, 99)},
        "last_step_s": timeline.decode_s[-1] if timeline.decode_s else None,
        "step_growth": timeline.growth,
        "steps_s": timeline.call_s,
        "step_memory_growth_bytes": timeline.memory_growth_bytes,
        "steps_cost": timeline.observing_cost,
        "profile_cost": timeline.profiling_cost,
        "timeline_flags": ", ".join(study.flag_names),
        **{SHARES[kind]: share for kind, share in (timeline.shares or {}).items()},
    }


def _ratios(
    cells: Sequence[tuple[Record, str]], rounds: Mapping[str, Sequence[int]]
) -> dict[tuple[str, str], dict[str, float]]:
    """The columns RATIOS of each cell that is set against another and shares several rounds with it, by its path and
    variant.

    cells: with the variant of each. rounds: of the runs of each cell, by the path of its first round.
    """
    by_path = {(record.cell.first_round.path, variant): record for record, variant in cells}

    def samples(cell: Cell, variant: str) -> dict[int, Sequence[float]]:
        """By round; empty where they are not known."""
        path = cell.first_round.path
        record = by_path.get((path, variant))
        is_known = record and record.outcome == "ok" and len(rounds[path]) == len(record.runs)
        return dict(zip(rounds[path], (run.samples_s for run in record.runs), strict=True)) if is_known else {}

    ratios: dict[tuple[str, str], dict[str, float]] = {}
    for record, variant in cells:
        cell, bases = record.cell, {}
        if cell.options:
            bases["engine"] = replace(cell, engine=cell.base_engine, options={})
        if cell.column.environment != CURRENT:
            bases["environment"] = replace(cell, environment={})
        for name, base in bases.items():
            if test := statistics.paired_ratio_test(samples(base, variant), samples(cell, variant)):
                found = (1 / test.ratio, 1 / test.high, 1 / test.low)
                ratios.setdefault((cell.path, variant), {}).update(zip(RATIOS[name], found, strict=True))
    return ratios


def _printable(values: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts, which come from records that anybody may have written, hold no control characters."""
    for name in TEXTS:
        if text := values.get(name):
            values[name] = printable(text)
    return values


def _no_formula(text: str) -> str:
    return f"'{text}" if text[:1] in tuple("=+-@") else text
