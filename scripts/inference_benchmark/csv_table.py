"""A CSV file, read strictly: a wrong figure is worse than an error."""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from inference_benchmark import files
from inference_benchmark.cli import ProblemsError


class CsvTable(NamedTuple):
    """notes: the lines above the header that begin with #, without it. rows: without blank ones; a field per column."""

    notes: list[str]
    columns: list[str]
    rows: list[list[str]]


def read(path: Path, needed: Sequence[str] = (), needed_by: str = "") -> CsvTable:
    """The table in a regular file: UTF-8 with commas, or with semicolons where its header has more of them. Raises
    ProblemsError naming every row that does not fit the header, and OSError. needed: columns without which it is
    another file, whose rows say nothing. needed_by: what has them."""
    lines = list(io.StringIO(_text(path), newline=""))
    notes = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    header = next(filter(str.strip, lines[len(notes) :]), "")
    delimiter = ";" if header.count(";") > header.count(",") else ","
    reader = csv.reader(lines[len(notes) :], delimiter=delimiter, strict=True)
    try:
        first, *rows = [fields for fields in reader if any(map(str.strip, fields))] or [[]]
    except csv.Error as error:
        raise ProblemsError(f"{path}: line {len(notes) + reader.line_num}: not CSV ({error})") from None
    columns = [name.strip() for name in first]
    if missing := [name for name in needed if name not in columns]:
        named = ", ".join(missing if len(missing) <= 4 else [*missing[:3], f"... ({len(missing)} in all)"])
        raise ProblemsError(f"{path}: has no column {named}; {needed_by} has them all")
    repeated = {name: n for name, n in Counter(columns).items() if name and n > 1}
    problems = [f"{path}: {n} columns are called {name}; keep one" for name, n in repeated.items()]
    word = "semicolon" if delimiter == ";" else "comma"
    named = max((n for n, name in enumerate(columns, start=1) if name), default=0)
    for number, fields in enumerate(rows, start=1):
        if len(fields) != len(columns):
            problems.append(
                f"{path}: row {number}: {len(fields)} fields under a header of {len(columns)}; write a number as "
                f"1234.5, quote a text with a {word}, and keep the {word} of a blank field"
            )
        elif any(map(str.strip, fields[named:])):
            problems.append(f"{path}: row {number}: has a field behind the last column, {columns[named - 1]}")
    if problems:
        raise ProblemsError(*problems)
    # A spreadsheet gives every line as many fields as the longest has: notes and header end with delimiters.
    notes = [re.sub(f"{delimiter}{{2,}}$", "", note.strip("# \r\n")) for note in notes]
    return CsvTable(notes, columns[:named], [fields[:named] for fields in rows])


def _text(path: Path) -> str:
    content = files.read(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"line {line}: not UTF-8 (byte 0x{content[error.start]:02x})"
    else:
        if "\0" not in text:
            return text
        problem = "holds NUL bytes, as UTF-16 does"
    raise ProblemsError(f"{path}: {problem}; save it as UTF-8 (in Excel: CSV UTF-8)")
