"""Baselines, what the cells are compared with: which paths can be used, and the rows of a CSV file of figures."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from inference_benchmark import csv_table
from inference_benchmark.analysis.figures import COMPARED
from inference_benchmark.cli import ProblemsError
from inference_benchmark.experiment.cells import RECORD_STEM

#: The columns that tell cells apart. A table of figures may lack some of them; its rows then match cells of any value.
KEYS = ("model", "parameters", "prompt_tokens", "new_tokens", "engine", "environment", "precision", "batch_size")
_WHOLE = ("parameters", "prompt_tokens", "new_tokens", "batch_size")
#: The figures that can be compared, and the interval of the throughput.
_FIGURES = (*(figure.name for figure in COMPARED.values()), *COMPARED["throughput"].columns[1:])
#: The columns that a table must have.
NEEDED = ("precision", "batch_size", "outcome", "throughput_tok_per_s")
_OUTCOMES = ("ok", "oom", "unsupported")
#: What the summary of a preview says of cells without a usable record. They are left out.
NOT_MEASURED = ("failed", "refused", "missing")
#: The range of a number. Ratios and products of such numbers stay finite.
_LEAST, _MOST = 1e-15, 1e15
_RECORD = re.compile(rf"{RECORD_STEM}\.json")


class BaselineError(ProblemsError):
    """Something that cannot be compared; ``problems`` holds one line each."""


def check(path: Path) -> list[str]:
    """Why a path cannot be a baseline, one line per problem. Records are not read."""
    try:
        if path.is_dir():
            return [] if records_below(path) else [f"{path} holds no records (batch-N.json)"]
        read_rows(path)
    except ProblemsError as error:
        return error.problems
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    return []


def files(paths: Iterable[str]) -> Iterator[str]:
    """The files behind the paths of baselines: themselves, or the records below them."""
    for path in map(Path, paths):
        yield from map(str, records_below(path) if path.is_dir() else [path])


def records_below(folder: Path) -> list[Path]:
    """Records in the order of their folders, batch sizes and rounds, without those that were superseded."""
    names = {file: _RECORD.fullmatch(file.name) for file in folder.rglob("batch-*.json")}
    numbers = {file: (int(name[1]), int(name[2] or 1)) for file, name in names.items() if name}
    return sorted(numbers, key=lambda file: (file.parent, *numbers[file]))


def rounds_of(path: Path) -> list[Path]:
    """The records of all rounds of the cell whose first one has this path, in order; at least this path."""
    stem = path.stem
    further = [file for file in path.parent.glob(f"{stem}.round-*.json") if _RECORD.fullmatch(file.name)]
    return [path, *sorted(further, key=lambda file: int(_RECORD.fullmatch(file.name)[2]))]


def read_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """(notes, rows with numbers as such, without what is blank).

    Raises BaselineError naming every row that is wrong, CsvError and OSError.
    """
    table = csv_table.read(path)
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise BaselineError(
            [f"{path}: has no column {', '.join(missing)}; a table of figures needs {', '.join(NEEDED)}"]
        )
    if "model" not in table.columns and "parameters" not in table.columns:
        raise BaselineError([f"{path}: has neither a column model nor parameters; which model it is of is unknown"])
    if not table.rows:
        raise BaselineError([f"{path}: has a header, but no rows"])
    problems, rows, numbers, unfinished = [], [], {}, 0
    for number, fields in enumerate(table.rows, start=1):
        try:
            row = _checked(dict(zip(table.columns, map(str.strip, fields), strict=True)))
        except ValueError as error:
            problems.append(f"{path}: row {number}: {error}")
            continue
        if row["outcome"] in NOT_MEASURED:
            unfinished += 1
            continue
        # Models are matched by name; by parameters only where they have none.
        key = tuple(row.get(name) for name in KEYS if not (name == "parameters" and "model" in row))
        if key in numbers:
            problems.append(f"{path}: row {number}: the same cell as in row {numbers[key]}; keep one")
        numbers[key] = number
        rows.append(row)
    if problems:
        raise BaselineError(problems)
    left_out = [f"{path}: {unfinished} cells without a record yet are left out."] if unfinished else []
    return [*table.notes, *left_out], rows


def _checked(raw: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: text for name, text in raw.items() if name and text}
    if row.get("parameters") == "0":  # an engine that has none to count
        del row["parameters"]
    for name in ("precision", "batch_size", "outcome"):
        if name not in row:
            raise ValueError(f"{name} is blank")
    if "model" not in row and "parameters" not in row:
        raise ValueError("model and parameters are blank; which model it is of is unknown")
    if row["outcome"] not in (*_OUTCOMES, *NOT_MEASURED):
        raise ValueError(f"outcome: {reprlib.repr(row['outcome'])} is not allowed; allowed: {', '.join(_OUTCOMES)}")
    for name in (*_WHOLE, *_FIGURES):
        if name in row:
            row[name] = _number(name, row[name])
    if row["outcome"] == "ok" and "throughput_tok_per_s" not in row:
        raise ValueError("outcome ok without a throughput_tok_per_s")
    return row


def _number(name: str, text: str) -> float:
    whole = name in _WHOLE
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = -1
    if not _LEAST <= number <= _MOST:
        kind = f"a whole number from 1 to {_MOST:g}" if whole else f"a number from {_LEAST:g} to {_MOST:g}, as 1234.5"
        raise ValueError(f"{name}: {reprlib.repr(text)} is not allowed; allowed: {kind}")
    return number
