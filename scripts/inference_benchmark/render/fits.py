"""Which batch sizes fit at which prompt length, by the records of cells and by the searches for the largest batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas

from inference_benchmark.analysis.max_batch import BatchLimit
from inference_benchmark.render.columns import ENDINGS, Row, Rows, column_names, column_of
from inference_benchmark.render.drawing import LANE_SIGNS

#: What may be known of a batch size and a prompt length, each with its sign.
SIGNS = {"fits": "✓", **{ending: sign for ending, (sign, _) in LANE_SIGNS.items()}, "untried": "?"}


class Fit(NamedTuple):
    """state: one of SIGNS. searched: whether no record of the cell shows it, but the search of its column."""

    state: str
    searched: bool = False

    @property
    def text(self) -> str:
        return f"{SIGNS[self.state]} {self.state}" + (" (searched)" if self.searched else "")


class FitMap(NamedTuple):
    """What fits of one column of the tables.

    prompt_tokens: in order. fits: for each batch size a Fit per prompt length. largest: for each prompt length the
    largest batch size that fits, as text.
    """

    name: str
    prompt_tokens: Sequence[int]
    fits: Sequence[tuple[int, Sequence[Fit]]]
    largest: Sequence[str]


def fit_maps(rows: Rows) -> list[FitMap]:
    """A map for each column among the rows of one model and number of new tokens."""
    lengths, sizes = (sorted({row[name] for row in rows}) for name in ("prompt_tokens", "batch_size"))
    maps = []
    for column, name in column_names(rows).items():
        by_length = {length: [] for length in lengths}
        for row in rows:
            if column_of(row) == column:
                by_length[row["prompt_tokens"]].append(row)
        fits = [(size, [_fit(by_length[length], size) for length in lengths]) for size in sizes]
        maps.append(FitMap(name, lengths, fits, [largest_batch_text(by_length[length]) for length in lengths]))
    return maps


def largest_batch_text(cells: Rows) -> str:
    """The largest batch size that fits of the cells of one column and workload; blank where nothing is known."""
    measured = [row["batch_size"] for row in cells if row["outcome"] == "ok"]
    ooms = [row["batch_size"] for row in cells if row["outcome"] == "oom"]
    limit = _searched(cells)
    if limit is not None:
        return f"{limit.fits:,} (searched)"
    if not measured:
        return "none" if ooms else ""
    return f"{max(measured):,}" if any(size > max(measured) for size in ooms) else f"{max(measured):,} or more"


def _fit(cells: Rows, batch_size: int) -> Fit:
    """What is known of a batch size, given the cells of its column and workload. A record says more than a search."""
    outcome = next((row["outcome"] for row in cells if row["batch_size"] == batch_size), None)
    if outcome == "ok":
        return Fit("fits")
    if outcome in ENDINGS:
        return Fit(ENDINGS[outcome])
    limit = _searched(cells)
    if limit is not None and batch_size <= limit.fits:
        return Fit("fits", searched=True)
    if limit is not None and limit.fails is not None and batch_size >= limit.fails:
        return Fit("oom", searched=True)
    return Fit("untried")


def _searched(cells: Rows) -> BatchLimit | None:
    """What the search of a column showed; a row without a record does not have it, the others do."""
    row: Row | None = next((row for row in cells if not pandas.isna(row["max_batch_fits"])), None)
    if row is None:
        return None
    fails = row["max_batch_fails"]
    return BatchLimit(int(row["max_batch_fits"]), None if pandas.isna(fails) else int(fails))
