"""Records and studies -> one tidy table, one row per cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inference_benchmark.analysis import metrics, statistics
from inference_benchmark.analysis.ceilings import Machine
from inference_benchmark.analysis.max_batch import edge
from inference_benchmark.cli import printable
from inference_benchmark.experiment.cells import Cell, workload_name
from inference_benchmark.experiment.studies import about
from inference_benchmark.records import comparability

Document = Mapping[str, Any]

#: Figures of a measured cell; each also has columns for the ends of its 95 % interval (see interval_columns).
FIGURES = metrics.Figures._fields

#: Parts of a call that have a limit of their own.
PHASES = ("prefill", "decode", "whole")
#: What a divergence study says of every cell of its column.
ANSWERS = (
    "token_agreement", "first_difference", "next_token_agreement",
    "logits_error_mean", "logits_error_max", "kl_mean_nats", "kl_max_nats",
)  # fmt: skip

#: Columns of summary.csv, in order; units stand in the names.
COLUMNS = (
    "machine", "device", "model", "workload", "prompt_tokens", "new_tokens", "engine", "precision", "batch_size",
    "variant", "outcome", "reason_phase", "reason",
    *(column for name in FIGURES for column in (name, *metrics.interval_columns(name))),
    "ms_per_token", "processes", "cycles", "latency_median_s", "latency_sd_s", "latency_p95_s", "latency_min_s",
    "latency_max_s", "outliers", "drift", "stable", "unstable_because", "flags", "notes",
    "energy_per_token_j", "energy_per_token_resolution_j",
    *(f"{phase}_{what}" for phase in PHASES for what in ("floor_s", "limit_share", "bound_by")),
    "limit_flags",
    "max_batch_fits", "max_batch_fails",
    *ANSWERS,
    "load_s", "first_call_s", "compile_s",
    "loaded_bytes", "peak_rss_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "device_total_bytes",
    "memory_share", "memory_limit_bytes",
    "parameters", "weights_bytes", "started_at", "ended_at", "record",
)  # fmt: skip

#: Columns that hold names and words.
TEXTS = (
    "machine", "device", "model", "workload", "engine", "precision", "variant", "outcome", "reason_phase", "reason",
    "unstable_because", "flags", "notes", "started_at", "ended_at", "record",
    *(f"{phase}_bound_by" for phase in PHASES),
    "limit_flags",
)  # fmt: skip

#: With fewer samples, one of them alone would be the 95th percentile.
P95_SAMPLES = 20


class Studies(NamedTuple):
    """Studies by path, their facts that a cell must agree with, and what the ceilings among them say."""

    documents: Mapping[str, Document]
    decisive: Mapping[str, Mapping[str, Any]]
    machines: Mapping[str, Machine]

    @classmethod
    def of(cls, found: Mapping[str, Document]) -> Studies:
        return cls(
            found,
            {path: comparability.decisive(study) for path, study in found.items()},
            {path: Machine.of(study) for path, study in found.items() if study["study"]["kind"] == "ceilings"},
        )


NO_STUDIES = Studies.of({})


def row(record: Document, variant: str = "", studies: Studies = NO_STUDIES) -> dict[str, Any]:
    """One record as a row of summary.csv, its figures worked out from the samples and from the studies found."""
    cell, runs = Cell(**record["cell"]), record["runs"]
    told = _told(cell, record, studies) if studies.documents else {}
    reason, stability = record["reason"] or {}, record["stability"] or {}
    notes = [*stability.get("reasons", []), *record["flags"]]
    last = runs[-1] if runs else {"load_s": None, "warmup_s": [], "memory": {}}
    values = {
        **_identity(cell),
        "variant": variant,
        "outcome": record["outcome"],
        "reason_phase": reason.get("phase"),
        "reason": reason.get("message"),
        "outliers": stability.get("outliers"),
        "drift": stability.get("drift"),
        "stable": stability.get("stable"),
        "unstable_because": ", ".join(note["name"] for note in stability.get("reasons", [])),
        "flags": ", ".join(note["name"] for note in record["flags"]),
        "notes": "; ".join(note["message"] for note in notes),
        "load_s": last["load_s"],
        "first_call_s": last["warmup_s"][0] if last["warmup_s"] else None,
        "compile_s": record["model"].get("compilation", {}).get("seconds"),
        "memory_share": metrics.memory_share(record),
        "started_at": record["started_at"],
        "ended_at": record["ended_at"],
    }
    for name in (name for name in COLUMNS if name in last["memory"]):
        values[name] = max(run["memory"].get(name, 0) for run in runs)
    values |= {name: record["model"].get(name) for name in ("parameters", "weights_bytes")}
    values |= _edge(told.get("max-batch")) | _answers(told.get("divergence"))
    if record["outcome"] != "ok":
        return values
    figures = metrics.figures(record)
    values |= _figures(record, figures)
    if "ceilings" not in told:
        return values
    return _with_limits(values, record, figures, studies.machines[about(cell)["ceilings"]])


def _told(cell: Cell, record: Document, studies: Studies) -> dict[str, Document]:
    """The studies that say something about a cell, by kind."""
    theirs = comparability.decisive(record)
    return {
        kind: studies.documents[path]
        for kind, path in about(cell).items()
        if path in studies.documents and not comparability.disagreeing(studies.decisive[path], theirs)
    }


def blank_row(cell: Cell, outcome: str, reason: str) -> dict[str, Any]:
    """The row of a cell without a record."""
    return {**_identity(cell), "outcome": outcome, "reason": reason}


def _harmless(values: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts, which come from files of whoever can write there, are only texts: to a terminal, to what
    draws charts, and to a spreadsheet, which takes a text that begins so for a formula."""
    for name in TEXTS:
        if text := values.get(name):
            values[name] = f"'{printable(text)}" if text[0] in "=+-@" else printable(text)
    return values


