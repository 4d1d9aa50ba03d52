"""What tables and charts are over: the batch size, or the prompt length of workloads that differ in nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from inference_benchmark.results.cell_result import CellResult, Results, columns_of
from inference_benchmark.results.column import Column, short_names

#: Batch sizes to choose among on a page: each is a view with a chart per figure, and all are in the page.
MOST_VIEWS = 5


class Axis(NamedTuple):
    """A length or number that is chosen for a cell: what tables have a row for, and what charts are over."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name,)

    def place(self, cell: CellResult) -> int:
        """The value of a cell."""
        return cell.batch_size if self == BATCH_SIZE else cell.column.prompt_tokens

    def column(self, cell: CellResult) -> Column:
        """What the cells of one line have in common: the column, without the value on this axis."""
        return cell.column if self == BATCH_SIZE else replace(cell.column, prompt_tokens=None)


BATCH_SIZE, PROMPT_TOKENS = Axis("batch_size"), Axis("prompt_tokens")


class Grid(NamedTuple):
    """The cells of the columns that tables and charts show. unsupported: those of the columns that are ``n/a``
    throughout, which a sentence names instead; none where that would leave no column."""

    cells: Results
    unsupported: Results

    @property
    def sentence(self) -> str:
        """What names them, with the library's own words; "" where every column is shown."""
        names = short_names(columns_of([*self.cells, *self.unsupported]))
        by_reason = grouped(self.unsupported, lambda cell: cell.reason)
        named = [f"{', '.join(dict.fromkeys(names[each.column] for each in of))} ({of[0].reason})" for of in by_reason]
        return f"Not supported: {'; '.join(named)}." if named else ""


class ModelResults(NamedTuple):
    """The cells of a model on a machine: those of each workload, and those of each number of new tokens that several
    prompt lengths were measured with."""

    workloads: Sequence[Grid]
    contexts: Sequence[Grid]


def models(results: Iterable[CellResult]) -> Iterator[ModelResults]:
    """The cells of each model in the order of the results, one machine after the other."""
    for cells in grouped(results, lambda cell: (cell.machine, cell.column.model)):
        by_new_tokens = grouped(cells, lambda cell: (cell.column.new_tokens, cell.column.prompts))
        contexts = [each for each in by_new_tokens if len({cell.column.prompt_tokens for cell in each}) > 1]
        workloads = grouped(cells, lambda cell: cell.column.grid)
        yield ModelResults([_grid(each) for each in workloads], [_grid(each, PROMPT_TOKENS) for each in contexts])


def _grid(cells: Results, axis: Axis = BATCH_SIZE) -> Grid:
    shown = {axis.column(cell) for cell in cells if cell.outcome != "unsupported"} or set(map(axis.column, cells))
    kept = [cell for cell in cells if axis.column(cell) in shown]
    return Grid(kept, [cell for cell in cells if axis.column(cell) not in shown])


def grouped(items: Iterable[Any], key: Callable[[Any], Hashable]) -> list[list[Any]]:
    """The items with the same key together, in the order in which the keys come first."""
    groups: dict[Hashable, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def batch_sizes(cells: Results) -> list[int]:
    """The batch sizes that charts over the prompt length are drawn at: those at which some column was measured at two
    prompt lengths or more. Of more than MOST_VIEWS as many, evenly spaced, and the default."""
    sizes = sorted(size for size, n in _lengths_measured(cells).items() if n > 1)
    if len(sizes) <= MOST_VIEWS:
        return sizes
    evenly = {sizes[round(n * (len(sizes) - 1) / (MOST_VIEWS - 1))] for n in range(MOST_VIEWS)}
    return sorted(evenly | {default_batch_size(cells)})


def default_batch_size(cells: Results) -> int | None:
    """The largest batch size at which some column was measured at every prompt length; if there is none, at as many as
    possible. None where nothing was measured."""
    lengths = _lengths_measured(cells)
    return max(lengths, key=lambda size: (lengths[size], size), default=None)


def _lengths_measured(cells: Results) -> dict[int, int]:
    """For each batch size the most prompt lengths that a column was measured at."""
    measured = {(cell.batch_size, cell.column) for cell in cells if cell.is_measured}
    lengths = Counter((size, replace(column, prompt_tokens=None)) for size, column in measured)
    return dict(sorted((size, n) for (size, _), n in lengths.items()))  # the most comes last
