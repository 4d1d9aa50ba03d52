"""Records without a measurement of their own, which another cell's record decided, after that record was deleted."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from inference_benchmark import files
from inference_benchmark.records import record_file
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.record import OTHER_CELL


def derived_from_deleted(paths: Iterable[str]) -> list[str]:
    """The records among these that were derived from a record that was deleted.

    Only folders in which a record is missing are read.
    """
    by_folder = defaultdict(list)
    for path in paths:
        by_folder[os.path.dirname(path)].append(path)
    found = []
    for folder, together in by_folder.items():
        with suppress(OSError):
            names = set(os.listdir(folder))
            existing = [path for path in together if os.path.basename(path) in names]
            if len(existing) < len(together):
                found += [path for path in existing if _source_is_deleted(path)]
    return found


def _source_is_deleted(path: str) -> bool:
    with suppress(OSError, RecordError):
        # Most records are not derived. To check a record takes longer than to search its text.
        if OTHER_CELL.encode() in files.read(Path(path)):
            source = record_file.load(Path(path)).rests_on
            return source is not None and not source.exists()
    return False
