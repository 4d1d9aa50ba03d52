"""Records and studies measured elsewhere, brought into one results folder: none over another."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import VERSIONS, Ceilings, ColumnStudy
from inference_benchmark.records import record, study_files
from inference_benchmark.records.study_files import StudyError

#: What the names of files with measurements begin with; all else in a results folder is derived from them.
_NAMES = ("batch-", *(f"{kind}.json" for kind in VERSIONS))


@dataclass
class Merge:
    """What is to be done. copies: sources by their places. conflicts: (place, what stands there or comes from an
    earlier source, what else is to go there). problems: files that are none of ours, in words. same: how many files
    are there already."""

    copies: dict[Path, Path] = field(default_factory=dict)
    conflicts: list[tuple[Path, Path, Path]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    same: int = 0


def plan(sources: Sequence[Path], into: Path) -> Merge:
    """What merging results folders into one comes to. Reads only."""
    found = Merge()
    for source in sources:
        try:
            paths = list(_measurements(source))
        except OSError as error:
            found.problems.append(f"{error.filename}: {error.strerror}")
            continue
        if not paths:
            found.problems.append(f"{source}: holds no record; give a results folder, the one above MACHINE")
        for path in paths:
            try:
                _add(found, path, own_place(path), path.relative_to(source), into)
            except ValueError as error:
                found.problems.append(f"{path}: {error}")
            except OSError as error:
                found.problems.append(f"{path}: {error.strerror}")
    return found


def _add(found: Merge, path: Path, belongs: Path, stands: Path, into: Path) -> None:
    """Add a file to what is to be done."""
    place = into / belongs
    there = found.copies.get(place) or (place if os.path.lexists(place) else None)
    if stands != belongs:
        found.problems.append(f"{path}: is the record of {belongs}; move or rename it")
    elif there is None:
        found.copies[place] = path
    elif files.read(there) == files.read(path):
        found.same += 1
    else:
        found.conflicts.append((place, there, path))


def carry_out(copies: Mapping[Path, Path]) -> None:
    """Copy each file to its place; what stands there is kept beside it. Raises OSError."""
    for place, source in copies.items():
        files.write(files.read(source), place, keep_earlier=True)


def own_place(path: Path) -> Path:
    """Where a file with a measurement belongs in a results folder, by what it says itself.

    Raises ValueError where it is none, and OSError.
    """
    document = files.read_json(path)
    if isinstance(document, dict) and "study" in document:
        kind = str(document["study"].get("kind")) if isinstance(document["study"], dict) else ""
        if kind not in VERSIONS:
            raise StudyError(f"there is no study named {kind!r}")
        study_files.check(document, kind)
        cls = Ceilings if kind == "ceilings" else ColumnStudy
        subject = cls.from_json(json.dumps(document["study"]))
    else:
        record.check(document)
        subject = Cell.from_json(json.dumps(document["cell"]))
    return Path(subject.path).relative_to("results")


def described(path: Path) -> str:
    """A file, and where and when what it holds was measured, in words."""
    try:
        document = files.read_json(path)
        return f"{path} of {document['started_at']} on {document['host'].get('name')}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{path}, which is no record"


def _measurements(folder: Path) -> Iterator[Path]:
    """The files with measurements below a folder, in order; not those that were superseded."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if name not in ("preview", "comparison", "charts"))
        for name in sorted(names):
            if name.startswith(_NAMES) and name.endswith(".json") and ".superseded-" not in name:
                yield Path(parent, name)
