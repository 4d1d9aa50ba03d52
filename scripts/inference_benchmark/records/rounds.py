"""The records of a cell's rounds, as one record: what its figures follow from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_benchmark.analysis import descriptive, metrics
from inference_benchmark.analysis import stability as rules
from inference_benchmark.analysis.metrics import NO_PRIORS, MeasuredCell, Priors
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.records import machine_speed
from inference_benchmark.records.parts import Note, Run, Stability
from inference_benchmark.records.record import Record


def combined(records: Sequence[Record]) -> list[Record]:
    """One record per cell, in the order in which cells come first, with a run for each round that there is."""
    return [record for record, *_ in combined_by_split(records, [""] * len(records))]


def combined_by_split(records: Sequence[Record], splits: Sequence[str]) -> list[tuple[Record, str, Priors]]:
    """The same with the split of each, as comparability.splits, and what all show about its scatter: rounds of another
    split are another cell."""
    rounds: dict[tuple[str, str], list[Record]] = {}
    for record, split in zip(records, splits, strict=True):
        rounds.setdefault((record.cell.first_round.path, split), []).append(record)
    cells = [(_as_one(of_cell), split) for (_, split), of_cell in rounds.items()]
    priors = priors_of([record for record, _ in cells])
    return [
        (_assessed(record, of_cell), split, of_cell) for (record, split), of_cell in zip(cells, priors, strict=True)
    ]


def priors_of(records: Sequence[Record]) -> list[Priors]:
    """What these records, of all rounds of each cell, show about the scatter of each."""
    known = zip(records, machine_speed.around(records), strict=True)
    measured = [(record.measured(), around) for record, around in known if record.outcome == "ok"]
    priors = iter(metrics.priors(*zip(*measured, strict=True)) if measured else ())
    return [next(priors) if record.outcome == "ok" else NO_PRIORS for record in records]


def measured_cells(cells: Sequence[Record]) -> dict[str, MeasuredCell]:
    """Those that were measured, by the path of the first record. cells: as combined gives them."""
    return {
        record.cell.first_round.path: replace(record.measured(), priors=priors)
        for record, priors in zip(cells, priors_of(cells), strict=True)
        if record.outcome == "ok"
    }


def rounds_by_path(records: Iterable[Record]) -> dict[str, list[int]]:
    """For each cell, by the path of its first record, the round of each run that combined gives it."""
    rounds: dict[str, list[int]] = {}
    for each in records:
        rounds.setdefault(each.cell.first_round.path, []).extend([each.cell.round] * len(each.runs))
    return {path: sorted(numbers) for path, numbers in rounds.items()}


def copied(records: Mapping[str | Path, Record]) -> Iterator[str]:
    """One line for each record, by its path, that is a copy of another round of its cell: it would count twice."""
    first: dict[tuple[Any, ...], str | Path] = {}
    for path, record in records.items():
        for run in record.runs:
            key = record.cell.first_round.path, record.started_at, run.samples_s
            if (other := first.setdefault(key, path)) != path:
                yield f"{path}: holds the measurement of {other}, as another round; remove one of them"


def rounds_text(fewest: int, some_have_more: bool) -> int | str:
    """In how many rounds cells were measured. Not in how many at the most: that differs between two equal runs."""
    return f"{fewest} or more" if some_have_more else fewest


def assess(cell: Cell, runs: Sequence[Run], priors: Priors = NO_PRIORS) -> Stability:
    """Whether the samples of a cell repeat well enough, within and across its runs. priors: of the cells of its run."""
    verdict = rules.stability(
        [descriptive.settled(run.warmup_s, run.compiled_calls or 0, cell.measurement.warmup_tolerance) for run in runs],
        [run.samples_s for run in runs],
        [run.first_token_s for run in runs if run.first_token_s],
        priors,
        warmup_tolerance=cell.measurement.warmup_tolerance,
        target_half_width=cell.measurement.target_half_width,
        max_warmup_calls=cell.measurement.max_warmup_calls,
    )
    reasons = tuple(Note(name, message) for name, message in verdict.reasons.items())
    return Stability(stable=not reasons, reasons=reasons, outliers=verdict.outliers, drift=verdict.drift)


def each_once(notes: Iterable[Note]) -> tuple[Note, ...]:
    """The first note of each name."""
    first: dict[str, Note] = {}
    for note in notes:
        first.setdefault(note.name, note)
    return tuple(first.values())


def different_answers(digests: Iterable[str]) -> list[Note]:
    """The flag of a cell that gave several answers to the same prompts. digests: of all its full-length calls."""
    distinct = dict.fromkeys(digests)
    if len(distinct) < 2:
        return []
    listed = ", ".join(digest[:12] for digest in distinct)
    message = f"{len(distinct)} different answers to the same prompts, with digests {listed}"
    return [Note("nondeterministic", message)]


def _as_one(rounds: Sequence[Record]) -> Record:
    """A round without figures decides for the cell: what did not fit once does not fit. Whether all rounds together are
    stable is not known yet."""
    first, *later = rounds = sorted(rounds, key=lambda record: record.cell.round)
    if not later:
        return first
    ending = next((record for record in rounds if record.outcome != "ok"), first)
    runs = tuple(run for record in rounds for run in record.runs)
    set_aside = tuple(each for record in rounds for each in record.set_aside or ())
    answers = different_answers(digest for run in runs for digest in run.tokens_sha256)
    return replace(
        first,
        outcome=ending.outcome,
        reason=ending.reason,
        runs=runs,
        set_aside=set_aside or None,
        stability=ending.stability,
        flags=each_once([*answers, *(flag for record in rounds for flag in record.flags)]),
        ended_at=rounds[-1].ended_at,
    )


def _assessed(record: Record, priors: Priors) -> Record:
    """With a verdict on all of its runs, if there are several."""
    if record.outcome != "ok" or len(record.runs) == 1:
        return record
    return replace(record, stability=assess(record.cell, record.runs, priors))
