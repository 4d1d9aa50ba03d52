"""The records of an experiment, read from their files; and what keeps them from being used together."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.analysis.max_batch import failing_try
from inference_benchmark.cli import ProblemsError
from inference_benchmark.experiment.cells import RECORD_STEM
from inference_benchmark.experiment.environments import CURRENT
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.rounds import all_cells, decision_path, read_decision
from inference_benchmark.experiment.studies import ColumnStudy, possible_studies, requested_studies, study_paths
from inference_benchmark.machine import conditions, hardware
from inference_benchmark.records import comparability, further_rounds, machine_speed, merge
from inference_benchmark.records.check import OtherSettingsError, RecordError
from inference_benchmark.records.record import Record, StudyRecord
from inference_benchmark.records.record_file import load, load_for
from inference_benchmark.records.rounds import copied, rounds_text

#: How files are called that this program itself puts where records are.
_RECORD = re.compile(rf"{RECORD_STEM}(\.superseded-\d+(-\d+)?)?\.json")


class CollectError(ProblemsError):
    """Records that cannot be used; ``problems`` holds one line each."""


@dataclass(frozen=True)
class Collection:
    """What an experiment has so far, by path, in the experiment's order; each round of a cell is a record. refused: why
    a file that is there cannot be used. missing: the cells, the decision on their further rounds if one is needed, and
    the studies asked for, without a file."""

    records: Mapping[str, Record]
    studies: Mapping[str, StudyRecord]
    refused: Mapping[str, str]
    missing: Sequence[str]


def read(experiment: Experiment) -> Collection:
    """Read the file of every cell and of every possible study of an experiment, each checked by itself."""
    records, studies, refused, missing = {}, {}, {}, []
    if experiment.most_rounds is not None and read_decision(experiment) is None:
        missing.append(decision_path(experiment.machine))
    requested = {study.path for study in requested_studies(experiment)}
    for subjects, usable in ((all_cells(experiment), records), (possible_studies(experiment), studies)):
        for subject in subjects:
            try:
                record = load_for(subject, Path(subject.path))
                if hardware.is_called(name := record.device["name"], experiment.device_name):
                    usable[subject.path] = record
                else:
                    setting = f"machines.{experiment.machine}.device_name asks for {experiment.device_name!r}"
                    refused[subject.path] = f"measured on {name}; {setting}"
            except FileNotFoundError:
                if usable is records or subject.path in requested:
                    missing.append(subject.path)
            except (RecordError, OSError) as error:
                is_asked_for = usable is records or subject.path in requested
                if isinstance(error, OtherSettingsError) and not is_asked_for:
                    continue  # it is not made again either
                refused[subject.path] = getattr(error, "strerror", str(error))
    return Collection(records, studies, refused, missing)


def collect(experiment: Experiment) -> Collection:
    """A collection with a record for every cell and for every study asked for, all of which can be used together.
    Raises CollectError naming each file that is missing or refused, or what keeps them out of one table."""
    collection = read(experiment)
    paths = [subject.path for subject in (*all_cells(experiment), *possible_studies(experiment))]
    why = {**dict.fromkeys(collection.missing, "No such file or directory"), **collection.refused}
    problems = [f"{path}: {why[path]}" for path in (decision_path(experiment.machine), *paths) if path in why]
    problems += _second_records(experiment)
    if not problems:
        problems += copied(collection.records)
        problems += _outdated_by_a_search(collection)
        problems += _outdated_by_another_cell(collection)
        if experiment.mixed_provenance == "refuse":
            problems += comparability.disagreements(list(collection.records.values()))
            problems += _studies_of_something_else(collection)
    if problems:
        raise CollectError(*problems)
    return collection


def provenance_of(experiment: Experiment, records: Sequence[Record]) -> dict[str, Any]:
    """Where and how the records of an experiment were measured, for provenance.json; at least one record."""
    environments = comparability.environments(records)
    goes_on = any(record.cell.round > experiment.rounds for record in records)
    return {
        "machine": experiment.machine,
        "device": experiment.device,
        "measured_from": min(record.started_at for record in records),
        "measured_to": max(record.ended_at for record in records),
        "measurement": {**vars(experiment.measurement), "rounds": rounds_text(experiment.rounds, goes_on)},
        "memory_limit_bytes": experiment.memory_limit_bytes,
        "models": list(experiment.models),
        **({"variants": experiment.variants} if experiment.variants else {}),
        **({"environments": environments} if environments.keys() != {CURRENT} else {}),
        "facts": comparability.all_facts(records),
        "machine_speed": machine_speed.facts(records),
        "above_target": further_rounds.above_target(records, experiment.measurement.target_half_width),
        "disturbed": {"rounds": sum(map(_is_disturbed, records)), "of": sum(len(record.runs) for record in records)},
    }


def _is_disturbed(record: Record) -> bool:
    """Whether a round was disturbed at first, or for good."""
    conditions_of = (run.conditions for run in record.runs)
    return bool(record.set_aside) or any(conditions.disturbances(each, record.cell.device) for each in conditions_of)


def _second_records(experiment: Experiment) -> Iterator[str]:
    """Files that hold another record of the same cell beside its own, as copying can leave them."""
    paths = {cell.path for cell in all_cells(experiment)}
    for folder in dict.fromkeys(Path(path).parent for path in paths):
        for path in sorted(path for path in folder.glob("batch-*.json") if not _RECORD.fullmatch(path.name)):
            with suppress(ValueError, OSError):
                place = Path("results", merge.own_place(path))
                if str(place) in paths and files.read(place) != files.read(path):
                    both = f"{merge.described(place)}; {merge.described(path)}"
                    yield f"two records of one cell: {both}; keep one of them"


def _outdated_by_a_search(collection: Collection) -> Iterator[str]:
    """Cells that were not measured because of a search that now says that they fit."""
    for path, record in collection.records.items():
        if record.outcome != "oom" or record.reason.phase != "max-batch":
            continue
        search = collection.studies.get(ColumnStudy.of("max-batch", record.cell).path)
        if search and not (search.outcome == "ok" and failing_try(search.results, record.cell.batch_size)):
            yield f"{path}: was not measured because of a search that now says that {record.cell.batch_size} rows fit"


def _outdated_by_another_cell(collection: Collection) -> Iterator[str]:
    """Cells and studies that were not measured because of the record of another cell that now says something else, or
    is gone."""
    for path, record in {**collection.records, **collection.studies}.items():
        if other := record.rests_on:
            with suppress(RecordError, OSError):
                if (collection.records.get(str(other)) or load(other)).outcome == record.outcome:
                    continue
            yield f"{path}: was not measured because of {other}, which no longer ends as {record.outcome}"


def _studies_of_something_else(collection: Collection) -> Iterator[str]:
    """Studies that were done on other hardware or software than the cells that they say something about."""
    of_studies = {path: comparability.facts_that_must_agree(study) for path, study in collection.studies.items()}
    named = set()
    for cell_path, record in collection.records.items() if of_studies else ():
        of_cell = comparability.facts_that_must_agree(record)
        for path in study_paths(record.cell).values():
            if path in of_studies and path not in named:
                of_study = comparability.facts_about(collection.studies[path].study, of_studies[path], record.cell)
                for name, (study, cell) in comparability.disagreeing(of_study, of_cell).items():
                    named.add(path)
                    yield f"{path}: {name} was {study}, for {cell_path} it was {cell}"
