"""Failed attempts at a cell or study: noted for the next attempt, and kept in the record of the one that succeeds.

Snakemake does the retries (--retries, which profiles/slurm sets) without knowing why a job failed. So the process that
runs Snakemake notes each failed attempt beside the log. The next attempt reads the notes. It ends at once where the
record exists already, because another cell of the same job had failed, and where the cell itself was at fault and would
fail again.
"""

import json
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.experiment.cells import log_path
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.machine import slurm
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.record_file import load_for, of_other_settings

#: What changes when a file is written anew; None where there is no file.
_Stamp = tuple[int, int] | None
#: Ends the last line of a log where the cell itself was at fault.
FINAL = "; not tried again"
#: The line in which a script of ours, or an exception, says why it failed.
_FAILURE = re.compile(r"^(?:\w+\.py: |\w*(?:Error|Exception|Interrupt)\b).*", re.MULTILINE)


@dataclass(frozen=True)
class Attempt:
    """A failed attempt (parts.FailedAttempt). log: where its log is kept. finished: the attempt had left its record."""

    attempt: int
    ended_at: str
    job: str | None
    state: str | None
    node: str | None
    said: str | None
    log: str
    finished: bool

    @property
    def reason(self) -> str:
        """What the scheduler and the log say: ``TIMEOUT on gpu07: ...``."""
        where = f"{self.state} on {self.node}" if self.node else self.state
        return ": ".join(filter(None, [where, message_of(self.said or "")]))

    @property
    def final(self) -> bool:
        """Whether the cell itself was at fault, so that the next attempt would fail too."""
        return bool(self.said and self.said.endswith(FINAL))

    @property
    def is_interruption(self) -> bool:
        """Whether Ctrl-C or a closed terminal ended it. A scheduler sends its jobs such signals at a time limit."""
        return self.job is None and re.search("SIGINT|SIGHUP|KeyboardInterrupt", self.said or "") is not None

    def for_record(self) -> dict[str, Any]:
        """The part of it that a record keeps."""
        return {name: value for name, value in asdict(self).items() if name not in ("log", "finished")}


class AttemptLog:
    """Notes failed attempts, in the process that runs Snakemake."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[Subject, _Stamp, _Stamp]] = {}
        self._failed: dict[str, list[Attempt]] = {}

    def begin(self, subject: Subject) -> None:
        """An attempt is about to start."""
        self._begun[subject.path] = subject, _stamp(Path(subject.path)), _stamp(log_path(subject.path))

    def fail(self, subject: Subject, job: str | None, message: str | None, retries: int) -> Attempt:
        """An attempt has failed: note it for the next one, if there will be one. job: the scheduler's number for it.
        message: Snakemake's, where the attempt wrote no log. retries: how many attempts may follow the first."""
        output, log, earlier = Path(subject.path), log_path(subject.path), self._failed.setdefault(subject.path, [])
        *_, log_before = self._begun[subject.path]
        finished = self.has_recorded(subject)
        number, now = len(earlier) + 1, datetime.now(UTC).isoformat(timespec="seconds")
        state, node = slurm.ending(job) if job else (None, None)
        failure = failure_line(log) if _stamp(log) != log_before else None
        if number <= retries and log.exists():  # the next attempt begins with an empty one
            log = Path(shutil.copy(log, log.with_suffix(f".attempt-{number}.log")))
        earlier.append(Attempt(number, now, job, state, node, failure or message, str(log), finished))
        if number <= retries:
            files.write(json.dumps([asdict(each) for each in earlier], indent=1) + "\n", _notes(output))
        return earlier[-1]

    def has_recorded(self, subject: Subject) -> bool:
        """Whether one of the attempts so far has left the record."""
        output, (_, before, _) = Path(subject.path), self._begun[subject.path]
        is_new = _stamp(output) != before or any(each.finished for each in self._failed.get(subject.path, ()))
        return is_new and _is_of(subject, output)

    def outdated(self) -> list[str]:
        """The paths of those that were attempted and have a record of other settings."""
        return of_other_settings(subject for subject, *_ in self._begun.values())


def earlier(output: Path, attempt: int) -> list[Attempt]:
    """The attempts before this one, as far as they were noted."""
    if attempt > 1:
        with suppress(OSError, ValueError, TypeError):
            return [Attempt(**each) for each in files.read_json(_notes(output))][: attempt - 1]
    return []


def failure_line(log: Path) -> str | None:
    """The last line of a log that reports a failure; None where there is no such line or no log."""
    with suppress(OSError):
        return next(reversed(_FAILURE.findall(log.read_text(encoding="utf-8", errors="replace"))), None)
    return None


def message_of(line: str) -> str:
    """A failure line without what is no reason."""
    return re.sub(r"^\w+\.py: ", "", line.removesuffix(FINAL))


def _notes(output: Path) -> Path:
    return log_path(str(output)).with_suffix(".attempts.json")


def _is_of(subject: Subject, output: Path) -> bool:
    """Whether a file is a record of exactly this cell or study."""
    with suppress(RecordError, OSError):
        return bool(load_for(subject, output))
    return False


def _stamp(path: Path) -> _Stamp:
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns
    return None
