"""The closing words of a run: what was measured, what is missing and why, the best of it; of a dry run: the time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.experiment.plan import Plan
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.records import threads
from inference_benchmark.records.estimate import COMPILE_S, START_S, Known
from inference_benchmark.render.one_line import next_steps
from inference_benchmark.units import format_duration

#: What each way to end is called; those that a run has not come to are ``missing``.
_ENDINGS = {
    "ok": "measured", "oom": "out of memory", "unsupported": "not supported", "interrupted": "interrupted",
    "failed": "failed", "missing": "not reached",
}  # fmt: skip


@dataclass
class Tally:
    """What a run has come to. expected: the cells and studies that it is to measure, by the paths of their records.
    ended: how each of them has, as in _ENDINGS, by path. failures: of jobs, as text, by path of a record or by log.
    made: reports."""

    plan: Plan
    expected: dict[str, Subject] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)

    @property
    def left(self) -> list[Subject]:
        return [subject for path, subject in self.expected.items() if path not in self.ended]


def of_run(tally: Tally, command: str, folder: Path = Path()) -> str:
    """What a run by this command has measured, what is missing and why; if nothing is, the best of it, its reports, and
    what would make its figures more certain. folder: of the results, from where the user is."""
    counts = Counter([*tally.ended.values(), *("missing" for _ in tally.left)])
    if tally.failures or counts["missing"] or counts["interrupted"]:
        told = (f"{counts[ending]} {name}" for ending, name in _ENDINGS.items() if counts[ending])
        lines = [f"Cells and studies: {', '.join(told)}."] if tally.expected else []
        lines += [*tally.failures.values(), f"To go on, with what is missing: {command}"]
    else:
        lines = [*_results(tally.made, folder), *(_next_steps(tally.plan.machines) if tally.ended else ())]
    return _text(lines)


def of_plan(plan: Plan, planned: Sequence[Subject], outputs: Iterable[str]) -> str:
    """How long planned cells and studies will take, and further rounds, if they are to be decided. outputs: of other
    planned jobs."""
    undecided, lines = [each for each in map(plan.undecided, outputs) if each], []
    known = Known.of(plan) if planned or undecided else None
    if planned:
        total, making_s = known.estimate(planned), _seconds_to_make_environments(plan, planned)
        text = f"Estimated time: {format_duration(total.seconds + sum(making_s))} for {len(planned)} cells"
        text += " and studies, one after the other"
        text += f", and {len(making_s)} environment{'s' * (len(making_s) > 1)} to make" if making_s else ""
        text += f". By earlier records: {total.known}"
        if total.published:
            text += f"; by published figures of another GPU: {total.published}"
        if total.unknown:
            text += f"; without a record of their like: {total.unknown}, with max_seconds for each timed part, and"
            text += f" {START_S} s to start and {COMPILE_S} s to compile if no record tells"
        lines.append(f"{text}.")
    if undecided:
        at_most_s = sum(rounds * known.estimate(cells).seconds for cells, rounds in undecided)
        rounds = f"up to {undecided[0][1]} of the cells that need them"
        lines.append(f"Further rounds: {rounds}, up to {format_duration(at_most_s)}.")
    return _text(lines)


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _results(made: Iterable[str], folder: Path) -> Iterator[str]:
    """The best of each machine whose report was made, and where that is."""
    # Here, because it is not needed to read the rules.
    from inference_benchmark.render.ranking import ranked
    from inference_benchmark.results.summary_csv import read_summary

    for page in map(Path, sorted(made)):
        summary, provenance = page.with_name("summary.csv"), page.with_name("provenance.json")
        if len(page.parts) == 2:  # results/report.html
            yield f"Report of all machines: {folder / page}"
            continue
        target = files.read_json(provenance)["measurement"]["target_half_width_percent"] / 100
        yield f"The best of each column on {page.parent.name}, by throughput:"
        yield from ranked(read_summary(summary), target)
        yield f"Report: {folder / page}; tables: {folder / page.with_name('tables.md')}"


def _next_steps(machines: Iterable[str]) -> Iterator[str]:
    """Of all machines, from what was collected of them."""
    for machine in machines:
        if (path := Path("results", machine, "provenance.json")).exists():
            yield from next_steps(files.read_json(path), threads.tried_on(machine))


def _seconds_to_make_environments(plan: Plan, planned: Iterable[Subject]) -> list[float]:
    from inference_benchmark.measure import environments  # here, because it is not needed to read the rules

    needed = plan.environments_of(subject.path for subject in planned)
    return environments.seconds_to_make(lock for _, lock in needed)
