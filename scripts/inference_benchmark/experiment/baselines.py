"""Baselines, what the cells are compared with: which paths can be used, and the rows of a CSV file of figures."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from inference_benchmark.analysis.figures import COMPARED
from inference_benchmark.cli import ProblemsError

#: The columns that tell cells apart. A table of figures may lack some of them; its rows then match cells of any value.
KEYS = ("model", "parameters", "prompt_tokens", "new_tokens", "engine", "precision", "batch_size")
_WHOLE = {"parameters", "prompt_tokens", "new_tokens", "batch_size"}
#: The figures that can be compared.
_FIGURES = tuple(figure.name for figure in COMPARED.values())
#: The columns that a table must have.
NEEDED = ("precision", "batch_size", "outcome", "throughput_tok_per_s")
_OUTCOMES = ("ok", "oom", "unsupported")


class BaselineError(ProblemsError):
    """Something that cannot be compared; ``problems`` holds one line each."""


def check(path: Path) -> list[str]:
    """Why a path cannot be a baseline, one line per problem. Records are not read."""
    try:
        if path.is_dir():
            return [] if records_below(path) else [f"{path} holds no records (batch-N.json)"]
        read_rows(path)
    except BaselineError as error:
        return error.problems
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    return []


def files(paths: Iterable[str]) -> Iterator[str]:
    """The files behind the paths of baselines: themselves, or the records below them."""
    for path in map(Path, paths):
        yield from map(str, records_below(path) if path.is_dir() else [path])


def records_below(folder: Path) -> list[Path]:
    """Records in the order of their folders and batch sizes, without those that were superseded."""
    sizes = {file: re.fullmatch(r"batch-(\d+)\.json", file.name) for file in folder.rglob("batch-*.json")}
    return sorted((file for file in sizes if sizes[file]), key=lambda file: (file.parent, int(sizes[file][1])))


def read_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """(notes, rows with numbers as such, without what is blank).

    Raises BaselineError naming every line that is wrong.
    """
    lines = path.read_text().splitlines(keepends=True)
    notes = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    reader = csv.DictReader(io.StringIO("".join(lines[len(notes) :]), newline=""))
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise BaselineError(
            [f"{path}: has no column {', '.join(missing)}; a table of figures needs {', '.join(NEEDED)}"]
        )
    if "model" not in reader.fieldnames and "parameters" not in reader.fieldnames:
        raise BaselineError([f"{path}: has neither a column model nor parameters; which model it is of is unknown"])
    problems, rows, numbers = [], [], {}
    for number, raw in enumerate(reader, start=1):
        try:
            row = _checked(raw)
        except ValueError as error:
            problems.append(f"{path}: row {number}: {error}")
            continue
        key = tuple(row.get(name) for name in KEYS)
        if key in numbers:
            problems.append(f"{path}: row {number}: the same cell as in row {numbers[key]}; keep one")
        numbers[key] = number
        rows.append(row)
    if problems:
        raise BaselineError(problems)
    return [note.strip("# \n") for note in notes], rows


def _checked(raw: Mapping[str, str | None]) -> dict[str, Any]:
    row: dict[str, Any] = {name: text for name, text in raw.items() if name and text}
    if row.get("parameters") == "0":  # an engine that has none to count
        del row["parameters"]
    for name in ("precision", "batch_size", "outcome"):
        if name not in row:
            raise ValueError(f"{name} is blank")
    if row["outcome"] not in _OUTCOMES:
        raise ValueError(f"outcome: {row['outcome']!r} is not allowed; allowed: {', '.join(_OUTCOMES)}")
    for name, kind in [*((n, int) for n in _WHOLE), *((n, float) for n in _FIGURES)]:
        if name in row:
            row[name] = _positive(name, row[name], kind)
    if row["outcome"] == "ok" and "throughput_tok_per_s" not in row:
        raise ValueError("outcome ok without a throughput_tok_per_s")
    return row


def _positive(name: str, text: str, kind: Callable[[str], float]) -> float:
    try:
        number = kind(text)
    except ValueError:
        number = -1
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}: {text!r} is not allowed; allowed: a number > 0")
    return number
