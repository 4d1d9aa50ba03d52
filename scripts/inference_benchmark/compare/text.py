"""A comparison as a person reads it: the same lines and tables for Markdown and for a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from inference_benchmark import markdown
from inference_benchmark.compare import comparison
from inference_benchmark.compare.comparison import ComparedCell, ComparedColumn, Comparison
from inference_benchmark.experiment.cells import workload_name

#: Stands behind a ratio for its verdict.
SIGNS = {
    comparison.FASTER: "▲",
    comparison.SLOWER: "▼",
    comparison.PERHAPS_FASTER: "△",
    comparison.PERHAPS_SLOWER: "▽",
    comparison.SAME: "≈",
    comparison.UNKNOWN: "",
}
UNITS = {"throughput_tok_per_s": "tokens/sec", "first_token_s": "time to first token (msec)"}

#: What keeps a test on calls of one process from being a verdict.
ONE_PROCESS = (
    "perhaps: a side was measured in one process, which cannot see what differs from process to process, and neither "
    "can the interval; measure with processes: 3 or more to know."
)


class Part(NamedTuple):
    """A heading with lines of text and, if there is anything for it, a table."""

    title: str
    lines: Sequence[str]
    headings: Sequence[str] = ()
    cells: Sequence[Sequence[str]] = ()


def title(found: Comparison) -> str:
    return f"{found.new} against {found.base}: {UNITS[found.figure]}"


def summary_line(found: Comparison) -> str:
    """How many cells are faster, slower, the same; in one line."""
    if not found.cells:
        return f"{found.new} and {found.base} have no cell in common."
    counts = Counter(cell.verdict for cell in found.cells)
    return f"{len(found.cells)} cells in common: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())


def parts(found: Comparison) -> Iterator[Part]:
    """All there is to say, what differs between the two sides first."""
    yield Part("In short", [summary_line(found) + ("" if not found.cells else "."), *cautions(found)])
    if found.differences:
        rows = [[each.fact, _values(each.base), _values(each.new)] for each in found.differences]
        yield Part("What differs between the two", [], ["fact", found.base, found.new], rows)
    elif found.cells and not found.notes:
        yield Part("What differs between the two", ["Nothing that the records know of."])
    if found.columns:
        yield Part(
            "Columns",
            [
                "ratio: geometric mean over batch sizes, above 1 where the new side is faster; "
                "largest batch: of those compared, the largest that fits."
            ],
            ["column", "cells", "ratio", f"largest batch {found.base}", f"largest batch {found.new}"],
            [_column_row(each) for each in found.columns],
        )
    if found.cells:
        yield Part(
            "Cells",
            [f"{found.base} and {found.new}: {UNITS[found.figure]}. ratio: above 1 where the new side is faster."],
            ["cell", found.base, found.new, "ratio", "95 % interval", "verdict"],
            [_cell_row(found, cell) for cell in found.cells],
        )
    for name, cells in ((found.base, found.only_base), (found.new, found.only_new)):
        if cells:
            yield Part(f"Only in {name}", [_listed(cells)])


def cautions(found: Comparison) -> Iterator[str]:
    """What keeps the verdicts from being the whole truth."""
    yield from found.notes
    if found.cells and all(cell.p_value is None for cell in found.cells):
        yield "Significance is unknown: one side has no samples, or too few, so that nothing is known of its noise."
    elif any(cell.verdict == comparison.UNKNOWN for cell in found.cells):
        yield "unknown: one side has no samples of the cell, or too few."
    if any(cell.p_value is not None for cell in found.cells):
        yield (
            "faster and slower: by Welch's test on the raw samples, with 95 % certainty for all cells together (Holm). "
            "same: no difference is shown; the interval says how large one could still be."
        )
    if found.single_process:
        yield ONE_PROCESS


def ratio_text(cell: ComparedCell) -> str:
    """For a cell of a table: ``2.31x ▲``, or how the two ended."""
    if cell.ratio is None:
        return {
            comparison.FITS_NOW: "fits, was oom",
            comparison.FITS_NO_LONGER: "oom, did fit",
            comparison.NEITHER_FITS: "both oom",
        }.get(cell.verdict, "")
    return f"{cell.ratio:.2f}x {SIGNS[cell.verdict]}".rstrip()


def column_name(where: Mapping[str, Any]) -> str:
    """``bloom-1b3 prompt9-new100 hf bf16``"""
    return f"{where['model']} {workload_name(where)} {where['engine']} {where['precision']}"


def cell_name(cell: ComparedCell) -> str:
    """``bloom-1b3 prompt9-new100 hf bf16 batch 8``"""
    return f"{column_name(cell.where)} batch {cell.where['batch_size']}"


def to_markdown(found: Comparison) -> str:
    """The comparison as a Markdown document."""
    text = f"# {title(found)}\n"
    for part in parts(found):
        text += f"\n## {part.title}\n"
        text += "".join(f"\n{line}\n" for line in part.lines)
        if part.cells:
            text += "\n" + markdown.table(
                part.headings, [[cell.replace("|", "\\|") for cell in row] for row in part.cells]
            )
    return text


def _column_row(column: ComparedColumn) -> list[str]:
    ratio = "" if column.geometric_mean is None else f"{column.geometric_mean:.3f}"
    edges = ("none" if n is None else str(n) for n in (column.base_largest, column.new_largest))
    return [column_name(column.where), str(column.cells), ratio, *edges]


def _cell_row(found: Comparison, cell: ComparedCell) -> list[str]:
    figures = [
        _figure(figures[found.figure], found.figure) if found.figure in figures else outcome
        for figures, outcome in ((cell.base, cell.base_outcome), (cell.new, cell.new_outcome))
    ]
    ratio = "" if cell.ratio is None else f"{cell.ratio:.3f}"
    interval = "" if cell.low is None else f"{cell.low:.3f} to {cell.high:.3f}"
    return [cell_name(cell), *figures, ratio, interval, f"{cell.verdict} {SIGNS.get(cell.verdict, '')}".rstrip()]


def _figure(value: float, figure: str) -> str:
    return f"{value:.2f}" if figure.endswith("tok_per_s") else f"{value * 1000:.1f}"


def _values(values: Sequence[Any]) -> str:
    return "; ".join("none" if value is None else str(value) for value in values)


def _listed(cells: Sequence[Mapping[str, Any]]) -> str:
    """Cells by column, so that a grid of thousands stays a few lines."""
    columns: dict[str, list[str]] = {}
    for where in cells:
        told = {key: where[key] for key in ("model", "engine", "precision") if key in where}
        if {"prompt_tokens", "new_tokens"} <= where.keys():
            told["model"] = f"{told.get('model', '')} {workload_name(where)}".lstrip()
        columns.setdefault(" ".join(told.values()), []).append(str(where["batch_size"]))
    return "; ".join(f"{name} batch {', '.join(dict.fromkeys(sizes))}" for name, sizes in columns.items()) + "."
