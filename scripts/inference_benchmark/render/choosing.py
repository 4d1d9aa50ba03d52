"""The best cells of one model and workload under limits, as text. report/choose.js writes the same on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from inference_benchmark import markdown
from inference_benchmark.analysis import choice
from inference_benchmark.analysis.choice import Candidate, Limit
from inference_benchmark.analysis.figures import BY_NAME, FIGURES, Figure
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.records.summary import ABOVE_LIMIT
from inference_benchmark.render.columns import Row, Rows, column_names, column_of, estimate_of, value_of, warnings_of
from inference_benchmark.units import format_number

#: What a choice can be for, by the name on a command line: figures in a unit of their own.
GOALS: Mapping[str, Figure] = {
    figure.key: figure for figure in FIGURES if (figure.has_chart or figure.best) and not figure.is_share
}
#: What the first column means.
NOTE = (
    "best: the best mean of the goal among the cells whose 95 % intervals are within all limits. "
    "as good: its interval overlaps that of the best, so that the two cannot be told apart. "
    "perhaps: it may be as good, or better, but only its mean is within every limit, not its interval. "
    "Peak memory has no interval: it is the most that was taken. "
    "Price and CO2 are of the throughput and the energy of the cell, at work all the time."
)


@dataclass(frozen=True)
class LimitOption:
    """A limit that a user can give, in the unit of its label. factor: what turns it into the unit of the column."""

    flag: str
    label: str
    figure: Figure
    factor: float

    def limit(self, most: float) -> Limit:
        return Limit(self.figure, most * self.factor)


LIMITS = (
    LimitOption("--max-ms-per-token", "ms per output token", BY_NAME["time_per_output_token_s"], 1e-3),
    LimitOption("--max-first-token-s", "s to the first token", BY_NAME["first_token_s"], 1),
    LimitOption("--max-memory-gb", "GB of memory", BY_NAME["peak_memory_bytes"], 1e9),
)


class Wanted(NamedTuple):
    """What a user wants. limits: the most of each option. price_per_hour: in any currency; None: nobody asks for it."""

    goal: Figure
    limits: Mapping[LimitOption, float] = {}
    price_per_hour: float | None = None
    grams_co2_per_kwh: float | None = None


class Answer(NamedTuple):
    """Lines of text and a table, as plain text."""

    lines: list[str]
    headings: list[str]
    cells: list[list[str]]


def answer(rows: Rows, wanted: Wanted) -> Answer:
    """The best cells of one model and workload on one machine."""
    names = column_names(rows)
    measured = [row for row in rows if row["outcome"] == "ok"]
    plausible = [row for row in measured if ABOVE_LIMIT not in warnings_of(row)]
    cells = [_candidate(row, f"{names[column_of(row)]}, batch {row['batch_size']}") for row in plausible]
    limits = {option.limit(most): (option, most) for option, most in wanted.limits.items()}
    chosen = choice.choose(cells, wanted.goal, list(limits))
    lines = []
    without = sum(wanted.goal.name not in cell.figures for cell in cells)
    if not chosen.best and without < len(cells):
        lines.append(f"No cell meets the limits{' for certain' if chosen.perhaps else ''}.")
    if chosen.nearest:
        cell, limit = chosen.nearest
        option, most = limits[limit]
        value = cell.figures[limit.figure.name].value / option.factor
        lines.append(f"Nearest: {cell.name}, {_number(value)} {option.label}, {_number(value / most)} times the limit.")
    for limit, verdicts in chosen.verdicts:
        unknown = verdicts.count("unknown")
        if excluded := verdicts.count("exceeds") + unknown:
            option, most = limits[limit]
            text = f"At most {_number(most)} {option.label}: excludes {excluded} of {len(verdicts)} cells"
            lines.append(text + (f", {unknown} of them because the figure is unknown." if unknown else "."))
    if without:
        lines.append(f"Cells without the figure of the goal: {without}.")
    if above := len(measured) - len(plausible):
        lines.append(f"Cells left out because they are faster than their machine can be ({ABOVE_LIMIT}): {above}.")
    shown = dict.fromkeys((wanted.goal, BY_NAME["throughput_tok_per_s"], *(option.figure for option in LIMITS)))
    headings = ["choice", "cell", *(f"{figure.title} ({figure.unit})" for figure in shown)]
    headings += ["price per million tokens"] * (wanted.price_per_hour is not None)
    headings += ["g CO2 per million tokens"] * (wanted.grams_co2_per_kwh is not None)
    ranked = [("as good" if n else "best", cell) for n, cell in enumerate(chosen.best)]
    ranked += [("perhaps", cell) for cell in chosen.perhaps]
    table = [[rank, cell.name, *_texts(cell, shown, wanted), ", ".join(cell.warnings)] for rank, cell in ranked]
    return Answer(lines, [*headings, "warnings"], table)


def to_markdown(rows: Rows, wanted: Wanted) -> str:
    """The answer as a part of a Markdown document."""
    lines, headings, cells = answer(rows, wanted)
    goal = f"Goal: {wanted.goal.title.lower()} ({wanted.goal.unit}), {wanted.goal.better} is better."
    limits = [f"at most {_number(most)} {option.label}" for option, most in wanted.limits.items()]
    paragraphs = [f"{goal} Limits: {'; '.join(limits) or 'none'}.", *lines]
    title = f"{rows[0]['model']} {rows[0]['workload']} on {rows[0]['machine']}"
    text = f"## {markdown.escape(title)}\n"
    text += "".join(f"\n{markdown.escape(line)}\n" for line in paragraphs)
    return text + (f"\n{markdown.table(headings, cells)}" if cells else "")


def goals(rows: Rows) -> list[Figure]:
    """The goals that a cell of these has a figure of."""
    measured = [row for row in rows if row["outcome"] == "ok"]
    return [goal for goal in GOALS.values() if any(value_of(row, goal) is not None for row in measured)]


def page_data() -> dict[str, Any]:
    """What the page has to know besides its points. factor: what turns a limit into the unit of the points."""
    return {
        "goals": [_described(goal) for goal in GOALS.values()],
        "limits": [
            {
                "label": each.label,
                "factor": round(each.factor * each.figure.scale, 9),
                "figure": _described(each.figure),
            }
            for each in LIMITS
        ],
        "throughput": _described(BY_NAME["throughput_tok_per_s"]),
        "energy": _described(BY_NAME["energy_per_token_j"]),
        "above_limit": ABOVE_LIMIT,
    }


def _described(figure: Figure) -> dict[str, Any]:
    ends = {"low": figure.low, "high": figure.high} if figure.interval else {"low": figure.name, "high": figure.name}
    return {"name": figure.name, "title": figure.title, "unit": figure.unit, "better": figure.better, **ends}


def _candidate(row: Row, name: str) -> Candidate:
    figures = {}
    for figure in FIGURES:
        if (estimate := estimate_of(row, figure)) is not None:
            figures[figure.name] = estimate if figure.interval else Estimate(*[estimate.value] * 3)
    return Candidate(name, figures, warnings_of(row))


def _texts(cell: Candidate, figures: Iterable[Figure], wanted: Wanted) -> list[str]:
    estimates = [(cell.figures.get(figure.name), figure.scale) for figure in figures]
    texts = [_text(estimate and estimate.times(scale)) for estimate, scale in estimates]
    if wanted.price_per_hour is not None:
        throughput = cell.figures["throughput_tok_per_s"]
        texts.append(_text(choice.price_per_million_tokens(throughput, wanted.price_per_hour)))
    if wanted.grams_co2_per_kwh is not None:
        energy = cell.figures.get("energy_per_token_j")
        texts.append(_text(energy and choice.grams_co2_per_million_tokens(energy, wanted.grams_co2_per_kwh)))
    return texts


def _text(estimate: Estimate | None) -> str:
    """``595.5 (555.4 to 641.8)``, without an interval if the figure has none; blank for None."""
    if estimate is None:
        return ""
    value, *ends = (each if each is None else _number(each) for each in estimate)
    if None in ends:
        return f"{value} ±?"
    return value if ends[0] == ends[1] else f"{value} ({ends[0]} to {ends[1]})"


def _number(value: float) -> str:
    return format_number(value, 4)
