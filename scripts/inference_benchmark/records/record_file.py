"""Records as files: read and checked, or written whole or not at all."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from inference_benchmark import files
from inference_benchmark.experiment.as_json import difference
from inference_benchmark.experiment.cells import Cell, without_path
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.records.check import OtherSettingsError, RecordError
from inference_benchmark.records.record import OTHER_CELL, AnyRecord, Record, StudyRecord

R = TypeVar("R", Record, AnyRecord)


def load(path: Path) -> Record:
    """The record of a cell at path. Raises RecordError, and OSError where the file cannot be read."""
    return Record.from_document(_read(path))


def load_any(path: Path) -> AnyRecord:
    """The same of a cell or of a study."""
    document = _read(path)
    return (StudyRecord if isinstance(document, dict) and "study" in document else Record).from_document(document)


def readable(paths: Iterable[Path], load: Callable[[Path], R]) -> Iterator[tuple[Path, R]]:
    """The records at these paths, as far as load (load or load_any) can read them."""
    for path in paths:
        with suppress(RecordError, OSError):
            yield path, load(path)


def load_for(subject: Subject, path: Path, but_for: Collection[str] = ()) -> AnyRecord:
    """The record at path if it is one of exactly this cell or study. Raises RecordError, OSError. but_for: fields of
    the subject that may be different there."""
    return _type_for(subject).from_document(_document_for(subject, path, but_for))


def of_other_settings(subjects: Iterable[Subject]) -> list[str]:
    """The paths of these cells and studies that have a record of other settings. What is no record is not among them:
    nobody knows what it was."""
    found = []
    for subject in subjects:
        try:
            _document_for(subject, Path(subject.path))
        except OtherSettingsError:
            found.append(subject.path)
        except (RecordError, OSError):
            continue
    return found


def _type_for(subject: Subject) -> type[Record] | type[StudyRecord]:
    return Record if isinstance(subject, Cell) else StudyRecord


def _document_for(subject: Subject, path: Path, but_for: Collection[str] = ()) -> Any:
    """The document at path if it is of exactly this cell or study. Raises as load_for."""
    cls, document = _type_for(subject), _read(path)
    cls.check_versions(document)
    # Compared as JSON first: what was measured under other settings may not even have those of today.
    found, wanted = document.get(cls.SUBJECT), subject.to_document()
    if isinstance(found, dict):
        found = without_path(found)
        wanted |= {name: found[name] for name in but_for if name in found}
        if found != wanted:
            raise OtherSettingsError(f"measured under another configuration: {difference(wanted, found)}")
    return document


def write(record: AnyRecord, path: Path) -> None:
    """Write a record whole or not at all; an earlier one there is kept beside it. Raises RecordError where it breaks
    the format, and OSError with nothing left behind but what was there."""
    document = record.to_document()
    type(record).from_document(document)
    files.write_json(document, path)


def derived_from_deleted(paths: Iterable[str]) -> list[str]:
    """The records among these without a measurement of their own, which another cell's record decided, after that
    record was deleted. Only folders in which a record is missing are read."""
    by_folder = defaultdict(list)
    for path in paths:
        by_folder[os.path.dirname(path)].append(path)
    found = []
    for folder, together in by_folder.items():
        with suppress(OSError):
            names = set(os.listdir(folder))
            existing = [path for path in together if os.path.basename(path) in names]
            if len(existing) < len(together):
                found += [path for path in existing if _source_is_deleted(Path(path))]
    return found


def _source_is_deleted(path: Path) -> bool:
    with suppress(OSError, RecordError):
        # Most records are not derived. To check a record takes longer than to search its text.
        if OTHER_CELL.encode() in files.read(path):
            source = load_any(path).rests_on
            return source is not None and not source.exists()
    return False


def _read(path: Path) -> Any:
    # Three times as fast as Python's own, which is asked where this fails: it reads NaN and says where the fault is.
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(files.read(path))
    try:
        return files.read_json(path)
    except ValueError as error:
        raise RecordError(str(error)) from None
