"""Records -> one tidy table, one row per cell, and the facts they were measured under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference_benchmark import metrics
from inference_benchmark.cells import Cell, Experiment, workload_name
from inference_benchmark.record import RecordError, load_for

#: Columns of summary.csv, in order; units stand in the names.
COLUMNS = (
    "machine", "device", "model", "workload", "prompt_tokens", "new_tokens", "engine", "precision", "batch_size",
    "outcome", "reason_phase", "reason",
    "cycles", "throughput_tok_per_s", "ms_per_token", "latency_s", "latency_min_s", "latency_max_s",
    "load_s", "first_call_s",
    "peak_rss_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "device_total_bytes", "memory_limit_bytes",
    "parameters", "weights_bytes", "started_at", "ended_at", "record",
)  # fmt: skip

#: Columns that hold names and words.
TEXTS = (
    "machine", "device", "model", "workload", "engine", "precision", "outcome", "reason_phase", "reason",
    "started_at", "ended_at", "record",
)  # fmt: skip

#: Facts of a record that say what its figures were measured on and with: (name, keys from the top).
FACTS = {
    "device": ("device", "name"),
    "driver": ("device", "driver"),
    "device memory (bytes)": ("device", "memory_bytes"),
    "host": ("host", "name"),
    "system": ("host", "system"),
    "CPU": ("host", "cpu"),
    "usable CPUs": ("host", "usable_cpus"),
    "host memory (bytes)": ("host", "memory_bytes"),
    "threads": ("model", "threads"),
    "CUDA": ("model", "cuda"),
    "attention": ("model", "attention"),
    "python": ("software", "python"),
    "torch": ("software", "torch"),
    "transformers": ("software", "transformers"),
    "accelerate": ("software", "accelerate"),
    "bitsandbytes": ("software", "bitsandbytes"),
    "numpy": ("software", "numpy"),
    "commit": ("git", "commit"),
    "uncommitted changes": ("git", "dirty"),
}


class CollectError(ValueError):
    """Records that cannot be used; ``problems`` holds one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def load_records(experiment: Experiment) -> list[dict[str, Any]]:
    """The record of every cell, in the experiment's order. Raises CollectError naming each that is no such record."""
    records, problems = [], []
    for cell in experiment.cells():
        try:
            records.append(load_for(cell, Path(cell.path)))
        except RecordError as error:
            problems.append(f"{cell.path}: {error}")
        except OSError as error:
            problems.append(f"{cell.path}: {error.strerror}")
    if problems:
        raise CollectError(problems)
    return records


def row(record: Mapping[str, Any]) -> dict[str, Any]:
    """One record as a row of summary.csv, its figures worked out from the samples."""
    cell = Cell(**record["cell"])
    reason = record["reason"] or {}
    memory, samples = record["memory"], record["samples_s"]
    values = {
        "machine": cell.machine,
        "device": cell.device,
        "model": cell.model["name"],
        "workload": workload_name(cell.workload),
        **cell.workload,
        "engine": cell.engine,
        "precision": cell.precision,
        "batch_size": cell.batch_size,
        "outcome": record["outcome"],
        "reason_phase": reason.get("phase"),
        "reason": reason.get("message"),
        "cycles": len(samples),
        "load_s": record["load_s"],
        "first_call_s": record["first_call_s"],
        "memory_limit_bytes": cell.memory_limit_bytes,
        "started_at": record["started_at"],
        "ended_at": record["ended_at"],
        "record": cell.path,
    }
    values |= {name: memory[name] for name in COLUMNS if name in memory}
    values |= {name: record["model"].get(name) for name in ("parameters", "weights_bytes")}
    if record["outcome"] == "ok":
        throughput = metrics.throughput_tok_per_s(cell.batch_size, cell.workload["new_tokens"], samples)
        values |= {
            "throughput_tok_per_s": throughput,
            "ms_per_token": metrics.ms_per_token(throughput),
            "latency_s": metrics.latency_s(samples),
            "latency_min_s": min(samples),
            "latency_max_s": max(samples),
        }
    return values


def summarise(records: Sequence[Mapping[str, Any]]):
    """A pandas DataFrame with COLUMNS, whole numbers kept whole."""
    import pandas

    return pandas.DataFrame([row(record) for record in records], columns=COLUMNS).convert_dtypes()


def read_summary(path: Path):
    """summary.csv as a DataFrame; names stay text whatever they look like, only empty is missing."""
    import pandas

    return pandas.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])


def facts(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Every value that each of FACTS takes in the records; more than one where they disagree."""
    found: dict[str, list[Any]] = {}
    for name, (part, key) in FACTS.items():
        values = [record[part][key] for record in records if key in (record[part] or {})]
        distinct = [value for value in dict.fromkeys(values) if value is not None]
        if distinct:
            found[name] = distinct
    return found
