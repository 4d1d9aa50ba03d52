"""Records -> one tidy table, one row per cell, and the facts they were measured under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference_benchmark import comparability, metrics, statistics
from inference_benchmark.cells import Cell, Experiment, workload_name
from inference_benchmark.record import RecordError, load_for

#: Figures of a measured cell; each also has columns for the ends of its 95 % interval (see interval_columns).
FIGURES = metrics.Figures._fields

#: Columns of summary.csv, in order; units stand in the names.
COLUMNS = (
    "machine", "device", "model", "workload", "prompt_tokens", "new_tokens", "engine", "precision", "batch_size",
    "variant", "outcome", "reason_phase", "reason",
    *(column for name in FIGURES for column in (name, *metrics.interval_columns(name))),
    "ms_per_token", "processes", "cycles", "latency_median_s", "latency_sd_s", "latency_p95_s", "latency_min_s",
    "latency_max_s", "outliers", "drift", "stable", "unstable_because", "flags", "notes",
    "energy_per_token_j", "energy_per_token_resolution_j",
    "load_s", "first_call_s",
    "loaded_bytes", "peak_rss_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "device_total_bytes",
    "memory_share", "memory_limit_bytes",
    "parameters", "weights_bytes", "started_at", "ended_at", "record",
)  # fmt: skip

#: Columns that hold names and words.
TEXTS = (
    "machine", "device", "model", "workload", "engine", "precision", "variant", "outcome", "reason_phase", "reason",
    "unstable_because", "flags", "notes", "started_at", "ended_at", "record",
)  # fmt: skip


#: With fewer samples, one of them alone would be the 95th percentile.
P95_SAMPLES = 20


class CollectError(ValueError):
    """Records that cannot be used; ``problems`` holds one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def load_records(experiment: Experiment) -> list[dict[str, Any]]:
    """The record of every cell, in the experiment's order. Raises CollectError naming each that is no such
    record, or what keeps them out of one table."""
    records, problems = [], []
    for cell in experiment.cells():
        try:
            records.append(load_for(cell, Path(cell.path)))
        except RecordError as error:
            problems.append(f"{cell.path}: {error}")
        except OSError as error:
            problems.append(f"{cell.path}: {error.strerror}")
    if not problems and experiment.mixed_provenance == "refuse":
        problems += comparability.disagreements(records)
    if problems:
        raise CollectError(problems)
    return records


def row(record: Mapping[str, Any], variant: str = "") -> dict[str, Any]:
    """One record as a row of summary.csv, its figures worked out from the samples."""
    cell, runs = Cell(**record["cell"]), record["runs"]
    reason, stability = record["reason"] or {}, record["stability"] or {}
    notes = [*stability.get("reasons", []), *record["flags"]]
    last = runs[-1]
    values = {
        "machine": cell.machine,
        "device": cell.device,
        "model": cell.model["name"],
        "workload": workload_name(cell.workload),
        **cell.workload,
        "engine": cell.engine,
        "precision": cell.precision,
        "batch_size": cell.batch_size,
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
        "memory_share": metrics.memory_share(record),
        "memory_limit_bytes": cell.memory_limit_bytes,
        "started_at": record["started_at"],
        "ended_at": record["ended_at"],
        "record": cell.path,
    }
    for name in (name for name in COLUMNS if name in last["memory"]):
        values[name] = max(run["memory"].get(name, 0) for run in runs)
    values |= {name: record["model"].get(name) for name in ("parameters", "weights_bytes")}
    return values | _figures(record) if record["outcome"] == "ok" else values


def _figures(record: Mapping[str, Any]) -> dict[str, Any]:
    found = metrics.figures(record)
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


def summarise(records: Sequence[Mapping[str, Any]]):
    """A pandas DataFrame with COLUMNS, whole numbers kept whole."""
    import pandas

    named = zip(records, comparability.variants(records), strict=True)
    return pandas.DataFrame([row(*pair) for pair in named], columns=COLUMNS).convert_dtypes()


def read_summary(path: Path):
    """summary.csv as a DataFrame; names stay text whatever they look like, only empty is missing."""
    import pandas

    return pandas.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])
