"""Copies records that were measured elsewhere into one results folder. None is overwritten."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.experiment.outputs import DERIVED_FOLDERS
from inference_benchmark.experiment.studies import VERSIONS
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.record_file import load_any, readable

#: Beginnings of the names of records; everything else in a results folder is derived from records.
_NAMES = ("batch-", "timeline-batch-", *(f"{kind}.json" for kind in VERSIONS))


@dataclass
class Merge:
    """What a merge has to do. copies: sources by the places they go to. conflicts: (place, the record that is there or
    comes from an earlier source, the other record for it). problems: one line for each file that cannot be merged.
    notes: one line for each of two records of which the newer is taken. same: number of files that are there already.
    """

    copies: dict[Path, Path] = field(default_factory=dict)
    conflicts: list[tuple[Path, Path, Path]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    same: int = 0


def plan(sources: Sequence[Path], into: Path) -> Merge:
    """What has to be done to merge results folders into one. Writes nothing."""
    merge = Merge()
    for source in sources:
        try:
            paths = list(_record_files(source))
        except OSError as error:
            merge.problems.append(f"{error.filename}: {error.strerror}")
            continue
        if not paths:
            merge.problems.append(f"{source}: holds no record; give a results folder, the one above MACHINE")
        owns = {}
        for path in paths:
            try:
                owns[path] = own_place(path)
            except (RecordError, OSError) as error:
                merge.problems.append(f"{path}: {getattr(error, 'strerror', error)}")
        roots = {_root(path, own) for path, own in owns.items()}
        if len(roots) == 1 and None not in roots and not os.path.samefile(source, *roots):
            merge.problems.append(f"{source}: is not the folder above MACHINE; give {os.path.relpath(*roots)}")
            continue
        for path, own in owns.items():
            try:
                _add(merge, path, own, path.relative_to(source) == own, into)
            except (RecordError, OSError) as error:
                merge.problems.append(f"{path}: {getattr(error, 'strerror', error)}")
    return merge


def _root(path: Path, own: Path) -> str | None:
    """The results folder that a record is in its own place of; None if its path is another."""
    whole = os.path.abspath(path)
    return whole.removesuffix(f"/{own}") if whole.endswith(f"/{own}") else None


def _add(merge: Merge, path: Path, own: Path, is_in_place: bool, into: Path) -> None:
    """Add a record to the plan. Raises RecordError, and OSError."""
    place = into / own
    there = merge.copies.get(place) or (place if os.path.lexists(place) else None)
    if not is_in_place:
        merge.problems.append(f"{path}: is the record of {own}; move or rename it")
    elif there is None:
        merge.copies[place] = path
    elif files.read(there) == files.read(path):
        merge.same += 1
    elif own.name == "ceilings.json" and len(both := dict(readable((there, path), load_any))) == 2:
        # Each folder of a machine has its ceilings.
        older, newer = sorted(both, key=lambda each: both[each].ended_at)
        merge.notes.append(f"{place}: {described(newer)} is kept; it is newer than {described(older)}")
        if newer == path:
            merge.copies[place] = path
    else:
        merge.conflicts.append((place, there, path))


def carry_out(copies: Mapping[Path, Path]) -> None:
    """Copy each record to its place. A record that is there already is renamed. Raises OSError."""
    for place, source in copies.items():
        files.write(files.read(source), place, keep_earlier=True)


def own_place(path: Path) -> Path:
    """Where a record belongs in a results folder, from its content. Raises RecordError, and OSError."""
    return Path(load_any(path).subject.path).relative_to("results")


def described(path: Path) -> str:
    """A file with the time and host of its measurement, for a message."""
    try:
        document = files.read_json(path)
        return f"{path} of {document['started_at']} on {document['host'].get('name')}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{path}, which is no record"


def _record_files(folder: Path) -> Iterator[Path]:
    """The records below a folder, in order, without those that were superseded."""

    def refuse(error: OSError) -> None:
        raise error

    walked = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        # A link may lead to a folder that is walked anyway, or back to one above it.
        folders[:] = sorted(name for name in folders if os.path.realpath(os.path.join(parent, name)) not in walked)
        walked |= {os.path.realpath(os.path.join(parent, name)) for name in folders}
        is_derived = os.path.basename(parent) in DERIVED_FOLDERS and len(Path(parent).relative_to(folder).parts) == 2
        for name in () if is_derived else sorted(names):
            if name.startswith(_NAMES) and name.endswith(".json") and ".superseded-" not in name:
                yield Path(parent, name)