def _identity(cell: Cell) -> dict[str, Any]:
    """What a row knows before anything is measured."""
    return {
        "machine": cell.machine,
        "device": cell.device,
        "model": cell.model["name"],
        "workload": workload_name(cell.workload),
        **cell.workload,
        "engine": cell.engine,
        "precision": cell.precision,
        "batch_size": cell.batch_size,
        "memory_limit_bytes": cell.memory_limit_bytes,
        "record": cell.path,
    }


def _figures(record: Document, found: metrics.Figures) -> dict[str, Any]:
    samples = [seconds for run in record["runs"] for seconds in run["samples_s"]]
    values: dict[str, Any] = {}
    for name, figure in found._asdict().items():
        if figure is not None:
            values |= dict(zip((name, *metrics.interval_columns(name)), figure, strict=True))
    energy, resolution = metrics.energy_per_token_j(record) or (None, None)
    return values | {
        "ms_per_token": metrics.ms_per_token(found.throughput_tok_per_s.value),
        "processes": len(record["runs"]),
        "cycles": len(samples),
        "latency_median_s": statistics.percentile(samples, 50),
        "latency_sd_s": statistics.standard_deviation(samples),
        "latency_p95_s": statistics.percentile(samples, 95) if len(samples) >= P95_SAMPLES else None,
        "latency_min_s": min(samples),
        "latency_max_s": max(samples),
        "energy_per_token_j": energy,
        "energy_per_token_resolution_j": resolution,
    }


def _with_limits(
    values: dict[str, Any], record: Document, figures: metrics.Figures, machine: Machine
) -> dict[str, Any]:
    """How far the cell is from what the machine can do; a cell that is faster still is flagged."""
    machine = machine.for_process(tf32=record["model"].get("tf32", False))
    values["limit_flags"] = machine.flags
    limits = metrics.limits(record, figures, machine.typical, machine.fastest)
    for phase, limit in limits.items():
        values |= {
            f"{phase}_floor_s": limit.floor_s,
            f"{phase}_limit_share": limit.share,
            f"{phase}_bound_by": limit.bound_by,
        }
    above = [f"{phase} at {limit.share:.1%} of its limit" for phase, limit in limits.items() if not limit.sure]
    if above:
        message = f"{', '.join(above)}: its shapes or the ceilings are wrong"
        values["flags"] = ", ".join(filter(None, [values["flags"], "above-limit"]))
        values["notes"] = "; ".join(filter(None, [values["notes"], message]))
    return values


def _edge(search: Document | None) -> dict[str, Any]:
    if search is None or search["outcome"] != "ok":
        return {}
    fits, fails = edge(search["results"])
    return {"max_batch_fits": fits, "max_batch_fails": fails}


def _answers(study: Document | None) -> dict[str, Any]:
    """first_difference: the earliest of any row; None where no row has one."""
    if study is None or study["outcome"] != "ok":
        return {}
    found = study["results"][0]
    return {
        **{name: found[name] for name in ("token_agreement", "next_token_agreement")},
        "first_difference": min((step for step in found["first_difference"] if step is not None), default=None),
        **{f"logits_error_{name}": found["logits_error"][name] for name in ("mean", "max")},
        **{f"kl_{name}_nats": found["kl_nats"][name] for name in ("mean", "max")},
    }


def summarise(records: Sequence[Document], found: Mapping[str, Document] | None = None):
    """A pandas DataFrame with COLUMNS, whole numbers kept whole. found: the studies, by path."""
    import pandas

    studies = Studies.of(found or {})
    named = zip(records, comparability.variants(records), strict=True)
    rows = [_harmless(row(record, variant, studies)) for record, variant in named]
    return pandas.DataFrame(rows, columns=COLUMNS).convert_dtypes()


def read_summary(path: Path):
    """summary.csv as a DataFrame; names stay text whatever they look like, only empty is missing."""
    import pandas

    return pandas.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])
