"""Context length as an axis: the workloads of a model that differ only in the length of their prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas

from inference_benchmark.render.columns import Rows, column_of, rows_of

#: Batch sizes to choose among on a page: each is a view with a chart per figure, and all are in the page.
MOST_VIEWS = 5


class ModelRows(NamedTuple):
    """The rows of a model on a machine: those of each workload, and those of each number of new tokens that several
    prompt lengths were measured with."""

    workloads: Sequence[Rows]
    contexts: Sequence[Rows]


def models(summary: pandas.DataFrame) -> Iterator[ModelRows]:
    """The rows of each model in the summary's order, one machine after the other."""
    for _, rows in summary.groupby(["machine", "model"], sort=False):
        yield ModelRows(
            [rows_of(each) for _, each in rows.groupby("workload", sort=False)],
            [
                rows_of(each)
                for _, each in rows.groupby("new_tokens", sort=False)
                if each["prompt_tokens"].nunique() > 1
            ],
        )


def batch_sizes(rows: Rows) -> list[int]:
    """The batch sizes that charts over the prompt length are drawn at: those with a line, which is where some column
    was measured at two prompt lengths or more. Of more than MOST_VIEWS, as many evenly among them, and the default."""
    sizes = sorted(size for size, n in _lengths_measured(rows).items() if n > 1)
    if len(sizes) <= MOST_VIEWS:
        return sizes
    evenly = {sizes[round(n * (len(sizes) - 1) / (MOST_VIEWS - 1))] for n in range(MOST_VIEWS)}
    return sorted(evenly | {default_batch_size(rows)})


def default_batch_size(rows: Rows) -> int | None:
    """The largest batch size at which some column was measured at every prompt length; if there is none, at as many as
    possible. None where nothing was measured."""
    lengths = _lengths_measured(rows)
    return max(lengths, key=lambda size: (lengths[size], size), default=None)


def _lengths_measured(rows: Rows) -> dict[int, int]:
    """For each batch size the most prompt lengths that a column was measured at."""
    lengths: dict[tuple, set[int]] = {}
    for row in rows:
        if row["outcome"] == "ok":
            lengths.setdefault((row["batch_size"], column_of(row)), set()).add(row["prompt_tokens"])
    most: dict[int, int] = {}
    for (size, _), found in lengths.items():
        most[size] = max(most.get(size, 0), len(found))
    return most
