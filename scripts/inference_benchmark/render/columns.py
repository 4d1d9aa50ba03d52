"""The columns of tables and the lines of charts: what makes one, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas

from inference_benchmark.analysis.metrics import interval_columns
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.engines import ENGINES

#: What stands in the place of a figure.
ENDINGS = {"oom": "oom", "unsupported": "n/a"}

#: What makes a column: cells of one engine, one precision and, where records are split, one variant.
Column = tuple[str, str, str]


def columns(rows: pandas.DataFrame) -> dict[Column, str]:
    """The columns of a table in the summary's order, each with its heading, lines parted by ``<br>``.

    The engine is named where there are several.
    """
    keys = list(dict.fromkeys(column_of(row) for row in rows.to_dict("records")))
    several = len({engine for engine, _, _ in keys}) > 1
    return {
        (engine, precision, variant): "<br>".join(
            part for part in (engine if several else "", heading(engine, precision), variant) if part
        )
        for engine, precision, variant in keys
    }


def column_names(rows: pandas.DataFrame) -> dict[Column, str]:
    """The same columns, each with a name for one line."""
    keys = list(columns(rows))
    several = len({engine for engine, _, _ in keys}) > 1
    return {key: " ".join(filter(None, key if several else key[1:])) for key in keys}


def heading(engine: str, precision: str) -> str:
    """A precision and, in a line of its own, what it means in this engine."""
    entry = ENGINES.get(engine)
    meaning = entry.precisions.get(precision) if entry else None
    return f"{precision}<br>{meaning}" if meaning else precision


def column_of(row: Mapping[str, Any]) -> Column:
    return row["engine"], row["precision"], said(row, "variant")


def said(row: Mapping[str, Any], column: str) -> str:
    """A text of the summary; "" where there is none."""
    return "" if pandas.isna(row[column]) else str(row[column])


def half_width(row: Mapping[str, Any], figure: str) -> float | None:
    """Half of the 95 % interval of a figure, as a part of it; None where that is not known."""
    value, low, high = (row[column] for column in (figure, *interval_columns(figure)))
    return None if pandas.isna(low) else Estimate(value, low, high).half_width


class Shown(NamedTuple):
    """A table as it is shown. cells: a row per batch size, the batch size first. foot: rows that hold for columns."""

    title: str
    explanation: str
    headings: list[str]
    cells: list[list[str]]
    foot: list[list[str]]
