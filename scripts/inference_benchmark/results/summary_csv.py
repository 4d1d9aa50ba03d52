"""Cell results as CSV: summary.csv, and tables of figures that others made."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inference_benchmark import csv_table
from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.figures import BY_GROUP, COMPARED, FIGURES, Figure
from inference_benchmark.analysis.metrics import PHASES
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.cli import ProblemsError, printable
from inference_benchmark.results.cell_result import KEYS, NOT_MEASURED, OUTCOMES, CellResult
from inference_benchmark.results.column import CURRENT, Column

#: Fields of a CellResult: names of warnings, separated by commas in a column; and texts.
_WARNINGS = ("unstable_because", "flags", "limit_flags", "timeline_flags")
_TEXTS = ("machine", "device", "outcome", "reason_phase", "reason", "notes", "started_at", "ended_at", "record")
_OF_COLUMN = ("model", "engine", "precision", "environment", "base_engine", "split", "prompts")
_BOUND_BY = tuple(f"{phase}_bound_by" for phase in PHASES)
#: Columns about a cell.
_ABOUT = (
    "machine", "device", "model", "workload", "prompt_tokens", "new_tokens", "prompts", "engine", "precision",
    "batch_size", "base_engine", "options", "environment", "split", "memory_limit_bytes", "outcome", "reason_phase",
    "reason",
)  # fmt: skip
#: Columns of summary.csv, in order; units are in the names.
COLUMNS = (
    *_ABOUT,
    *(column for figure in FIGURES for column in figure.columns),
    *_BOUND_BY, "stable", *_WARNINGS, "notes", "started_at", "ended_at", "record",
)  # fmt: skip
#: Columns of the long form; the unit of a value is in the name of its figure.
LONG_COLUMNS = (*_ABOUT, *_WARNINGS, "figure", *Estimate._fields)

#: Columns that were added later: older summaries say nothing of them.
_NOT_IN_OLDER = {
    "prompts",
    *(name for group in ("quality", "batch") for each in BY_GROUP[group] for name in each.columns),
}

#: The columns that a table of figures must have.
NEEDED = ("precision", "batch_size", "outcome", "throughput_tok_per_s")
_WHOLE = ("parameters", "prompt_tokens", "new_tokens", "batch_size")
#: The figures of a table that are used: those that can be compared, and the interval of the throughput.
_USED = (*(figure.name for figure in COMPARED.values()), *COMPARED["throughput"].columns[1:])
#: The range of a number that is compared. Ratios and products of such numbers stay finite.
_LEAST, _MOST = 1e-15, 1e15


def to_csv(results: Iterable[CellResult]) -> str:
    """Results as summary.csv, whole numbers whole."""
    return _csv(map(row, results), COLUMNS)


def to_long_csv(results: Iterable[CellResult], figures: Sequence[Figure] = FIGURES) -> str:
    """Results as CSV with a row for each figure of each cell, and one for a cell that has none of these figures."""
    return _csv((each for result in results for each in _long_rows(result, figures)), LONG_COLUMNS)


def _long_rows(result: CellResult, figures: Iterable[Figure]) -> Iterator[dict[str, Any]]:
    about, names = row(result), [figure.name for figure in figures if figure.name in result.figures]
    for name in names:
        yield {**about, "figure": name, **result.figures[name]._asdict()}
    if not names:
        yield about


def _csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    import pandas

    harmless = [{name: _harmless(each[name]) for name in columns if name in each} for each in rows]
    return pandas.DataFrame(harmless, columns=columns).convert_dtypes().to_csv(index=False)


def read_summary(path: Path) -> list[CellResult]:
    """The results in summary.csv; names stay text whatever they look like. Raises OSError, and ProblemsError naming
    every field that does not fit its column."""
    table = csv_table.read(path, [name for name in COLUMNS if name not in _NOT_IN_OLDER], "a summary of this version")
    rows, problems = [], []
    for number, fields in enumerate(table.rows, start=1):
        row: dict[str, Any] = {name: text for name, text in zip(table.columns, fields, strict=True) if text}
        for name in _NUMBERS & row.keys():
            try:
                row[name] = _parsed(row[name])
            except ValueError:
                problems.append(f"{path}: row {number}: {name}: {reprlib.repr(row[name])} is not a number")
        problems += [f"{path}: row {number}: {name} is blank" for name in ("batch_size", "outcome") if name not in row]
        rows.append(row)
    if problems:
        raise ProblemsError(*problems)
    return [_result(row) for row in rows]


def read_table(path: Path) -> tuple[list[str], list[CellResult]]:
    """(notes, results) of a table of figures, summary.csv among them; of its figures those that can be compared. Lines
    at its top that begin with # are notes. Raises OSError, and ProblemsError naming each row that is wrong."""
    table = csv_table.read(path, NEEDED, "a table of figures")
    if "model" not in table.columns and "parameters" not in table.columns:
        raise ProblemsError(f"{path}: has neither a column model nor parameters; which model it is of is unknown")
    if not table.rows:
        raise ProblemsError(f"{path}: has a header, but no rows")
    problems, results, numbers, unfinished = [], [], {}, 0
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
        results.append(_result(row))
    if problems:
        raise ProblemsError(*problems)
    left_out = [f"{path}: {unfinished} cells without a record yet are left out."] if unfinished else []
    return [*table.notes, *left_out], results


