"""The best cells of one model and workload under limits, as text. report/choose.js writes the same on the page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from inference_benchmark import markdown
from inference_benchmark.analysis.figures import BY_NAME, PERFORMANCE, Figure
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.render.texts import names_within
from inference_benchmark.results import choice
from inference_benchmark.results.cell_result import ABOVE_LIMIT, CellResult, Results
from inference_benchmark.results.choice import Bound
from inference_benchmark.units import format_number

#: What a choice can be for, by the name on a command line: figures in a unit of their own.
GOALS: Mapping[str, Figure] = {
    figure.key: figure for figure in PERFORMANCE if (figure.has_chart or figure.best) and not figure.is_share
}
#: What the first column means.
NOTE = (
    "best: the best mean of the goal among the cells whose 95 % intervals are within all limits. "
    "as good: its interval overlaps that of the best, so that the two cannot be told apart. "
    "perhaps: it may be as good, or better, but only its mean is within every limit, not its interval. "
    "Peak memory has no interval: it is the most that was taken. "
    "Same tokens have none either: they are counted, with the prompts of the workload. "
    "Price and CO2 follow from the throughput and the energy of the cell, for a machine that is never idle."
)
_THROUGHPUT, _ENERGY = BY_NAME["throughput_tok_per_s"], BY_NAME["energy_per_token_j"]
_number = partial(format_number, digits=4)


@dataclass(frozen=True)
class BoundOption:
    """A limit that a user can give, in the unit of its label. factor: what turns it into the unit of the column."""

    flag: str
    label: str
    figure: Figure
    factor: float

    def text(self, most: float) -> str:
        return f"{_number(most)} {self.label}"


BOUNDS = (
    BoundOption("--max-ms-per-token", "ms per output token", BY_NAME["time_per_output_token_s"], 1e-3),
    BoundOption("--max-first-token-s", "s to the first token", BY_NAME["first_token_s"], 1),
    BoundOption("--max-memory-gb", "GB of memory", BY_NAME["peak_memory_bytes"], 1e9),
    BoundOption("--max-kl", "nats of KL divergence over the text", BY_NAME["text_kl_mean_nats"], 1),
    BoundOption("--max-perplexity-ratio", "times the perplexity of hf fp32", BY_NAME["text_perplexity_ratio"], 1),
)
#: What is known of the answers of a column.
_QUALITY = (BY_NAME["token_agreement"], *(option.figure for option in BOUNDS if option.figure.group == "quality"))
#: What an answer shows beside the goal.
SHOWN = (_THROUGHPUT, *(option.figure for option in BOUNDS), _QUALITY[0])


class Question(NamedTuple):
    """What a user asks for. bounds: the most of each option. price_per_hour: in any currency; None if not given."""

    goal: Figure
    bounds: Mapping[BoundOption, float] = {}
    price_per_hour: float | None = None
    grams_co2_per_kwh: float | None = None


class Answer(NamedTuple):
    """Lines of text and a table, as plain text. A figure that no cell has takes no column."""

    lines: list[str]
    headings: list[str]
    cells: list[list[str]]


def answer(cells: Results, question: Question) -> Answer:
    """The best cells of one model and workload on one machine. Without any there are no headings."""
    goal, name = question.goal, names_within(cells)
    measured = [cell for cell in cells if cell.is_measured]
    plausible = [cell for cell in measured if not cell.is_above_limit]
    bounds = {Bound(option.figure, most * option.factor): (option, most) for option, most in question.bounds.items()}
    chosen = choice.choose(plausible, goal, list(bounds))
    lines = []
    without = sum(goal.name not in cell.figures for cell in plausible)
    if not chosen.best and without < len(plausible):
        lines.append(f"No cell meets the limits{' for certain' if chosen.perhaps else ''}.")
    if chosen.nearest:
        cell, bound = chosen.nearest
        option, most = bounds[bound]
        value = cell.value(bound.figure.name) / option.factor
        lines.append(f"Nearest: {name(cell)}, {option.text(value)}, {_number(value / most)} times the limit.")
    for bound, verdicts in chosen.verdicts:
        option, most = bounds[bound]
        unknown = verdicts.count("unknown")
        if excluded := verdicts.count("exceeds") + unknown:
            why = f", {unknown} of them because the figure is unknown" if unknown else ""
            lines.append(f"At most {option.text(most)}: excludes {excluded} of {len(verdicts)} cells{why}.")
    if without:
        lines.append(f"Cells without the figure of the goal: {without}.")
    if line := _on_quality(plausible, question.bounds):
        lines.append(line)
    if above := len(measured) - len(plausible):
        lines.append(f"Cells left out because they are faster than their machine can be ({ABOVE_LIMIT}): {above}.")
    shown = dict.fromkeys(each for each in (goal, *SHOWN) if _is_known(each, plausible))
    ranked = [("as good" if n else "best", cell) for n, cell in enumerate(chosen.best)]
    ranked += [("perhaps", cell) for cell in chosen.perhaps]
    rows = [
        {"choice": rank, "cell": name(cell), **_texts(cell, shown, question), "warnings": ", ".join(cell.warnings)}
        for rank, cell in ranked
    ]
    return Answer(lines, list(rows[0]) if rows else [], [list(row.values()) for row in rows])


def to_markdown(cells: Results, question: Question) -> str:
    """The answer as a part of a Markdown document."""
    lines, headings, rows = answer(cells, question)
    goal = f"Goal: {question.goal.title.lower()} ({question.goal.unit}), {question.goal.better} is better."
    limits = [f"at most {option.text(most)}" for option, most in question.bounds.items()]
    paragraphs = [f"{goal} Limits: {'; '.join(limits) or 'none'}.", *lines]
    column = cells[0].column
    text = f"## {markdown.escape(f'{column.model} {column.workload} on {cells[0].machine}')}\n"
    text += "".join(f"\n{markdown.escape(line)}\n" for line in paragraphs)
    return text + (f"\n{markdown.table(headings, rows)}" if rows else "")


def limits(cells: Results) -> list[BoundOption]:
    """The limits that can be given for these cells, because some have the figure."""
    return [option for option in BOUNDS if _is_known(option.figure, cells)]


def page_data(cells: Results) -> dict[str, Any]:
    """What the page has to know besides its points. factor: what turns a limit into the unit of the points."""
    return {
        "goals": [_described(goal) for goal in GOALS.values()],
        "limits": [
            {
                "label": each.label,
                "factor": round(each.factor * each.figure.scale, 9),
                "figure": _described(each.figure),
            }
            for each in limits(cells)
        ],
        "shown": [_described(figure) for figure in SHOWN],
        "quality": [figure.name for figure in _QUALITY],
        "throughput": _described(_THROUGHPUT),
        "energy": _described(_ENERGY),
        "above_limit": ABOVE_LIMIT,
    }


def _described(figure: Figure) -> dict[str, Any]:
    low, high = figure.columns[1:] or (figure.name, figure.name)
    texts = {name: getattr(figure, name) for name in ("name", "title", "heading", "better")}
    # Points have shares as parts of one.
    return {**texts, "low": low, "high": high, "times": figure.in_unit(1) / figure.scale}


def _is_known(figure: Figure, cells: Results) -> bool:
    return any(figure.name in cell.figures for cell in cells)


def _on_quality(cells: Results, bounds: Iterable[BoundOption]) -> str | None:
    """What a reader has to know who chooses between columns by their speed alone."""
    if any(option.figure in _QUALITY for option in bounds) or len({cell.column for cell in cells}) < 2:
        return None
    if any(_is_known(figure, cells) for figure in _QUALITY):
        return "No limit on the quality of answers is given."
    return "The quality of answers is not known."


def _texts(cell: CellResult, figures: Iterable[Figure], question: Question) -> dict[str, str]:
    """The figures of a cell, and what follows from them, by the heading of the column."""
    shown = {}
    for figure in figures:
        estimate = cell.figures.get(figure.name)
        estimate = estimate and Estimate(estimate.value, *choice.interval(estimate, figure))
        shown[figure.heading] = estimate and estimate.times(figure.in_unit(1))
    throughput, energy = (cell.figures.get(figure.name) for figure in (_THROUGHPUT, _ENERGY))
    if (price := question.price_per_hour) is not None:
        shown["price per million tokens"] = choice.price_per_million_tokens(throughput, price)
    if (grams := question.grams_co2_per_kwh) is not None:
        shown["g CO2 per million tokens"] = energy and choice.grams_co2_per_million_tokens(energy, grams)
    return {heading: _text(estimate) for heading, estimate in shown.items()}


def _text(estimate: Estimate | None) -> str:
    """``595.5 (555.4 to 641.8)``, without an interval if the figure has none; blank for None."""
    if estimate is None:
        return ""
    value, *ends = (each if each is None else _number(each) for each in estimate)
    if None in ends:
        return f"{value} ±?"
    return value if ends[0] == ends[1] else f"{value} ({ends[0]} to {ends[1]})"
