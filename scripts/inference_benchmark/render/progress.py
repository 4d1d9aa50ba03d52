"""One line per finished cell or study, made from Snakemake's log events, wherever the job ran; at the end of a run that
is not complete, what is missing and why; and at the end of a dry run, how long the run will take.
"""

from __future__ import annotations

import atexit
import logging
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inference_benchmark.cli import printable
from inference_benchmark.experiment.cells import log_path
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.records import estimate, record_file
from inference_benchmark.records.attempts import FINAL, Attempt, AttemptLog
from inference_benchmark.render.one_line import record_text
from inference_benchmark.units import format_duration

#: The rules that measure, each with one cell or study as its output.
MEASURING_RULES = ("measure", "ceilings", "max_batch", "divergence", "timeline")
#: How Snakemake's messages begin that say no more than our lines.
_REDUNDANT = (
    "Select jobs to execute",
    "Cannot restore ",
    "Trying to restart job",
    "RuleException:\nCalledProcessError in file",
    "Exiting because a job execution failed",
    "--keep-incomplete mode is set",
    "WorkflowError:\nAt least one job did not complete",
)
#: What each outcome is called at the end of a run.
_OUTCOMES = {"ok": "measured", "oom": "out of memory", "unsupported": "not supported"}
#: How many messages of a failed job are shown at the end of a run.
_SHOWN_MESSAGES = 5
#: How many lines of the log of a failed job are shown.
_TAIL_LINES = 12


class _Failure(NamedTuple):
    """What Snakemake says of a failed job: the scheduler's number for it, the scheduler's logs, and a message."""

    job: str | None
    logs: Sequence[str]
    message: str | None


