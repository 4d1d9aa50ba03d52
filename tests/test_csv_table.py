"""CSV files, as editors and spreadsheets write them: read as they are meant, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference_benchmark import csv_table
from inference_benchmark.cli import ProblemsError


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "# a, b,\n# c\nmodel,speed\nm,1.5\nn,\n",
        "\ufeff# a, b,\r\n# c\r\nmodel,speed\r\nm,1.5\r\nn,\r\n",
        "# a, b,\r# c\rmodel,speed\rm,1.5\rn,\r",
        "# a, b,;;\n# c;;\nmodel;speed;\nm;1.5;\nn;;\n",
        "# c,,\nmodel,speed,,\n,,,\nm,1.5,,\nn,,,\n,,,\n",
        '# c\n\n"model", speed \nm,"1.5"\nn,',
    ],
    ids=["plain", "byte order mark", "carriage returns", "semicolons", "padded by a spreadsheet", "quotes and spaces"],
)
def test_the_same_table_in_every_form(tmp_path, content):
    table = csv_table.read(written(tmp_path, content))
    assert table[1:] == (["model", "speed"], [["m", "1.5"], ["n", ""]])
    assert table.notes in (["a, b,", "c"], ["c"])


def test_a_field_may_hold_a_delimiter_a_quote_and_a_line_end(tmp_path):
    table = csv_table.read(written(tmp_path, 'model,note\nm,"a, ""b"";\nc"\n'))
    assert table.rows == [["m", 'a, "b";\nc']]


def test_a_column_without_a_name_before_others_is_kept(tmp_path):
    """As pandas writes its index."""
    assert csv_table.read(written(tmp_path, ",model,speed\n0,m,1\n"))[1:] == (["", "model", "speed"], [["0", "m", "1"]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("model,speed\nm,1,234.5\n", "row 1: 3 fields under a header of 2; write a number as 1234.5, quote a text with a comma, and keep the comma of a blank field"),
        ("model,speed,latency\nm,1,234.5,\n", "row 1: 4 fields under a header of 3"),
        ("model;speed\nm;1;5\n", "row 1: 3 fields under a header of 2; write a number as 1234.5, quote a text with a semicolon, and keep the semicolon"),
        ("model,speed,\nm,1,234.5\n", "row 1: has a field behind the last column, speed"),
        ("a,b,c\nm,1\n", "row 1: 2 fields under a header of 3"),
        ("model,speed\nm,1\nn;2\n", "row 2: 1 fields under a header of 2"),
        ("model,speed,speed\nm,1,2\n", "2 columns are called speed; keep one"),
        ('# n\nmodel,speed\nm,"1\nn,2\n', "line 4: not CSV (unexpected end of data)"),
        ('model,speed\nm,"1"5\n', "line 2: not CSV (',' expected after '\"')"),
        (f"model,speed\n{'m' * 140_000},1\n", "line 2: not CSV (field larger than field limit (131072))"),
        ("model,speed\nmodèle,1\n".encode("latin-1"), "line 2: not UTF-8 (byte 0xe8); save it as UTF-8 (in Excel: CSV UTF-8)"),
        ("model,speed\nm,1\n".encode("utf-16"), "line 1: not UTF-8 (byte 0xff); save it as UTF-8 (in Excel: CSV UTF-8)"),
        ("model,speed\nm,1\n".encode("utf-16-le"), "holds NUL bytes, as UTF-16 does; save it as UTF-8"),
    ],
)  # fmt: skip
def test_what_could_be_misread_is_refused(tmp_path, content, said):
    path = written(tmp_path, content)
    with pytest.raises(ProblemsError) as caught:
        csv_table.read(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: ")
    assert said in problem


def test_every_row_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(ProblemsError) as caught:
        csv_table.read(written(tmp_path, "a,b\n1,2,3\n1,2\n1\n"))
    assert [problem.split(": ")[1] for problem in caught.value.problems] == ["row 1", "row 3"]


def test_a_pipe_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(OSError, match="Not a regular file"):
        csv_table.read(tmp_path / "pipe.csv")
