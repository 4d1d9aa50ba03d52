"""One line per finished cell, from Snakemake's own log events, wherever the job ran."""

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

from inference_benchmark import metrics
from inference_benchmark.cells import Cell, record_path
from inference_benchmark.units import format_duration

RULE = "measure"


def outcome_text(record: Mapping[str, Any]) -> str:
    """How a cell ended, in a few words: ``1,234.5 tok/s`` or ``oom during warm-up``."""
    if record["outcome"] == "oom":
        return f"oom during {record['reason']['phase']}"
    if record["outcome"] == "unsupported":
        return f"unsupported: {record['reason']['message']}"
    throughput = metrics.figures(record).throughput_tok_per_s
    width = throughput.half_width
    notes = [*record["stability"]["reasons"], *record["flags"]]
    text = f"{throughput.value:,.1f} tok/s" + (f" ± {width:.1%}" if width is not None else "")
    return text + (f" ({', '.join(note['name'] for note in notes)})" if notes else "")


class CellLines(logging.Handler):
    """Prints ``[3/18] bloom-51m ... batch 4: 38.1 tok/s, 2 min 10 s left`` as measure jobs end."""

    def __init__(
        self,
        cells: Mapping[str, Cell],
        write: Callable[[str], Any] = sys.stderr.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """cells: the planned cells by the paths of their records."""
        super().__init__(logging.INFO)
        self.cells, self.write_line, self.clock = cells, write, clock
        self.total = self.done = 0
        self.began = clock()
        self.jobs: dict[int, tuple[Cell, str]] = {}

    def emit(self, event: logging.LogRecord) -> None:
        try:
            self._hear(_kind(event), event)
        except Exception as error:  # a line that cannot be printed is no reason to stop measuring
            self.write_line(f"(no line for this cell: {error})\n")

    def _hear(self, kind: str, event: logging.LogRecord) -> None:
        if kind == "run_info":
            self.total, self.began = event.stats.get(RULE, 0), self.clock()
        elif kind == "job_info" and event.rule_name == RULE:
            cell = self.cells[record_path(**event.wildcards)]
            self.jobs[event.jobid] = cell, " ".join(map(str, event.log))
        elif kind == "job_finished" and event.job_id in self.jobs:
            cell, _ = self.jobs.pop(event.job_id)
            self._line(cell, outcome_text(json.loads(Path(cell.path).read_bytes())))
        elif kind == "job_error" and event.jobid in self.jobs:
            cell, log = self.jobs.pop(event.jobid)
            self._line(cell, f"failed{_first_words(log)}, see {log}")

    def _line(self, cell: Cell, ending: str) -> None:
        self.done += 1
        left = self.total - self.done
        line = f"[{self.done}/{self.total}] {cell.label}: {ending}"
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
        found = re.findall(r"^measure\.py: timeout", Path(log).read_text(errors="replace"), re.MULTILINE)
        return " (timeout)" if found else ""
    return ""


def attach(logger: logging.Logger, cells: Mapping[str, Cell], terse: bool) -> None:
    """Let Snakemake's logger print a line per cell; terse: and little else."""
    for handler in logger.handlers if terse else ():
        handler.addFilter(JobChatter())
    logger.addHandler(CellLines(cells))


def _kind(record: logging.LogRecord) -> str:
    """The name of a Snakemake log event, or ""."""
    event = getattr(record, "event", None)
    return getattr(event, "value", "")
