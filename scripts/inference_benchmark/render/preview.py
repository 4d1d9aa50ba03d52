"""The state of an experiment that is being measured: cells with a record, failed and missing cells."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_benchmark import files, markdown
from inference_benchmark.cli import ProblemsError
from inference_benchmark.compare import result_set
from inference_benchmark.compare.comparing import compare
from inference_benchmark.compare.comparison import Comparison
from inference_benchmark.experiment.cells import first_and_round, log_path
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.rounds import all_cells
from inference_benchmark.experiment.studies import possible_studies
from inference_benchmark.records import collect
from inference_benchmark.records.attempts import failure_line, message_of
from inference_benchmark.records.results import Studies, cell_results, left_out, without_record
from inference_benchmark.render import report, tables
from inference_benchmark.render.one_line import failure_text
from inference_benchmark.results import summary_csv
from inference_benchmark.results.cell_result import NOT_MEASURED, UNFINISHED, Results


@dataclass(frozen=True)
class Preview:
    """results: with the outcomes ``missing``, ``failed`` and ``refused`` too, and a reason for each. provenance: None
    where there is no record yet. problems: what failed or cannot be used, also studies, further rounds and baselines,
    and why."""

    results: Results
    provenance: Mapping[str, Any] | None
    comparisons: Sequence[Comparison]
    problems: Sequence[str]

    @property
    def line(self) -> str:
        """How far it has come, in one line."""
        counts = Counter(cell.outcome for cell in self.results if cell.record)
        missing = {name: counts[name] for name in NOT_MEASURED if counts[name]}
        done = f"Preview: {counts.total() - sum(missing.values())} of {counts.total()} cells have a record"
        return ", ".join([done, *(f"{n} {name}" for name, n in missing.items())]) + "."

    def write(self, folder: Path, template: Path) -> None:
        """Write summary.csv, tables.md and report.html."""
        files.write(summary_csv.to_csv(self.results), folder / "summary.csv")
        notes, shown = [self.line, *self.problems], tables.document(self.results, self.comparisons)
        files.write("\n\n".join([*map(markdown.escape, notes), shown]), folder / "tables.md")
        page = report.render(self.results, [self.provenance], template, self.comparisons, [self.line], self.problems)
        files.write(page, folder / "report.html")


def preview(experiment: Experiment) -> Preview:
    """The state of an experiment now. It only reads, so that it can be made during a run."""
    collection = collect.read(experiment)
    records = list(collection.records.values())
    cells = [cell for cell in experiment.cells() if cell.round == 1]
    measured = {record.cell.first_round.path for record in records}
    endings = ((cell, *_ending(cell.path, collection)) for cell in cells if cell.path not in measured)
    blank = [without_record(cell, outcome, ": ".join(filter(None, why))) for cell, outcome, *why in endings]
    place = {cell.path: index for index, cell in enumerate(cells)}
    results = cell_results(records, collection.studies) + blank
    results.sort(key=lambda cell: place.get(cell.record, len(place)))
    of_blank = [cell.record for cell in blank]
    others = [path for path in collection.missing if first_and_round(path)[0] not in set(of_blank)]
    problems = list(_problems(dict.fromkeys([*of_blank, *collection.refused, *others]), experiment, collection))
    comparisons = []
    ours = result_set.of_records(records, studies=Studies.of(collection.studies)) if records else None
    for name, path in experiment.baselines.items() if ours else ():
        try:
            comparison = compare(result_set.load(Path(path), name), ours)
            comparisons.append(Comparison.from_document(comparison.to_document()))  # as rule report reads it
        except ProblemsError as error:
            problems += error.problems
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    provenance = collect.provenance_of(experiment, records) if records else None
    return Preview([*results, *left_out(experiment)], provenance, comparisons, problems)


def _ending(path: str, collection: collect.Collection) -> tuple[str, str, str]:
    """(outcome, file to look at, reason) of a cell or study without a usable record at its path. Its log says whether
    it failed."""
    if path in collection.refused:
        return "refused", path, collection.refused[path]
    log = log_path(path)
    if not log.exists():
        return "missing", "", ""
    line = failure_line(log)
    return ("failed", str(log), message_of(line)) if line else ("missing", str(log), "begun")


def _problems(paths: Iterable[str], experiment: Experiment, collection: collect.Collection) -> Iterator[str]:
    """What failed or is refused of these cells and studies, and why."""
    labels = {each.path: each.label for each in (*all_cells(experiment), *possible_studies(experiment))}
    for path in paths:
        outcome, place, reason = _ending(path, collection)
        if outcome in UNFINISHED:
            yield failure_text(outcome, labels.get(path, path), [place], [reason])
