"""Two result sets, cell by cell: how many times as fast, and whether the difference is more than noise. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from inference_benchmark.analysis import descriptive, statistics, yardstick
from inference_benchmark.analysis.figures import COMPARED, Figure
from inference_benchmark.analysis.scatter import Prior
from inference_benchmark.analysis.statistics import Estimate, RatioTest
from inference_benchmark.compare import verdicts
from inference_benchmark.compare.comparison import SPEED, ComparedCell, ComparedColumn, Comparison, Difference
from inference_benchmark.compare.result_set import ResultSet
from inference_benchmark.records import comparability
from inference_benchmark.results.cell_result import KEYS, CellResult
from inference_benchmark.units import format_figure

#: The verdicts where there are not two figures, by the outcomes of base and new; else there is no figure.
_ENDINGS = {
    ("oom", "ok"): verdicts.FITS_NOW,
    ("ok", "oom"): verdicts.FITS_NO_LONGER,
    ("oom", "oom"): verdicts.NEITHER_FITS,
}


def compare(
    base: ResultSet, new: ResultSet, figure: Figure = COMPARED["throughput"], paired: bool = False
) -> Comparison:
    """Each cell of new with the same cell of base.

    Two cells are the same if they agree in all of KEYS that the base has; models are matched by name if the base has
    names, else by their parameters. So one cell of the base can match several of the new set. Samples are compared by
    Welch's test on the logarithms of the means of processes, or of calls if a set has one process; a difference of such
    calls is called ``perhaps``. paired: the two were measured together, round by round; then the ratios of the rounds
    that both have are tested. The scatter of all cells of a set, or of all pairs, is known of each.
    """
    keys = matching_keys(base.cells)
    by_key = {cell.key_in(keys): (cell, prior) for cell, prior in zip(base.cells, base.priors(figure), strict=True)}
    both = [
        (*by_key[key], cell, prior)
        for cell, prior in zip(new.cells, new.priors(figure), strict=True)
        if (key := cell.key_in(keys)) in by_key
    ]
    pairs = [(one, other) for one, _, other, _ in both]
    tests = _paired_tests(pairs, figure) if paired else [_test(*each, figure) for each in both]
    significant = iter(statistics.significant([test for test in tests if test]))
    cells = [
        _compared(one, other, figure, test, bool(test) and next(significant))
        for (one, other), test in zip(pairs, tests, strict=True)
    ]
    matched = {other.key_in(keys) for _, other in pairs}
    return Comparison(
        base=base.name,
        new=new.name,
        figure=figure.name,
        notes=[*base.notes, *new.notes],
        differences=differences(base, new),
        cells=cells,
        columns=list(_columns(cells)),
        only_base=[cell for cell in base.cells if cell.key_in(keys) not in matched],
        only_new=[cell for cell in new.cells if cell.key_in(keys) not in by_key],
        paired=paired,
    )


def differences(base: ResultSet, new: ResultSet) -> list[Difference]:
    """Facts that both know and that differ, and the kernels of the yardstick in which the machine itself differs by
    more than the tolerance. A variable of the environment may be set in one set only. Of the cells that both have, as
    far as their records are there: what is true of others has no part in a ratio."""
    keys, found = matching_keys(base.cells), []
    common = set.intersection(*({cell.key_in(keys) for cell in each.cells} for each in (base, new)))
    base, new = (each.about(cell for cell in each.cells if cell.key_in(keys) in common) for each in (base, new))
    both = comparability.shared(base.facts, new.facts) if base.facts and new.facts else set()
    for fact in (name for name in {**base.facts, **new.facts} if name in both):
        ours, theirs = (list(each.facts.get(fact, ["not set"])) for each in (base, new))
        if set(map(str, ours)) != set(map(str, theirs)):
            found.append(Difference(fact, ours, theirs))
    if base.speed and new.speed:
        ratios = zip(yardstick.NAMES, new.speed.over(base.speed), base.speed.texts, new.speed.texts, strict=True)
        for name, ratio, our, their in ratios:
            if min(ratio, 1 / ratio) < 1 - yardstick.TOLERANCE:
                now = f"{their}, {format_figure(ratio, '.2f')}x"
                found.append(Difference(f"{SPEED} ({name}, median)", [our], [now]))
    return found


def matching_keys(base: Sequence[CellResult]) -> tuple[str, ...]:
    """The keys in which a cell has to agree with one of these cells of a base to be the same. Prompts of a base that
    does not say are random token ids."""
    known = {"prompts"} | {key for cell in base for key in cell.key}
    return tuple(key for key in KEYS if key in known and not (key == "parameters" and "model" in known))


def _paired_tests(pairs: Sequence[tuple[CellResult, CellResult]], figure: Figure) -> list[RatioTest | None]:
    by_round = (
        [dict(zip(of.rounds, of.samples(figure), strict=False)) for of in pair] if _are_limited(pair) else [{}, {}]
        for pair in pairs
    )
    return statistics.paired_ratio_tests([statistics.shifts_of_rounds(*sides) for sides in by_round])


def _test(base: CellResult, of_base: Prior, new: CellResult, of_new: Prior, figure: Figure) -> RatioTest | None:
    ours, theirs = base.samples(figure), new.samples(figure)
    has_samples = ours and theirs and _are_limited((base, new))
    return statistics.ratio_test(ours, theirs, (of_base, of_new)) if has_samples else None


def _are_limited(pair: tuple[CellResult, CellResult]) -> bool:
    """Whether neither is faster than its machine can be."""
    return not any(cell.is_above_limit for cell in pair)


def _compared(
    base: CellResult, new: CellResult, figure: Figure, test: RatioTest | None, significant: bool
) -> ComparedCell:
    if not (figure.name in base.figures and figure.name in new.figures):
        return ComparedCell(base, new, _ENDINGS.get((base.outcome, new.outcome), verdicts.NO_FIGURE))
    if base.is_above_limit or new.is_above_limit:
        return ComparedCell(base, new, verdicts.ABOVE_LIMIT)
    processes = len(base.samples(figure)), len(new.samples(figure))
    if test is None:
        ratio = new.value(figure.name) / base.value(figure.name)
        speedup = Estimate(ratio if figure.better == "higher" else 1 / ratio)
        return ComparedCell(base, new, verdicts.UNKNOWN, speedup, processes=processes)
    faster, slower = verdicts.FASTER, verdicts.SLOWER
    if min(processes) == 1:
        faster, slower = verdicts.PERHAPS_FASTER, verdicts.PERHAPS_SLOWER
    verdict = (slower if test.speedup.value < 1 else faster) if significant else verdicts.SAME
    return ComparedCell(base, new, verdict, test.speedup, test.p_value, processes, test.freedom)


def _columns(cells: Sequence[ComparedCell]) -> Iterator[ComparedColumn]:
    columns: dict[str, list[ComparedCell]] = {}
    for cell in cells:
        columns.setdefault(cell.new.column_label, []).append(cell)
    for label, members in columns.items():
        logs = [math.log(cell.ratio.value) for cell in members if cell.ratio]
        geometric_mean = math.exp(descriptive.mean(logs)) if logs else None
        base = max((cell.new.batch_size for cell in members if cell.base.is_measured), default=None)
        new = max((cell.new.batch_size for cell in members if cell.new.is_measured), default=None)
        yield ComparedColumn(members[0].new.column, label, geometric_mean, len(logs), base, new)
