"""A comparison as a person reads it: the same lines and tables for Markdown and for the HTML page."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from inference_benchmark import markdown
from inference_benchmark.analysis.figures import BY_NAME
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.compare import verdicts
from inference_benchmark.compare.comparing import matching_keys
from inference_benchmark.compare.comparison import SPEED, ComparedCell, ComparedColumn, Comparison
from inference_benchmark.results.cell_result import Results
from inference_benchmark.units import format_figure

#: The sign behind a ratio, for its verdict.
SIGNS = {
    verdicts.FASTER: "▲", verdicts.SLOWER: "▼", verdicts.PERHAPS_FASTER: "△", verdicts.PERHAPS_SLOWER: "▽",
    verdicts.SAME: "≈", verdicts.UNKNOWN: "",
}  # fmt: skip
#: Why a test on the calls of one process is no verdict.
ONE_PROCESS = (
    "perhaps: one side was measured in a single process. Neither the test nor the interval can see how much processes "
    "differ; measure with rounds: 3 or more to know."
)


class Part(NamedTuple):
    """A heading with lines of text and, if there is anything for it, a table."""

    title: str
    lines: Sequence[str]
    headings: Sequence[str] = ()
    cells: Sequence[Sequence[str]] = ()


def title(comparison: Comparison) -> str:
    return f"{comparison.new} against {comparison.base}: {_figure_name(comparison)}"


def summary_line(comparison: Comparison) -> str:
    """How many cells are faster, slower, the same; in one line."""
    if not comparison.cells:
        return f"{comparison.new} and {comparison.base} have no cell in common: {_why_disjoint(comparison)}."
    counts = Counter(cell.verdict for cell in comparison.cells)
    counted = ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    return f"{len(comparison.cells)} cells in common: {counted}."


def why_not_judged(comparison: Comparison) -> str:
    """Why none of its cells was tested with several processes on both sides."""
    if comparison.single_process:
        return ONE_PROCESS
    if all(cell.ratio is None for cell in comparison.cells):
        return f"No cell has a figure on both sides: {_figure_name(comparison)}."
    return "One side has no samples, or too few."


def parts(comparison: Comparison) -> Iterator[Part]:
    """All parts of its text; first the facts that differ between the two."""
    base, new = comparison.base, comparison.new
    yield Part("Summary", [summary_line(comparison), *cautions(comparison)])
    if comparison.differences:
        rows = [[each.fact, _values(each.base), _values(each.new)] for each in comparison.differences]
        yield Part("What differs between the two", [], ["fact", base, new], rows)
    elif comparison.cells and not comparison.notes:
        yield Part("What differs between the two", ["No fact that the records know."])
    if comparison.columns:
        ratio = "ratio: geometric mean over batch sizes, above 1 if the new one is faster."
        largest = "largest batch: the largest of the compared batch sizes that fits."
        headings = ["column", "cells", "ratio", f"largest batch {base}", f"largest batch {new}"]
        yield Part("Columns", [f"{ratio} {largest}"], headings, [_column_row(each) for each in comparison.columns])
    if comparison.cells:
        lines = [f"{_figure_name(comparison)}; ratio: above 1 if the new one is faster."]
        headings = ["cell", "verdict", "ratio", "95 % interval", base, new]
        yield Part("Cells", lines, headings, [_cell_row(comparison, cell) for cell in comparison.cells])
    for name, cells in ((base, comparison.only_base), (new, comparison.only_new)):
        if cells:
            yield Part(f"Only in {name}", [_listed(cells)])


def cautions(comparison: Comparison) -> Iterator[str]:
    """What limits the verdicts."""
    yield from comparison.notes
    if comparison.cells and all(cell.p_value is None for cell in comparison.cells):
        yield "Significance is unknown: one side has no samples, or too few to know its noise."
    elif any(cell.verdict == verdicts.UNKNOWN for cell in comparison.cells):
        yield "unknown: one side has no samples of the cell, or too few."
    if any(cell.verdict == verdicts.ABOVE_LIMIT for cell in comparison.cells):
        yield "above limit: one side is faster than its machine can be, so that nothing can be said of the cell."
    if any(cell.p_value is not None for cell in comparison.cells):
        test = "a paired t test on the rounds" if comparison.paired else "Welch's test on the raw samples"
        yield (
            f"faster, slower: by {test}, with 95 % certainty for all cells together (Holm). "
            "same: no difference is significant; the interval says how large one could still be."
        )
    if comparison.single_process:
        yield ONE_PROCESS
    if any(each.fact.startswith(SPEED) for each in comparison.differences):
        yield "The machine itself was not as fast in both, by its yardstick: ratios are also those of the machine."


def ratio_text(cell: ComparedCell) -> str:
    """For a cell of a table: ``2.31x ▲``, or how the two ended."""
    if cell.ratio is None:
        return {
            verdicts.FITS_NOW: "fits, was oom",
            verdicts.FITS_NO_LONGER: "oom, did fit",
            verdicts.NEITHER_FITS: "both oom",
            verdicts.ABOVE_LIMIT: verdicts.ABOVE_LIMIT,
        }.get(cell.verdict, "")
    return f"{format_figure(cell.ratio.value, '.2f')}x {SIGNS[cell.verdict]}".rstrip()


def ratio_and_interval(ratio: Estimate) -> str:
    """``0.985 (0.960 to 1.010)``"""
    interval = _interval_text(ratio)
    return format_figure(ratio.value, ".3f") + (f" ({interval})" if interval else "")


def to_markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown document."""
    text = f"# {markdown.escape(title(comparison))}\n"
    for part in parts(comparison):
        text += f"\n## {markdown.escape(part.title)}\n"
        text += "".join(f"\n{markdown.escape(line)}\n" for line in part.lines)
        if part.cells:
            text += "\n" + markdown.table(part.headings, part.cells)
    return text


