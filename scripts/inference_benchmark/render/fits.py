"""Which batch sizes fit at which prompt length, by the records of cells and by the searches for the largest batch."""

from collections.abc import Sequence
from typing import NamedTuple

from inference_benchmark.analysis.max_batch import BatchLimit
from inference_benchmark.render.context import PROMPT_TOKENS
from inference_benchmark.render.drawing import LANE_SIGNS
from inference_benchmark.results.cell_result import Results
from inference_benchmark.results.column import short_names

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
    """What fits of one column of the tables. prompt_tokens: in order. fits: for each batch size a Fit per prompt
    length. largest: for each prompt length the largest batch size that fits, as text."""

    name: str
    prompt_tokens: Sequence[int]
    fits: Sequence[tuple[int, Sequence[Fit]]]
    largest: Sequence[str]


def fit_maps(cells: Results) -> list[FitMap]:
    """A map for each column among the cells of one model and number of new tokens."""
    lengths, sizes = sorted({cell.column.prompt_tokens for cell in cells}), sorted({cell.batch_size for cell in cells})
    maps = []
    for column, name in short_names(map(PROMPT_TOKENS.column, cells)).items():
        of_column = [cell for cell in cells if PROMPT_TOKENS.column(cell) == column]
        by_length = [[cell for cell in of_column if cell.column.prompt_tokens == length] for length in lengths]
        fits = [(size, [_fit(here, size) for here in by_length]) for size in sizes]
        maps.append(FitMap(name, lengths, fits, list(map(largest_batch_text, by_length))))
    return maps


def largest_batch_text(cells: Results) -> str:
    """The largest batch size that fits of the cells of one column; blank where nothing is known."""
    measured, ooms = ([cell.batch_size for cell in cells if cell.outcome == outcome] for outcome in ("ok", "oom"))
    if limit := _searched(cells):
        return f"{limit.fits:,} (searched)"
    if not measured:
        return "none" if ooms else ""
    return f"{max(measured):,}" + ("" if max(ooms, default=0) > max(measured) else " or more")


def _fit(cells: Results, batch_size: int) -> Fit:
    """What is known of a batch size, given the cells of its column. A record says more than a search."""
    cell = next((cell for cell in cells if cell.batch_size == batch_size), None)
    if cell and (cell.is_measured or cell.ending):
        return Fit(cell.ending or "fits")
    limit = _searched(cells)
    if limit and batch_size <= limit.fits:
        return Fit("fits", searched=True)
    if limit and limit.fails is not None and batch_size >= limit.fails:
        return Fit("oom", searched=True)
    return Fit("untried")


def _searched(cells: Results) -> BatchLimit | None:
    """What the search of a column showed; a cell without a record does not have it, the others do."""
    cell = next((cell for cell in cells if "max_batch_fits" in cell.figures), None)
    return cell and BatchLimit(cell.value("max_batch_fits"), cell.value("max_batch_fails"))
