"""The files of an experiment, read, or all that keeps them from being used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.experiment.cells import Cell, Experiment
from inference_benchmark.experiment.studies import ColumnStudy, about, possible_studies, studies
from inference_benchmark.machine import hardware
from inference_benchmark.records import comparability, merge, study_files
from inference_benchmark.records.record import RecordError, load_for
from inference_benchmark.records.study_files import StudyError

Document = Mapping[str, Any]
#: How files are called that this program itself puts where records are.
_RECORD = re.compile(r"batch-\d+(\.superseded-\d+(-\d+)?)?\.json")


class CollectError(ValueError):
    """Records that cannot be used; ``problems`` holds one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def load_records(experiment: Experiment) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """(the record of every cell, in the experiment's order; every study that it asks for or that is there, by path).

    Raises CollectError naming each file that is no such record or study, or what keeps them out of one table.
    """
    problems: list[str] = []

    def read(part: Any, load: Callable[[Any, Path], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            document = load(part, Path(part.path))
        except (RecordError, StudyError) as error:
            problems.append(f"{part.path}: {error}")
        except OSError as error:
            problems.append(f"{part.path}: {error.strerror}")
        else:
            name, wanted = document["device"]["name"], experiment.device_name
            if hardware.is_called(name, wanted):
                return document
            problems.append(
                f"{part.path}: measured on {name}; machines.{experiment.machine}.device_name asks for {wanted!r}"
            )
        return None

    records = [read(cell, load_for) for cell in experiment.cells()]
    wanted = {study.path for study in studies(experiment)}
    there = (s for s in possible_studies(experiment) if s.path in wanted or Path(s.path).exists())
    found = {study.path: read(study, study_files.load_for) for study in there}
    problems += _second_records(experiment)
    if not problems:
        problems += _outdated_by_a_search(records, found)
        if experiment.mixed_provenance == "refuse":
            problems += comparability.disagreements(records)
            problems += _of_something_else(records, found)
    if problems:
        raise CollectError(problems)
    return records, found


def provenance_of(experiment: Experiment, records: Sequence[Document]) -> dict[str, Any]:
    """Where and how the records of an experiment were measured; at least one."""
    return {
        "machine": experiment.machine,
        "device": experiment.device,
        "measured_from": min(record["started_at"] for record in records),
        "measured_to": max(record["ended_at"] for record in records),
        "measurement": experiment.measurement,
        "memory_limit_bytes": experiment.memory_limit_bytes,
        "models": list(experiment.models),
        "facts": comparability.all_facts(records),
    }


def _second_records(experiment: Experiment) -> Iterator[str]:
    """Files beside the records that hold another record of the same cell, as copying can leave them."""
    paths = {cell.path for cell in experiment.cells()}
    for folder in dict.fromkeys(Path(path).parent for path in paths):
        for path in sorted(folder.glob("batch-*.json")):
            if _RECORD.fullmatch(path.name):
                continue
            with suppress(ValueError, OSError):
                place = Path("results", merge.own_place(path))
                if str(place) in paths and files.read(place) != files.read(path):
                    both = f"{merge.described(place)}; {merge.described(path)}"
                    yield f"two records of one cell: {both}; keep one of them"


def _outdated_by_a_search(records: Sequence[Document], found: Mapping[str, Document]) -> Iterator[str]:
    """Cells that were not measured because of a search that says so no longer."""
    for record in records:
        if record["outcome"] != "oom" or record["reason"]["phase"] != "max-batch":
            continue
        cell = Cell(**record["cell"])
        search = found.get(ColumnStudy.of("max-batch", cell).path)
        if search and study_files.decisive(search, cell.batch_size) is None:
            yield f"{cell.path}: was not measured for a search that says now that {cell.batch_size} rows fit"


def _of_something_else(records: Sequence[Document], found: Mapping[str, Document]) -> Iterator[str]:
    """Studies that were done on other hardware or software than the cells that they speak of."""
    known, told = {path: comparability.decisive(study) for path, study in found.items()}, set()
    for record in records if found else ():
        theirs = comparability.decisive(record)
        for path in about(Cell(**record["cell"])).values():
            if path in known and path not in told:
                for name, (study, cell) in comparability.disagreeing(known[path], theirs).items():
                    told.add(path)
                    yield f"{path}: {name} was {study}, for {Cell(**record['cell']).path} it was {cell}"
