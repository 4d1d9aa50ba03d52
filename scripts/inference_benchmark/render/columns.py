"""The columns of tables and the lines of charts, and the texts that a row of the summary shows there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas

from inference_benchmark.analysis.figures import Figure, table_of
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.engines import ENGINES
from inference_benchmark.units import format_figure, format_half_width

#: What is shown instead of a figure, by outcome.
ENDINGS = {"oom": "oom", "unsupported": "n/a"}
#: What is shown instead of a % of limit of a cell that is faster than its limit.
LIMIT_UNKNOWN = "?"
#: Behind a figure whose samples do not repeat well, and behind one that was measured under noteworthy conditions.
UNSTABLE, FLAGGED = "†", "‡"

#: A row of the summary by its columns; what it lacks is None or what pandas has for it.
Row = Mapping[str, Any]
Rows = Sequence[Row]
#: A heading as lines of plain text.
Heading = tuple[str, ...]


class Column(NamedTuple):
    """Cells of one engine, environment and precision make a column, and where records are split, of one variant."""

    engine: str
    environment: str
    precision: str
    variant: str = ""


class Axis(NamedTuple):
    """A length or number that is chosen for a cell: what tables have a row for, and what charts are over.

    name: its column in the summary. few: whether it has so few values that a chart has a tick for each, rather than for
    powers of two.
    """

    name: str
    few: bool = False

    @property
    def title(self) -> str:
        return self.name.replace("_", " ")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name,)


BATCH_SIZE, PROMPT_TOKENS = Axis("batch_size"), Axis("prompt_tokens", few=True)


class TableView(NamedTuple):
    """A table as plain text. Whoever renders it does the escaping.

    cells: a row per batch size, or per value of another axis, which is first. foot: rows that hold for whole columns.
    """

    title: str
    explanation: str
    headings: list[Heading]
    cells: list[list[str]]
    foot: list[list[str]]


def rows_of(summary: pandas.DataFrame) -> list[Row]:
    """The rows of a summary. Whoever looks at single values takes these: a DataFrame is slow at that."""
    return summary.to_dict("records")


def columns(rows: Rows) -> dict[Column, Heading]:
    """The columns of a table in the summary's order, with headings; engine and environment are named where there are
    several."""
    keys = dict.fromkeys(column_of(row) for row in rows)
    engines, environments = _several(keys)
    headings = {}
    for row in rows:
        key = column_of(row)
        which = (key.environment if environments else "", key.engine if engines else "")
        parts = (*which, text_of(row, "options"), key.precision, _meaning(row), key.variant)
        headings.setdefault(key, tuple(filter(None, parts)))
    return headings


def column_names(rows: Rows) -> dict[Column, str]:
    """The same columns, each with a name in one line."""
    keys = dict.fromkeys(column_of(row) for row in rows)
    engines, environments = _several(keys)
    return {
        key: " ".join(
            filter(None, (environments and key.environment, engines and key.engine, key.precision, key.variant))
        )
        for key in keys
    }


def _several(keys: Iterable[Column]) -> tuple[bool, bool]:
    """Whether there are several engines, and several environments."""
    engines, environments = ({key[place] for key in keys} for place in (0, 1))
    return len(engines) > 1, len(environments) > 1


def column_of(row: Row) -> Column:
    return Column(row["engine"], text_of(row, "environment"), row["precision"], text_of(row, "variant"))


def text_of(row: Row, column: str) -> str:
    """A text of a row; "" where there is none."""
    return "" if pandas.isna(row[column]) else str(row[column])


def value_of(row: Row, figure: Figure) -> float | None:
    """A figure of a row of the summary, or of a baseline's figures; None where it has none."""
    value = row.get(figure.name)
    return None if value is None or pandas.isna(value) else value


def is_limit_unknown(row: Row, figure: Figure) -> bool:
    """Whether a % of limit is not known because the cell is faster than its floor; the floor itself is known."""
    has_floor = figure.qualifier is not None and not pandas.isna(row.get(figure.qualifier))
    return has_floor and value_of(row, figure) is None


def figures_text(row: Row, figure: Figure) -> str:
    """The figures in the table of a figure, side by side; blank where the row, or baseline, lacks the first."""
    texts = [_figure_text(row, each) for each in table_of(figure)]
    return " | ".join(filter(None, texts)) if texts[0] else ""


def _figure_text(row: Row, figure: Figure) -> str:
    if is_limit_unknown(row, figure):
        return LIMIT_UNKNOWN
    value = value_of(row, figure)
    if value is None:
        return ""
    return figure.text(value) + (f" {row[figure.qualifier][0]}" if figure.qualifier else "")


def estimate_of(row: Row, figure: Figure) -> Estimate | None:
    """A figure of a row with its interval, if that is known; None where the row does not have the figure."""
    value = value_of(row, figure)
    if value is None:
        return None
    ends = [row.get(column) for column in figure.columns[1:]]
    is_known = not any(end is None or pandas.isna(end) for end in ends)
    return Estimate(value, *ends) if is_known else Estimate(value)


def half_width(row: Row, figure: Figure) -> float | None:
    """Half of the 95 % interval of a figure, as a part of the figure; None where it is unknown."""
    estimate = estimate_of(row, figure)
    return estimate and estimate.half_width


def width_text(row: Row, figure: Figure) -> str:
    """`` ±1.2%`` to print behind a figure; `` ±?`` where its interval is unknown; blank for a figure without one,
    and for published figures, whose samples are not known, and where there is no value."""
    if value_of(row, figure) is None:
        return ""
    width = half_width(row, figure)
    if width is not None:
        return f" ±{format_half_width(width)}"
    return " ±?" if figure.interval and not pandas.isna(row["cycles"]) else ""


def agreement_text(row: Row) -> str:
    """How far the answers are those of hf in fp32; blank where they were not compared."""
    if pandas.isna(row["token_agreement"]):
        return ""
    error = row["logits_error_mean"]
    return f"{format_figure(row['token_agreement'], '.1%')} | " + ("n/a" if pandas.isna(error) else f"{error:.2g}")


def marks(row: Row, warnings: tuple[str, ...] = ("flags",)) -> str:
    """The marks behind a figure. warnings: the columns that name warnings about it."""
    flagged = any(text_of(row, column) for column in warnings)
    return UNSTABLE * bool(text_of(row, "unstable_because")) + FLAGGED * flagged


def warnings_of(row: Row) -> list[str]:
    """The names of all warnings about a cell."""
    texts = (text_of(row, name) for name in ("unstable_because", "flags"))
    return [warning for text in texts for warning in text.split(", ") if warning]


def _meaning(row: Row) -> str:
    """What a precision means in an engine, where its name does not say it all."""
    engine = text_of(row, "base_engine")
    return ENGINES[engine].precisions.get(row["precision"], "") if engine in ENGINES else ""
