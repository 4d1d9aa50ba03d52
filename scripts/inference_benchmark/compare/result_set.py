"""What can be compared: a folder of records, the summary of a run, or a table of somebody else's figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.statistics import Groups
from inference_benchmark.experiment.baselines import FIGURES, KEYS, BaselineError, read_rows, records_below
from inference_benchmark.records import comparability, record


@dataclass(frozen=True)
class Measured:
    """A cell of one side.

    where: what is known of it among KEYS. figures: those of FIGURES that it has. whole_s, first_s: seconds of its
    whole calls and of those for one token, by process; empty where only figures are known.
    """

    where: Mapping[str, Any]
    outcome: str
    figures: Mapping[str, float] = field(default_factory=dict)
    whole_s: Groups = ()
    first_s: Groups = ()


@dataclass(frozen=True)
class Side:
    """cells, and facts: everything that they were measured on and with, every value that each fact takes. notes:
    what a table says of itself."""

    name: str
    cells: Sequence[Measured]
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def load(path: Path, name: str | None = None) -> Side:
    """The side at path: a folder with the records of one machine, or a CSV file.

    A CSV is a table of figures, as summary.csv is one. Where it names records that are beside it, they are read
    instead, because samples say more than figures. Lines at its top that begin with # are notes. name: how to call
    it; by default the machine's label or the file's name. Raises BaselineError naming everything that cannot be used,
    and OSError.
    """
    if path.is_dir():
        found = records_below(path)
        if not found:
            raise BaselineError(
                [f"{path}: holds no records (batch-N.json); give a folder below results/, or a CSV file"]
            )
        return of_records(_read(found), name, str(path))
    return _of_table(path, name)


def of_records(records: Sequence[Mapping[str, Any]], name: str | None = None, where: str = "records") -> Side:
    """The side that records of one machine make. Raises BaselineError where they are of several."""
    machines = sorted({known["cell"]["machine"] for known in records})
    if len(machines) > 1:
        raise BaselineError([f"{where}: holds records of {', '.join(machines)}; give the folder of one of them"])
    # What did not get as far as counting them has as many as the others.
    parameters = {known["cell"]["model"]["name"]: n for known in records if (n := known["model"].get("parameters"))}
    cells = [_of_record(known, parameters.get(known["cell"]["model"]["name"])) for known in records]
    return Side(name or machines[0], cells, _facts(records))


# -- records ---------------------------------------------------------------------------------------


def _read(files: Iterable[Path]) -> list[dict[str, Any]]:
    problems, records = [], []
    for file in files:
        try:
            records.append(record.load(file))
        except record.RecordError as error:
            problems.append(f"{file}: {error}")
    if problems:
        raise BaselineError(problems)
    return records


def _of_record(known: Mapping[str, Any], parameters: int | None) -> Measured:
    cell = known["cell"]
    where = {
        "model": cell["model"]["name"],
        **cell["workload"],
        "engine": cell["engine"],
        "precision": cell["precision"],
        "batch_size": cell["batch_size"],
        "parameters": parameters,
    }
    where = {key: where[key] for key in KEYS}
    if known["outcome"] != "ok":
        return Measured(where, known["outcome"])
    found = metrics.figures(known)
    runs = known["runs"]
    whole = [run["samples_s"] for run in runs]
    first = [run["first_token_s"] for run in runs] if cell["workload"]["new_tokens"] > 1 else whole
    return Measured(where, "ok", {name: getattr(found, name).value for name in FIGURES}, whole, first)


def _facts(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Everything that could make a difference: where and with what, and how it was measured."""
    settings: dict[str, list[Any]] = {}
    for cell in (known["cell"] for known in records):
        told = _settings(cell["measurement"], cell["memory_limit_bytes"], [cell["model"]])
        for name, value in (told | {"measure version": cell["measure_version"]}).items():
            if value not in settings.setdefault(name, []):
                settings[name].append(value)
    return comparability.all_facts(records) | settings


def _settings(measurement: Mapping[str, Any], limit: int | None, models: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        **{f"measurement {name}": value for name, value in measurement.items()},
        "memory limit (bytes)": limit,
        **{f"model {m['name']} {key}": value for m in models for key, value in m.items() if key != "name"},
    }


# -- tables ----------------------------------------------------------------------------------------


def _of_table(path: Path, name: str | None) -> Side:
    notes, rows = read_rows(path)
    # results/MACHINE/... of its rows, below the summary itself: a copy of a summary must never speak of records that
    # were made since then in the place that it was copied from.
    named = [path.parent.joinpath(*Path(row["record"]).parts[2:]) for row in rows if row.get("record")]
    machines = {row["machine"] for row in rows if row.get("machine")}
    name = name or (machines.pop() if len(machines) == 1 else path.stem)
    there = sum(file.exists() for file in named)
    if named and there == len(named):
        return of_records(_read(named), name, str(path))
    if there:
        notes.append(
            f"{path}: {len(named) - there} of its {len(named)} records are not beside it: figures alone are used."
        )
    facts: dict[str, Sequence[Any]] = {}
    beside = path.with_name("provenance.json")
    if path.name == "summary.csv" and beside.exists():
        told = json.loads(beside.read_bytes())
        settings = _settings(told["measurement"], told["memory_limit_bytes"], told["models"])
        facts = told["facts"] | {fact: [value] for fact, value in settings.items()}
    return Side(name, [_of_row(row) for row in rows], facts, notes)


def _of_row(row: Mapping[str, Any]) -> Measured:
    where = {key: row[key] for key in KEYS if key in row}
    figures = {name: row[name] for name in FIGURES if name in row and row["outcome"] == "ok"}
    if figures and "latency_s" not in figures and "new_tokens" in row:
        tokens = row["batch_size"] * row["new_tokens"]
        figures["latency_s"] = metrics.latency_s(tokens, figures["throughput_tok_per_s"])
    return Measured(where, row["outcome"], figures)