def _column_row(column: ComparedColumn) -> list[str]:
    ratio = "" if column.geometric_mean is None else format_figure(column.geometric_mean, ".3f")
    edges = ("none" if n is None else str(n) for n in (column.base_largest, column.new_largest))
    return [column.label, str(column.cells), ratio, *edges]


def _cell_row(comparison: Comparison, cell: ComparedCell) -> list[str]:
    figure = BY_NAME[comparison.figure]
    figures = [figure.text(side.value(figure.name)) or side.outcome for side in (cell.base, cell.new)]
    ratio, interval = (format_figure(cell.ratio.value, ".3f"), _interval_text(cell.ratio)) if cell.ratio else ("", "")
    return [cell.new.label, f"{cell.verdict} {SIGNS.get(cell.verdict, '')}".rstrip(), ratio, interval, *figures]


def _interval_text(ratio: Estimate) -> str:
    """``0.960 to 1.010``; blank where it is unknown."""
    return "" if ratio.low is None else " to ".join(format_figure(end, ".3f") for end in ratio[1:])


def _why_disjoint(comparison: Comparison) -> str:
    """The keys in which no cell of one side agrees with any of the other, with their values."""
    keys = matching_keys(comparison.only_base)
    sides = {comparison.base: comparison.only_base, f"{comparison.new} (new)": comparison.only_new}
    reasons = []
    for key in keys:
        values = {name: dict.fromkeys(cell.key.get(key) for cell in cells) for name, cells in sides.items()}
        if not set.intersection(*map(set, values.values())):
            listed = (f"{_some(list(each))} in {name}" for name, each in values.items())
            reasons.append(f"{key} is {' and '.join(listed)}")
    return "; ".join(reasons) or f"no combination of {', '.join(keys)} is in both"


def _some(values: Sequence[Any], most: int = 5) -> str:
    """The values, the first of them if there are many."""
    texts = ["not given" if value is None else str(value) for value in values[:most]]
    return ", ".join(texts) + (f" and {len(values) - most} more" if len(values) > most else "")


def _figure_name(comparison: Comparison) -> str:
    figure = BY_NAME[comparison.figure]
    return f"{figure.title.lower()} ({figure.unit})"


def _values(values: Sequence[Any]) -> str:
    return "; ".join("none" if value is None else str(value) for value in values)


def _listed(cells: Results) -> str:
    """Cells by column, so that a grid of thousands stays a few lines."""
    columns: dict[str, list[str]] = {}
    for cell in cells:
        columns.setdefault(cell.column_label, []).append(str(cell.batch_size))
    return "; ".join(f"{name} batch {', '.join(dict.fromkeys(sizes))}" for name, sizes in columns.items()) + "."
