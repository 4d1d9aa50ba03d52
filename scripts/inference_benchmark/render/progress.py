"""One line per finished cell or study, from Snakemake's own log events, wherever the job ran."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inference_benchmark.cli import printable
from inference_benchmark.experiment.cells import Cell, log_path
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.records.attempts import FINAL, Attempt, Ledger
from inference_benchmark.render.one_line import outcome_text, study_text
from inference_benchmark.units import format_duration

#: Rules whose jobs take a device and time.
RULES = ("measure", "ceilings", "max_batch", "divergence")
#: How messages begin that say nothing more than our lines.
_CHATTER = ("Select jobs to execute", "Cannot restore ", "Trying to restart job")
#: How much of the log of a failed one is shown; the rest is in the log.
_TAIL_LINES = 12


class _End(NamedTuple):
    """What Snakemake says of a failed job: the scheduler's number for it, the scheduler's logs, and in words."""

    job: str | None
    logs: Sequence[str]
    message: str | None


class CellLines(logging.Handler):
    """Prints ``[3/18] bloom-51m ... batch 4: 38.1 tok/s, 15 left, about 2 min`` as cells and studies end."""

    def __init__(
        self,
        planned: Mapping[str, Subject],
        ledger: Ledger,
        retries: Callable[[], int] = lambda: 0,
        write: Callable[[str], Any] = sys.stderr.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """planned: the cells and studies by the paths of their files. retries: how often a failed one is repeated."""
        super().__init__(logging.INFO)
        self.planned, self.ledger, self.retries = planned, ledger, retries
        self.write_line, self.clock = write, clock
        self.several = len({subject.machine for subject in planned.values()}) > 1
        self.total = 0
        self.began = clock()
        self.jobs: dict[int, Subject] = {}
        self.group_ends: dict[int, _End] = {}
        self.told: set[str] = set()

    def emit(self, event: logging.LogRecord) -> None:
        try:
            self._hear(_kind(event), event)
        except Exception as error:  # a line that cannot be printed is no reason to stop measuring
            self.write_line(f"(no line for this cell: {error})\n")

    def _hear(self, kind: str, event: logging.LogRecord) -> None:
        if kind == "run_info":
            self.total, self.began = sum(event.stats.get(rule, 0) for rule in RULES), self.clock()
        elif kind == "job_info" and event.rule_name in RULES:
            subject = self.planned[str(event.output[0]).removesuffix(" (update)")]
            self.jobs[event.jobid] = subject
            self.ledger.begin(subject)
        elif kind == "job_finished" and event.job_id in self.jobs:
            self._finish(self.jobs.pop(event.job_id))
        elif kind == "group_error":
            end = _End(getattr(event, "external_jobid", None), event.aux_logs, "it did not become a job")
            self.group_ends |= {job["jobid"]: end for job in event.job_error_info}
        elif kind == "job_error" and event.jobid in self.jobs:
            message = (event.rule_msg or "").partition("\n")[0]
            told = _End(event.aux.get("external_jobid"), event.log[1:], message)
            self._fail(self.jobs.pop(event.jobid), self.group_ends.pop(event.jobid, told))

    def _finish(self, subject: Subject) -> None:
        words = outcome_text if isinstance(subject, Cell) else study_text
        self._line(subject, printable(words(json.loads(Path(subject.path).read_bytes()))))

    def _fail(self, subject: Subject, end: _End) -> None:
        retries = self.retries()
        attempt = self.ledger.fail(subject, end.job, end.message if end.job is None else None, retries)
        if attempt.finished:  # another cell of its job failed
            self._finish(subject)
        elif attempt.attempt <= retries and not attempt.final:
            self._say(subject, f"failed{_why(attempt)}, attempt {attempt.attempt + 1} of {retries + 1} follows")
        elif subject.path not in self.told:
            logs = [log for log in map(str, (log_path(subject.path), *end.logs)) if Path(log).exists()]
            self._line(subject, f"failed{_why(attempt)}" + (f", see {' and '.join(logs)}" if logs else ""))
            self.write_line(_tail(Path(attempt.log)))

    def _line(self, subject: Subject, ending: str) -> None:
        """The line of one that has come to its end, and what is left."""
        if subject.path in self.told:
            return
        self.told.add(subject.path)
        left = self.total - len(self.told)
        if left > 0:
            seconds_left = (self.clock() - self.began) / len(self.told) * left
            ending += f", {left} left, about {format_duration(seconds_left)}"
        self._say(subject, ending)

    def _say(self, subject: Subject, words: str) -> None:
        machine = f"{subject.machine}: " if self.several else ""
        self.write_line(f"[{len(self.told)}/{self.total}] {machine}{subject.label}: {words}\n")


class JobChatter(logging.Filter):
    """Drops what Snakemake says before and after every single job, of failed cells too; our line says it all.

    Snakemake's own ``quiet`` settings would also keep other errors from the terminal, or events from us.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        kind = _kind(record)
        if kind == "job_error":
            return record.rule_name not in RULES
        chatter = ("job_info", "job_started", "job_finished", "progress", "group_info", "group_error")
        return kind not in chatter and not str(record.msg).startswith(_CHATTER)


def _why(attempt: Attempt) -> str:
    """`` (TIMEOUT on gpu07)``: what the scheduler says of it, and what it says itself; `` (timeout)``: the cell's own
    time was up. Any other failure of the cell itself is in the log, which is shown."""
    said = (attempt.said or "").removesuffix(FINAL)
    if attempt.final:
        return " (timeout)" if re.match(r"\w+\.py: timeout", said) else ""
    where = f"{attempt.state} on {attempt.node}" if attempt.node else attempt.state
    told = ": ".join(filter(None, [where, re.sub(r"^\w+\.py: ", "", said)]))
    return printable(f" ({told})") if told else ""


def _tail(log: Path) -> str:
    """The end of a log, to be read below a line."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    except OSError:
        return ""
    return "".join(f"    {printable(line)}\n" for line in lines)


def attach(
    logger: logging.Logger, planned: Mapping[str, Subject], ledger: Ledger, retries: Callable[[], int], terse: bool
) -> None:
    """Let Snakemake's logger print a line per cell and study; terse: and little else."""
    for handler in logger.handlers if terse else ():
        handler.addFilter(JobChatter())
    logger.addHandler(CellLines(planned, ledger, retries))


def _kind(record: logging.LogRecord) -> str:
    """The name of a Snakemake log event, or ""."""
    event = getattr(record, "event", None)
    return getattr(event, "value", "")
