"""The gain of each variant over its engine, and of each environment over the current one: ratios of throughput."""

from collections.abc import Mapping
from dataclasses import replace

from inference_benchmark.analysis.figures import BY_NAME, Figure
from inference_benchmark.analysis.statistics import ratio
from inference_benchmark.render.texts import TableView, agreement_text
from inference_benchmark.results.cell_result import CellResult, Results, columns_of
from inference_benchmark.results.column import CURRENT, Column, headings


def variant_table(cells: Results) -> TableView | None:
    """The ratios of the variants among cells of one model and workload; None where none is beside its engine."""
    variants = (column for column in columns_of(cells) if column.options)
    bases = {column: replace(column, engine=column.base_engine, options=()) for column in variants}
    return _ratios("Variants against their engine", BY_NAME["engine_ratio"], cells, bases)


def environment_table(cells: Results) -> TableView | None:
    """The same of environments and the current one."""
    others = (column for column in columns_of(cells) if column.environment != CURRENT)
    bases = {column: replace(column, environment=CURRENT) for column in others}
    return _ratios("Environments against the current one", BY_NAME["environment_ratio"], cells, bases)


def _ratios(title: str, figure: Figure, cells: Results, bases: Mapping[Column, Column]) -> TableView | None:
    """A table of ratios of columns and their bases, those of them that there are; None where there are none."""
    columns = columns_of(cells)
    bases = {column: base for column, base in bases.items() if base in columns}
    if not bases:
        return None
    measured = {(cell.column, cell.batch_size): cell for cell in cells if cell.is_measured}
    texts = {
        (column, size): _ratio_text(figure, cell, measured[bases[column], size])
        for (column, size), cell in measured.items()
        if (bases.get(column), size) in measured
    }
    sizes = sorted({cell.batch_size for cell in cells})
    first, heads = {cell.column: cell for cell in reversed(cells)}, headings(columns)
    names = {column: base.engine if column.engine != base.engine else CURRENT for column, base in bases.items()}
    agreement = [agreement_text(first[column]) for column in bases]
    return TableView(
        f"{title} (times its throughput)",
        "above 1 is faster; in parentheses the 95 % interval, by the ratios of the rounds where there are several: no "
        "difference is shown where it includes 1.",
        [("batch_size",), *((*heads[column], f"against {name}") for column, name in names.items())],
        [[str(size), *(texts.get((column, size), "") for column in bases)] for size in sizes],
        [["same tokens | logits error", *agreement]] if any(agreement) else [],
    )


def _ratio_text(figure: Figure, new: CellResult, base: CellResult) -> str:
    """``1.12 (1.08 to 1.16)``"""
    of_rounds = new.figures.get(figure.name)  # unless there is a single round
    return figure.text_of(of_rounds or ratio(*(cell.figures["throughput_tok_per_s"] for cell in (new, base))))
