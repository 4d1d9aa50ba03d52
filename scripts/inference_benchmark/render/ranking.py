"""The columns of a machine by their best throughput, as text for a terminal."""

from collections.abc import Iterator, Sequence

from inference_benchmark.analysis import statistics
from inference_benchmark.analysis.figures import BY_NAME
from inference_benchmark.compare.text import ratio_and_interval
from inference_benchmark.render.context import grouped
from inference_benchmark.render.texts import marks, width_text
from inference_benchmark.results.cell_result import CellResult, Results, columns_of
from inference_benchmark.results.choice import headline

_THROUGHPUT = BY_NAME["throughput_tok_per_s"]
_OTHERS = {
    "msec/token of a row": BY_NAME["time_per_output_token_s"],
    "memory (GB)": BY_NAME["peak_memory_bytes"],
    "same tokens as hf fp32": BY_NAME["token_agreement"],
}
#: How many columns are shown.
_SHOWN = 10


def ranked(cells: Results, target: float) -> list[str]:
    """For each model and workload, because others have other work: the cell with the best throughput of each column, a
    line each under a heading, the fastest first, of no more than a few; then how many times as fast the first is as
    others. target: as of choice.headline."""
    return [line for of_grid in grouped(cells, lambda cell: cell.column.grid) for line in _ranked(of_grid, target)]


def _ranked(cells: Results, target: float) -> list[str]:
    columns = ([cell for cell in cells if cell.column == column] for column in columns_of(cells))
    best = [cell for of_column in columns if (cell := headline(of_column, _THROUGHPUT, target))]
    best.sort(key=lambda cell: -cell.value(_THROUGHPUT.name))
    if not best:
        return []
    shown = best[:_SHOWN]
    rows = [["", "tok/s", *_OTHERS], *map(_row, shown)]
    lines = list(_aligned([column for column in zip(*rows, strict=True) if any(column[1:])]))
    more = [f"and {len(best) - len(shown)} more"] if len(best) > len(shown) else []
    return [*lines, *more, *([_how_much_faster(best[0], best[1:])] if len(best) > 1 else [])]


def _row(cell: CellResult) -> list[str]:
    speed = f"{_THROUGHPUT.text(cell.value(_THROUGHPUT.name))}{width_text(cell, _THROUGHPUT)}{marks(cell, _THROUGHPUT)}"
    return [cell.label, speed, *(figure.text(cell.value(figure.name)) for figure in _OTHERS.values())]


def _aligned(columns: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows of a table, the first column to the left."""
    widths = [max(map(len, column)) for column in columns]
    for name, *texts in zip(*columns, strict=True):
        padded = [name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(texts, widths[1:], strict=True))]
        yield "  ".join(padded).rstrip()


def _how_much_faster(first: CellResult, others: Results) -> str:
    """``a is 1.20 (1.10 to 1.31) times as fast as b, and 3.00 (2.80 to 3.20) times as fast as c.``"""
    parts = []
    for other in (others[0], *others[1:][-1:]):
        ratio = statistics.ratio(*(each.figures[_THROUGHPUT.name] for each in (first, other)))
        unsure = ratio.low is None or ratio.low <= 1
        parts.append(f"{ratio_and_interval(ratio)} times as fast as {other.label}{', which may be as fast' * unsure}")
    return f"{first.label} is {', and '.join(parts)}."
