"""Attempts at a cell or study: what became of one is told to the next, and stands in the record that comes of it.

Snakemake repeats a job that failed as often as --retries says (profiles/slurm does). It knows nothing of why one
failed, and the next attempt knows nothing of it at all. So where Snakemake runs, each failed attempt is noted beside
the log; the attempt that follows reads the notes, and goes no further where that would be of no use: the record is
there already (another cell of the same job had failed), or the cell failed by itself and would again.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.experiment.cells import Cell, log_path
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.machine import slurm
from inference_benchmark.records import record, study_files
from inference_benchmark.records.record import RecordError
from inference_benchmark.records.study_files import StudyError

#: What ends the last line of a log that tells a failure of the cell itself.
FINAL = "; not tried again"
#: What a script of ours says last when it fails, and what an exception ends with.
_LAST_WORDS = re.compile(r"^(?:\w+\.py: |\w*(?:Error|Exception|Interrupt)\b).*", re.MULTILINE)


@dataclass(frozen=True)
class Attempt:
    """One that failed.

    ended_at: ISO 8601, when Snakemake learnt of it. job, state, node: the scheduler's number for it, what it calls its
    end, and where it ran. said: the last line of its log that tells a failure, or why there is none. log: where that
    log is kept. finished: it had left its record.
    """

    attempt: int
    ended_at: str
    job: str | None
    state: str | None
    node: str | None
    said: str | None
    log: str
    finished: bool

    @property
    def final(self) -> bool:
        """Whether the cell failed by itself, so that the next attempt would too."""
        return bool(self.said and self.said.endswith(FINAL))

    def for_record(self) -> dict[str, Any]:
        """What a record keeps of it."""
        return {name: value for name, value in asdict(self).items() if name not in ("log", "finished")}


class Ledger:
    """Notes what becomes of attempts, where Snakemake runs. forget: makes Snakemake forget its copy of an output."""

    def __init__(self, forget: Callable[[Path], Any] = lambda path: None) -> None:
        self.forget = forget
        self.before: dict[str, Any] = {}
        self.failed: dict[str, list[Attempt]] = {}

    def begin(self, subject: Subject) -> None:
        """An attempt is about to start."""
        self.before[subject.path] = _stamp(Path(subject.path)), _stamp(log_path(subject.path))

    def fail(self, subject: Subject, job: str | None, message: str | None, retries: int) -> Attempt:
        """An attempt has failed: note it for the next, if there is to be one.

        job: the scheduler's number for it. message: what is known where it wrote no log. retries: how many may follow
        the first attempt.

        An earlier record that was to be replaced, being of other settings, is set aside: Snakemake takes note of
        today's settings all the same, and would not do it again.
        """
        output, log, earlier = Path(subject.path), log_path(subject.path), self.failed.setdefault(subject.path, [])
        output_before, log_before = self.before[subject.path]
        there = _stamp(output)
        finished = there is not None and (there != output_before or any(attempt.finished for attempt in earlier))
        if there and not finished and not _is_of(subject, output):
            files.set_aside(output)
            self.forget(output)
        number, now = len(earlier) + 1, datetime.now(UTC).isoformat(timespec="seconds")
        state, node = slurm.ending(job) if job else (None, None)
        said = last_words(log) if _stamp(log) != log_before else None
        if number <= retries and log.exists():  # the next attempt begins with an empty one
            log = Path(shutil.copy(log, log.with_suffix(f".attempt-{number}.log")))
        earlier.append(Attempt(number, now, job, state, node, said or message, str(log), finished))
        if number <= retries:
            files.write(json.dumps([asdict(each) for each in earlier], indent=1) + "\n", _notes(output))
        return earlier[-1]


def earlier(output: Path, attempt: int) -> list[Attempt]:
    """The attempts before this one; as far as there are notes of them."""
    if attempt == 1:
        return []
    try:
        noted = [Attempt(**each) for each in files.read_json(_notes(output))]
    except (OSError, ValueError, TypeError):
        return []
    return noted[: attempt - 1]


def last_words(log: Path) -> str | None:
    """The last line of a log that tells a failure; None where there is no such line or no log."""
    try:
        words = _LAST_WORDS.findall(log.read_text(errors="replace"))
    except OSError:
        return None
    return words[-1] if words else None


def _notes(output: Path) -> Path:
    return log_path(str(output)).with_suffix(".attempts.json")


def _is_of(subject: Subject, output: Path) -> bool:
    """Whether a file is a record of exactly this."""
    try:
        (record if isinstance(subject, Cell) else study_files).load_for(subject, output)
    except (RecordError, StudyError, OSError):
        return False
    return True


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        known = path.stat()
    except OSError:
        return None
    return known.st_ino, known.st_mtime_ns