class ProgressHandler(logging.Handler):
    """Prints ``[3/18] bloom-51m ... batch 4: 38.1 tok/s, 15 left, about 2 min`` as cells and studies end."""

    def __init__(
        self,
        planned: Mapping[str, Subject],
        attempts: AttemptLog,
        runs_jobs: Callable[[], bool] = lambda: True,
        only_plans: Callable[[], bool] = lambda: False,
        retries: Callable[[], int] = lambda: 0,
        rules: Sequence[str] = MEASURING_RULES,
        write: Callable[[str], Any] = sys.stderr.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """planned: the cells and studies by the paths of their records. runs_jobs: whether Snakemake does more than to
        plan or to touch files. only_plans: whether it is a dry run. retries: how often a failed job is repeated. All
        three are known once Snakemake begins.

        rules: the names of the rules that measure.
        """
        super().__init__(logging.INFO)
        self.planned, self.attempts, self.retries, self.rules = planned, attempts, retries, rules
        self.runs_jobs, self.only_plans, self.write_line, self.clock = runs_jobs, only_plans, write, clock
        self.several_machines = len({subject.setup.machine for subject in planned.values()}) > 1
        self.total = 0
        self.began = clock()
        self.running: dict[int, Subject] = {}
        self.would_run: list[Subject] = []
        self.group_failures: dict[int, _Failure] = {}
        self.ended: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.failures: dict[str, str] = {}

    def emit(self, event: logging.LogRecord) -> None:
        try:
            self._receive(_kind(event), event)
        except Exception as error:  # a line that cannot be printed is no reason to stop measuring
            self.write_line(f"(no line for this cell: {error})\n")

    def _receive(self, kind: str, event: logging.LogRecord) -> None:
        if kind == "job_info" and self.only_plans() and (subject := self._subject(event)):
            self.would_run.append(subject)
        if not self.runs_jobs():
            return
        if kind == "run_info":
            self.total = sum(event.stats.get(rule, 0) for rule in self.rules)
            self.began = self.clock()
        elif kind == "job_info" and (subject := self._subject(event)):
            self.running[event.jobid] = subject
            self.attempts.begin(subject)
        elif kind == "job_finished" and event.job_id in self.running:
            self._finish(self.running.pop(event.job_id))
        elif kind == "group_error":
            failure = _Failure(getattr(event, "external_jobid", None), event.aux_logs, "it did not become a job")
            self.group_failures |= {job["jobid"]: failure for job in event.job_error_info}
        elif kind == "job_error" and event.jobid in self.running:
            message = (event.rule_msg or "").partition("\n")[0]
            failure = _Failure(event.aux.get("external_jobid"), event.log[1:], message)
            self._fail(self.running.pop(event.jobid), self.group_failures.pop(event.jobid, failure))
        elif kind == "job_error" and _explains_itself(event):
            log = event.log[0]
            self.failures[log] = _failed(f"{event.rule_name}, see {log}", _messages(Path(log)))

    def _subject(self, event: logging.LogRecord) -> Subject | None:
        """The cell or study of a job; None for a job that does not measure."""
        output = next(iter(event.output), "")
        return self.planned.get(str(output).removesuffix(" (update)"))

    def _finish(self, subject: Subject) -> None:
        finished = record_file.load_any(Path(subject.path))
        if subject.path not in self.ended:
            self.outcomes[finished.outcome] += 1
        self._end(subject, printable(record_text(finished)))

    def _fail(self, subject: Subject, failure: _Failure) -> None:
        retries = self.retries()
        message = failure.message if failure.job is None else None
        attempt = self.attempts.fail(subject, failure.job, message, retries)
        if attempt.finished:  # another cell of its job failed
            self._finish(subject)
        elif attempt.attempt <= retries and not attempt.final:
            self._print(subject, f"failed{_why(attempt)}, attempt {attempt.attempt + 1} of {retries + 1} follows")
        elif subject.path not in self.ended:
            logs = [log for log in map(str, (log_path(subject.path), *failure.logs)) if Path(log).exists()]
            see = f", see {' and '.join(logs)}" if logs else ""
            self.failures[subject.path] = _failed(f"{subject.label}{see}", [_reason(attempt)])
            self._end(subject, f"failed{_why(attempt)}{see}")
            self.write_line(_tail(Path(attempt.log)))

    def _end(self, subject: Subject, ending: str) -> None:
        """The line of a cell or study that has come to its end, with what is left."""
        if subject.path in self.ended:
            return
        self.ended.add(subject.path)
        left = self.total - len(self.ended)
        if left > 0:
            seconds_left = (self.clock() - self.began) / len(self.ended) * left
            ending += f", {left} left, about {format_duration(seconds_left)}"
        self._print(subject, ending)

    def summary(self, command: str) -> str:
        """What a run has measured, what is missing and why; "" where nothing is missing.

        command: the one that was run.
        """
        failed = sum(path in self.planned for path in self.failures)
        missing = max(0, self.total - len(self.ended))
        if not self.failures and not missing:
            return ""
        counts = [f"{self.outcomes[outcome]} {name}" for outcome, name in _OUTCOMES.items() if self.outcomes[outcome]]
        counts += [f"{n} {name}" for n, name in ((failed, "failed"), (missing, "not reached")) if n]
        lines = [f"Cells and studies: {', '.join(counts)}."] if self.total else []
        return "\n".join([*lines, *self.failures.values(), f"To go on, with what is missing: {command}"]) + "\n"

    def estimate(self) -> str:
        """How long the cells and studies of a dry run will take; "" where there are none."""
        if not self.would_run:
            return ""
        machines = dict.fromkeys(subject.setup.machine for subject in self.would_run)
        total = estimate.estimate(self.would_run, estimate.earlier_records(machines))
        text = f"Estimated time: {format_duration(total.seconds)} for {len(self.would_run)} cells and studies"
        text += f", one after the other. By earlier records: {total.known}"
        if total.unknown:
            text += f"; without a record of their like: {total.unknown}, with {estimate.START_S} s to start"
            text += " and max_seconds for each timed part"
        return f"{text}.\n"

    def _print(self, subject: Subject, text: str) -> None:
        machine = f"{subject.setup.machine}: " if self.several_machines else ""
        self.write_line(f"[{len(self.ended)}/{self.total}] {machine}{subject.label}: {text}\n")


class RedundantMessages(logging.Filter):
    """Drops what Snakemake says before and after every single job, also of failed cells; our lines say it all.

    Snakemake's own ``quiet`` settings would also keep other errors from the terminal, or events from us.
    """

    def filter(self, event: logging.LogRecord) -> bool:
        kind = _kind(event)
        if kind == "job_error":
            return event.rule_name not in MEASURING_RULES and not _explains_itself(event)
        redundant = ("job_info", "job_started", "job_finished", "progress", "group_info", "group_error")
        return kind not in redundant and not str(event.msg).startswith(_REDUNDANT)


def attach_progress(
    logger: logging.Logger,
    planned: Mapping[str, Subject],
    attempts: AttemptLog,
    runs_jobs: Callable[[], bool],
    only_plans: Callable[[], bool],
    retries: Callable[[], int],
    rules: Sequence[str] = MEASURING_RULES,
    terse: bool = True,
) -> None:
    """Let Snakemake's logger print a line per cell and study; terse: and little else. Once for the same cells.

    rules: the names of MEASURING_RULES; others where they are rules of a module.
    """
    if any(isinstance(each, ProgressHandler) and each.planned == planned for each in logger.handlers):
        return  # each "use rule" of another workflow comes by here
    progress = ProgressHandler(planned, attempts, runs_jobs, only_plans, retries, rules)
    if terse:
        for handler in logger.handlers:
            handler.addFilter(RedundantMessages())
        # After all that Snakemake has to say.
        command = shlex.join(["snakemake", *sys.argv[1:]])
        atexit.register(lambda: sys.stderr.write(progress.estimate() + progress.summary(command)))
    logger.addHandler(progress)


def _why(attempt: Attempt) -> str:
    """`` (TIMEOUT on gpu07: ...)``: what the scheduler and the log say of a failure. `` (timeout)``: the cell's own
    time was up. Any other failure of the cell itself is in the end of the log, which is shown."""
    text = _reason(attempt)
    if attempt.final:
        return " (timeout)" if text.startswith("timeout") else ""
    return printable(f" ({text})") if text else ""


def _reason(attempt: Attempt) -> str:
    """What the scheduler and the log say of a failure."""
    line = re.sub(r"^\w+\.py: ", "", (attempt.said or "").removesuffix(FINAL))
    where = f"{attempt.state} on {attempt.node}" if attempt.node else attempt.state
    return ": ".join(filter(None, [where, line]))


def _failed(label: str, messages: Sequence[str]) -> str:
    return printable("\n    ".join([f"Failed: {label}", *filter(None, messages)]))


def _explains_itself(event: logging.LogRecord) -> bool:
    """Whether a failed job is one of a script that only reads and has said in its log why it failed."""
    return event.rule_name not in MEASURING_RULES and bool(event.log) and bool(_messages(Path(event.log[0])))


def _messages(log: Path) -> list[str]:
    """The error messages of a script in its log, without the script's name; of many, the first few."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return []
    messages = re.findall(r"^\w+\.py: (.*)", text, re.MULTILINE)
    left_out = len(messages) - _SHOWN_MESSAGES
    return messages if left_out <= 1 else [*messages[: _SHOWN_MESSAGES - 1], f"... {left_out} more", messages[-1]]


def _tail(log: Path) -> str:
    """The end of a log, indented."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    except OSError:
        return ""
    return "".join(f"    {printable(line)}\n" for line in lines)


def _kind(event: logging.LogRecord) -> str:
    """The name of a Snakemake log event, or ""."""
    return getattr(getattr(event, "event", None), "value", "")