def row(result: CellResult) -> dict[str, Any]:
    """What is known of a result, by the columns of summary.csv."""
    column = result.column
    values = {
        **{name: getattr(result, name) for name in _TEXTS},
        **{name: getattr(column, name) for name in (*_OF_COLUMN, "workload", "prompt_tokens", "new_tokens")},
        **{name: ", ".join(getattr(result, name)) for name in _WARNINGS},
        **{f"{phase}_bound_by": what for phase, what in result.bound_by.items()},
        "options": column.options_text,
        "batch_size": result.batch_size,
        "memory_limit_bytes": result.memory_limit_bytes,
        "stable": not result.unstable_because if result.is_measured else None,
    }
    for figure in FIGURES:
        if figure.name in result.figures:
            values |= dict(zip(figure.columns, result.figures[figure.name], strict=False))
    return values


def _result(row: Mapping[str, Any]) -> CellResult:
    """The inverse of row, for a row whose numbers are numbers, without what is blank."""
    options = tuple(tuple(each.split(" ", 1)) for each in row.get("options", "").split(", ") if each)
    lengths = {name: row.get(name) for name in ("prompt_tokens", "new_tokens")}
    return CellResult(
        Column(**{name: row.get(name, "") for name in _OF_COLUMN}, **lengths, options=options),
        row["batch_size"],
        figures={figure.name: _estimate(figure, row) for figure in FIGURES if figure.name in row},
        bound_by={phase: row[name] for phase, name in zip(PHASES, _BOUND_BY, strict=True) if name in row},
        memory_limit_bytes=row.get("memory_limit_bytes"),
        **{name: row.get(name, "") for name in _TEXTS},
        **{name: tuple(filter(None, row.get(name, "").split(", "))) for name in _WARNINGS},
    )


def _estimate(figure: Figure, row: Mapping[str, Any]) -> Estimate:
    ends = [row[name] for name in figure.columns[1:] if name in row]
    return Estimate(row[figure.name], *(ends if len(ends) == 2 else ()))


def _checked(raw: Mapping[str, str]) -> dict[str, Any]:
    """What is used of a row of a table. Raises ValueError."""
    row: dict[str, Any] = {name: text for name, text in raw.items() if text and name in _USED_COLUMNS}
    if row.get("parameters") == "0":  # an engine that has none to count
        del row["parameters"]
    if blank := [name for name in ("precision", "batch_size", "outcome") if name not in row]:
        raise ValueError(f"{blank[0]} is blank")
    if "model" not in row and "parameters" not in row:
        raise ValueError("model and parameters are blank; which model it is of is unknown")
    if row["outcome"] not in (*OUTCOMES, *NOT_MEASURED):
        raise ValueError(f"outcome: {reprlib.repr(row['outcome'])} is not allowed; allowed: {', '.join(OUTCOMES)}")
    row |= {name: _number(name, row[name]) for name in (*_WHOLE, *_USED) if name in row}
    if "record" in row:  # of a run, which may be older than environments
        row.setdefault("environment", CURRENT)
    if row["outcome"] != "ok":
        return {name: value for name, value in row.items() if name not in _USED}
    if "throughput_tok_per_s" not in row:
        raise ValueError("outcome ok without a throughput_tok_per_s")
    row.setdefault("ms_per_token", metrics.ms_per_token(row["throughput_tok_per_s"]))
    if "new_tokens" in row:
        tokens = row["batch_size"] * row["new_tokens"]
        row.setdefault("latency_s", metrics.latency_from_throughput_s(tokens, row["throughput_tok_per_s"]))
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


def _parsed(text: str) -> float:
    """A number as whole as it is written. Raises ValueError."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _harmless(value: Any) -> Any:
    """A text, which may come from a record that anybody has written, as a terminal and a spreadsheet only show it: one
    that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text[:1] in tuple("=+-@") else text


_NUMBERS = {*_WHOLE, "memory_limit_bytes", *(column for figure in FIGURES for column in figure.columns)}
_USED_COLUMNS: Sequence[str] = (*KEYS, *_USED, *_OF_COLUMN, *_TEXTS, *_WARNINGS, "options")
