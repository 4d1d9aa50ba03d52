"""An experiment as far as it has come: what has a record, what failed, what is still missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from inference_benchmark import files
from inference_benchmark.compare import result_set
from inference_benchmark.compare.comparison import Comparison, compare
from inference_benchmark.experiment.baselines import BaselineError
from inference_benchmark.experiment.cells import Cell, Experiment, log_path
from inference_benchmark.experiment.studies import possible_studies
from inference_benchmark.records import study_files, summary
from inference_benchmark.records.attempts import last_words
from inference_benchmark.records.collect import provenance_of
from inference_benchmark.records.record import RecordError, load_for
from inference_benchmark.records.study_files import StudyError
from inference_benchmark.render import report, tables


@dataclass(frozen=True)
class Preview:
    """rows: as in summary.csv, with the outcomes ``missing``, ``failed`` and ``refused`` besides, whose reason is
    what is known. provenance: None where there is no record yet. unused: baselines and studies that could not be read.
    """

    rows: pandas.DataFrame
    provenance: Mapping[str, Any] | None
    beside: Sequence[Comparison]
    unused: Sequence[str]

    @property
    def line(self) -> str:
        """How far it has come, in a line."""
        counts = Counter(self.rows["outcome"])
        told = [f"{counts[name]} {name}" for name in ("failed", "refused", "missing") if counts[name]]
        done = len(self.rows) - sum(counts[name] for name in ("failed", "refused", "missing"))
        return ", ".join([f"Preview: {done} of {len(self.rows)} cells have a record", *told]) + "."

    def write(self, folder: Path, template: Path) -> None:
        """summary.csv, tables.md and report.html of what there is."""
        files.write(self.rows.to_csv(index=False), folder / "summary.csv")
        text = tables.document(self.rows, self.beside)
        files.write("\n\n".join([self.line, *self.unused, text]), folder / "tables.md")
        page = report.render(self.rows, [self.provenance], template, self.beside, notes=[self.line, *self.unused])
        files.write(page, folder / "report.html")


def look(experiment: Experiment) -> Preview:
    """What can be seen of an experiment now. Only reads, so that it can be asked while others write."""
    records, ends = {}, {}
    for cell in experiment.cells():
        try:
            records[cell.path] = load_for(cell, Path(cell.path))
        except FileNotFoundError:
            ends[cell.path] = _why_missing(cell)
        except (RecordError, OSError) as error:
            ends[cell.path] = "refused", str(error)
    studies, unused = {}, []
    for study in possible_studies(experiment):
        try:
            studies[study.path] = study_files.load_for(study, Path(study.path))
        except FileNotFoundError:
            continue
        except (StudyError, OSError) as error:
            unused.append(f"{study.path}: {error}")
    known = summary.summarise(list(records.values()), studies)
    place = {path: index for index, path in enumerate(cell.path for cell in experiment.cells())}
    blank = [summary.blank_row(cell, *ends[cell.path]) for cell in experiment.cells() if cell.path in ends]
    rows = pandas.concat([known.astype(object), pandas.DataFrame(blank, columns=summary.COLUMNS, dtype=object)])
    rows = rows.sort_values("record", key=lambda paths: paths.map(place)).reset_index(drop=True).convert_dtypes()
    beside = []
    for name, path in experiment.baselines.items() if records else ():
        try:
            beside.append(compare(result_set.load(Path(path), name), result_set.of_records(list(records.values()))))
        except BaselineError as error:
            unused += error.problems
        except OSError as error:
            unused.append(f"{path}: {error.strerror}")
    provenance = provenance_of(experiment, list(records.values())) if records else None
    return Preview(rows, provenance, beside, unused)


def _why_missing(cell: Cell) -> tuple[str, str]:
    """(outcome, reason) of a cell without a record: its log knows whether it failed."""
    log = log_path(cell.path)
    if not log.exists():
        return "missing", ""
    words = last_words(log)
    return ("failed", f"{log}: {words}") if words else ("missing", f"begun; {log}")
