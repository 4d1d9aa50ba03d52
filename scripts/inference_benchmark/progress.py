"""One line per finished cell or study, from Snakemake's own log events, wherever the job ran."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from inference_benchmark.cells import Cell
from inference_benchmark.studies import Ceilings, ColumnStudy
from inference_benchmark.units import format_duration
from inference_benchmark.words import outcome_text, study_text

Subject = Cell | Ceilings | ColumnStudy
#: Rules whose jobs take a device and time.
RULES = ("measure", "ceilings", "max_batch", "divergence")


class CellLines(logging.Handler):
    """Prints ``[3/18] bloom-51m ... batch 4: 38.1 tok/s, 15 left, about 2 min`` as cells and studies end."""

    def __init__(
        self,
        planned: Mapping[str, Subject],
        write: Callable[[str], Any] = sys.stderr.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """planned: the cells and studies by the paths of their files."""
        super().__init__(logging.INFO)
        self.planned, self.write_line, self.clock = planned, write, clock
        self.several = len({subject.machine for subject in planned.values()}) > 1
        self.total = self.done = 0
        self.began = clock()
        self.jobs: dict[int, tuple[Subject, str]] = {}

    def emit(self, event: logging.LogRecord) -> None:
        try:
            self._hear(_kind(event), event)
        except Exception as error:  # a line that cannot be printed is no reason to stop measuring
            self.write_line(f"(no line for this cell: {error})\n")

    def _hear(self, kind: str, event: logging.LogRecord) -> None:
        if kind == "run_info":
            self.total, self.began = sum(event.stats.get(rule, 0) for rule in RULES), self.clock()
        elif kind == "job_info" and event.rule_name in RULES:
            path = str(event.output[0]).removesuffix(" (update)")
            self.jobs[event.jobid] = self.planned[path], " ".join(map(str, event.log))
        elif kind == "job_finished" and event.job_id in self.jobs:
            subject, _ = self.jobs.pop(event.job_id)
            words = outcome_text if isinstance(subject, Cell) else study_text
            self._line(subject, words(json.loads(Path(subject.path).read_bytes())))
        elif kind == "job_error" and event.jobid in self.jobs:
            subject, log = self.jobs.pop(event.jobid)
            self._line(subject, f"failed{_first_words(log)}, see {log}")

    def _line(self, subject: Subject, ending: str) -> None:
        self.done += 1
        left = self.total - self.done
        machine = f"{subject.machine}: " if self.several else ""
        line = f"[{self.done}/{self.total}] {machine}{subject.label}: {ending}"
        if left > 0:
            seconds_left = (self.clock() - self.began) / self.done * left
            line += f", {left} left, about {format_duration(seconds_left)}"
        self.write_line(line + "\n")


class JobChatter(logging.Filter):
    """Drops what Snakemake says before and after every single job; the line of the cell says it all.

    Snakemake's own ``quiet`` settings would also keep errors from the terminal, or events from us.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        said = _kind(record) in ("job_info", "job_started", "job_finished", "progress")
        return not said and record.msg != "Select jobs to execute..."


def _first_words(log: str) -> str:
    """`` (timeout)`` where a cell's log ends in that failure: what failed by itself, and what was stopped."""
    with suppress(OSError):
        found = re.findall(r"^\w+\.py: timeout", Path(log).read_text(errors="replace"), re.MULTILINE)
        return " (timeout)" if found else ""
    return ""


def attach(logger: logging.Logger, planned: Mapping[str, Subject], terse: bool) -> None:
    """Let Snakemake's logger print a line per cell and study; terse: and little else."""
    for handler in logger.handlers if terse else ():
        handler.addFilter(JobChatter())
    logger.addHandler(CellLines(planned))


def _kind(record: logging.LogRecord) -> str:
    """The name of a Snakemake log event, or ""."""
    event = getattr(record, "event", None)
    return getattr(event, "value", "")
