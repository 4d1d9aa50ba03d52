"""Records that were written because of the record of another cell, once that is gone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.records import record_file
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.record import OTHER_CELL


def resting_on_lost(paths: Iterable[str]) -> list[str]:
    """The records among these that rest on a record which is gone. Only folders where a record is missing are read."""
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(os.path.dirname(path), []).append(path)
    return [path for folder, together in by_folder.items() for path in _incomplete(folder, together) if _is_lost(path)]


def _incomplete(folder: str, paths: list[str]) -> list[str]:
    """Those of the paths in a folder that exist; none if all do."""
    try:
        names = set(os.listdir(folder))
    except OSError:
        return []
    existing = [path for path in paths if os.path.basename(path) in names]
    return existing if len(existing) < len(paths) else []


def _is_lost(path: str) -> bool:
    with suppress(OSError, RecordError):
        # Looked for before the record is checked: most rest on nothing.
        if OTHER_CELL.encode() in files.read(Path(path)):
            rests_on = record_file.load(Path(path)).rests_on
            return rests_on is not None and not rests_on.exists()
    return False
