"""The lines that a run prints: one per finished cell or study, wherever the job ran; at the end of an incomplete run,
what is missing and why; and at the end of a dry run, how long the run will take.
"""

from __future__ import annotations

import atexit
import logging
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from snakemake_interface_logger_plugins.common import LogEvent

from inference_benchmark import files
from inference_benchmark.cli import printable
from inference_benchmark.experiment.cells import log_path
from inference_benchmark.experiment.plan import Plan
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.records import estimate, record_file, threads
from inference_benchmark.records.attempts import Attempt, AttemptLog
from inference_benchmark.render.one_line import next_steps, record_text
from inference_benchmark.units import format_duration

#: The rules that measure, each with one cell or study as its output.
MEASURING_RULES = ("measure", "ceilings", "max_batch", "divergence", "timeline")
#: The rules that make pages of results.
_PAGE_RULES = ("report", "report_of_all")
#: How many cells and studies have to end before they tell how long the others will take.
_LEAST_ENDED = 3
#: Snakemake's events that say no more than our lines.
_REDUNDANT_EVENTS = {LogEvent.JOB_INFO, LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS}
_REDUNDANT_EVENTS |= {LogEvent.GROUP_INFO, LogEvent.GROUP_ERROR}
#: How Snakemake's other messages begin that say no more than our lines.
_REDUNDANT = (
    "Select jobs to execute",
    "Cannot restore ",
    "Trying to restart job",
    "RuleException:\nCalledProcessError in file",
    "Exiting because a job execution failed",
    "DAG of jobs will be updated after completion",
    "Updating checkpoint dependencies",
    "--keep-incomplete mode is set",
    "WorkflowError:\nAt least one job did not complete",
)
#: What each outcome is called at the end of a run.
_OUTCOMES = {"ok": "measured", "oom": "out of memory", "unsupported": "not supported"}
#: How many messages of a failed job are shown at the end of a run, and how many lines of its log.
_SHOWN_MESSAGES, _TAIL_LINES = 5, 12
#: What Snakemake says of a failed job: the scheduler's number for it, the scheduler's logs, and a message.
_Failure = tuple[str | None, Sequence[str], str]


class ProgressHandler(logging.Handler):
    """Prints ``[3/18] bloom-51m ... batch 4: 38.1 tok/s, 15 left, about 2 min`` as cells and studies end.

    attempts: is told of every attempt. mode: what Snakemake does; retries: how often it repeats a failed job;
    unfinished: the outputs of all jobs that are still to be run.
    """

    def __init__(
        self,
        plan: Plan,
        attempts: AttemptLog,
        mode: Callable[[], Literal["plan", "touch", "run"]],
        retries: Callable[[], int],
        unfinished: Callable[[], Iterable[str]],
        write: Callable[[str], Any] = sys.stderr.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logging.INFO)
        self.plan, self.attempts, self.mode, self.retries, self.unfinished = plan, attempts, mode, retries, unfinished
        self.write_line, self.clock, self.began = write, clock, clock()
        self.expected: set[str] = set()
        self.running: dict[int, Subject] = {}
        self.would_run: list[Subject] = []
        self.would_decide: list[str] = []
        self.group_failures: dict[int, _Failure] = {}
        self.ended: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.pages: dict[int, str] = {}
        self.made: list[str] = []

    def emit(self, event: logging.LogRecord) -> None:
        try:
            self._receive(event)
        except Exception as error:  # a line that cannot be printed is no reason to stop measuring
            self.write_line(f"(no line for this cell: {error})\n")

    def _receive(self, event: Any) -> None:
        match getattr(event, "event", None):
            case LogEvent.RUN_INFO:
                self._expect_unfinished()
                self.began = self.clock()
            case LogEvent.JOB_INFO if subject := self.plan.subject(path := _output(event)):
                if self.mode() == "plan":
                    self.would_run.append(subject)
                elif self.mode() == "run":
                    if path not in self.expected:  # of a further round, which was decided meanwhile
                        self._expect_unfinished()
                    self.running[event.jobid] = subject
                    self.attempts.begin(subject)
            case LogEvent.JOB_INFO if self.mode() == "plan":
                self.would_decide.append(path)
            case LogEvent.JOB_INFO if event.rule_name in _PAGE_RULES and self.mode() == "run":
                self.pages[event.jobid] = path
            case LogEvent.JOB_FINISHED if event.job_id in self.pages:
                self.made.append(self.pages.pop(event.job_id))
            case LogEvent.JOB_FINISHED if event.job_id in self.running:
                self._finish(self.running.pop(event.job_id))
            case LogEvent.GROUP_ERROR:
                failure = getattr(event, "external_jobid", None), event.aux_logs, "it did not become a job"
                self.group_failures |= {job["jobid"]: failure for job in event.job_error_info}
            case LogEvent.JOB_ERROR if event.jobid in self.running:
                failure = event.aux.get("external_jobid"), event.log[1:], (event.rule_msg or "").partition("\n")[0]
                self._fail(self.running.pop(event.jobid), self.group_failures.pop(event.jobid, failure))
            case LogEvent.JOB_ERROR if messages := _explanation(event):
                self.failures[event.log[0]] = _failed(f"{event.rule_name}, see {event.log[0]}", messages)

    def _expect_unfinished(self) -> None:
        self.expected |= {path for path in self.unfinished() if self.plan.subject(path)}

    @property
    def total(self) -> int:
        return len(self.expected)

    def _finish(self, subject: Subject) -> None:
        if subject.path not in self.ended:
            finished = record_file.load_any(Path(subject.path))
            self.outcomes[finished.outcome] += 1
            self._end(subject, printable(record_text(finished)))

    def _fail(self, subject: Subject, failure: _Failure) -> None:
        (job, scheduler_logs, message), retries = failure, self.retries()
        attempt = self.attempts.fail(subject, job, message if job is None else None, retries)
        if attempt.finished:  # another cell of its job failed
            self._finish(subject)
        elif attempt.attempt <= retries and not attempt.final:
            self._print(subject, f"failed{_why(attempt)}, attempt {attempt.attempt + 1} of {retries + 1} follows")
        elif subject.path not in self.ended:
            logs = [log for log in map(str, (log_path(subject.path), *scheduler_logs)) if Path(log).exists()]
            see = f", see {' and '.join(logs)}" if logs else ""
            self.failures[subject.path] = _failed(f"{subject.label}{see}", [attempt.reason])
            self._end(subject, f"failed{_why(attempt)}{see}")
            self.write_line("".join(f"    {printable(line)}\n" for line in _lines(attempt.log)[-_TAIL_LINES:]))

    def _end(self, subject: Subject, ending: str) -> None:
        """Print the line of a cell or study that has ended, with what is left."""
        self.ended.add(subject.path)
        left, n_ended = self.total - len(self.ended), len(self.ended)
        if left > 0:
            ending += f", {left} left"
        if left > 0 and n_ended >= _LEAST_ENDED:
            ending += f", about {format_duration((self.clock() - self.began) / n_ended * left)}"
        self._print(subject, ending)

    def _print(self, subject: Subject, text: str) -> None:
        machine = f"{subject.setup.machine}: " if len(self.plan.machines) > 1 else ""
        self.write_line(f"[{len(self.ended)}/{self.total}] {machine}{subject.label}: {text}\n")

    def ending(self, command: str) -> str:
        """What is printed at the end of a run or dry run by this command; "" if there is nothing to say."""
        return self._estimate() if self.mode() == "plan" else self.summary(command) if self.mode() == "run" else ""

    def summary(self, command: str) -> str:
        """What a run has measured, what is missing and why; if nothing is, the best of it, the pages that it made, and
        what would make its figures more certain."""
        failed = sum(self.plan.subject(path) is not None for path in self.failures)
        missing = max(0, self.total - len(self.ended))
        if not self.failures and not missing:
            steps = self._next_steps() if self.ended else ()
            return "".join(f"{line}\n" for line in (*self._results(), *steps))
        counts = [f"{self.outcomes[outcome]} {name}" for outcome, name in _OUTCOMES.items() if self.outcomes[outcome]]
        counts += [f"{n} {name}" for n, name in ((failed, "failed"), (missing, "not reached")) if n]
        lines = [f"Cells and studies: {', '.join(counts)}."] if self.total else []
        return "\n".join([*lines, *self.failures.values(), f"To go on, with what is missing: {command}"]) + "\n"

    def _results(self) -> Iterator[str]:
        """The best of each machine whose report was made, and where that is."""
        # Here, because it is not needed to read the rules.
        from inference_benchmark.render.texts import best_of_columns
        from inference_benchmark.results.summary_csv import read_summary

        for page in map(Path, sorted(self.made)):
            summary, provenance = page.with_name("summary.csv"), page.with_name("provenance.json")
            if len(page.parts) == 2:  # results/report.html
                yield f"Report of all machines: {page}"
                continue
            target = files.read_json(provenance)["measurement"]["target_half_width_percent"] / 100
            yield f"The best of each column on {page.parent.name}, by throughput:"
            yield from (f"    {line}" for line in best_of_columns(read_summary(summary), target))
            yield f"Report: {page}; tables: {page.with_name('tables.md')}"

    def _next_steps(self) -> list[str]:
        """Of all machines, from what was collected of them."""
        paths = ((machine, Path("results", machine, "provenance.json")) for machine in self.plan.machines)
        return [
            step
            for machine, path in paths
            if path.exists()
            for step in next_steps(files.read_json(path), threads.tried_on(machine))
        ]

    def _estimate(self) -> str:
        undecided = [each for each in map(self.plan.undecided, self.would_decide) if each]
        subjects = [*self.would_run, *(cell for cells, _ in undecided for cell in cells)]
        estimated = partial(
            estimate.estimate,
            earlier=list(estimate.earlier_records(dict.fromkeys(subject.setup.machine for subject in subjects))),
            published=list(estimate.published_figures(self.plan.any_machine.baselines.values())),
        )
        lines = []
        if self.would_run:
            total, making_s = estimated(self.would_run), self._seconds_to_make_environments()
            text = f"Estimated time: {format_duration(total.seconds + sum(making_s))} for {len(self.would_run)} cells"
            text += " and studies, one after the other"
            text += f", and {len(making_s)} environment{'s' * (len(making_s) > 1)} to make" if making_s else ""
            text += f". By earlier records: {total.known}"
            if total.published:
                text += f"; by published figures of another GPU: {total.published}"
            if total.unknown:
                text += f"; without a record of their like: {total.unknown}, with max_seconds for each timed part, and"
                text += f" {estimate.START_S} s to start and {estimate.COMPILE_S} s to compile if no record tells"
            lines.append(f"{text}.\n")
        if undecided:
            at_most_s = sum(rounds * estimated(cells).seconds for cells, rounds in undecided)
            rounds = f"up to {undecided[0][1]} of the cells that need them"
            lines.append(f"Further rounds: {rounds}, up to {format_duration(at_most_s)}.\n")
        return "".join(lines)

    def _seconds_to_make_environments(self) -> list[float]:
        from inference_benchmark.measure import environments  # here, because it is not needed to read the rules

        needed = self.plan.environments_of(subject.path for subject in self.would_run)
        return environments.seconds_to_make(lock for _, lock in needed)


def _output(event: Any) -> str:
    """The first output of a job; "" if it has none."""
    return str(next(iter(event.output), "")).removesuffix(" (update)")


def _is_news(event: Any) -> bool:
    """A filter that drops what Snakemake says before and after every single job, also of failed cells. Its own
    ``quiet`` settings would drop more: errors of other rules, the plan, and commands (-p)."""
    kind = getattr(event, "event", None)
    if kind == LogEvent.JOB_ERROR:
        return event.rule_name not in MEASURING_RULES and not _explanation(event)
    return kind not in _REDUNDANT_EVENTS and not str(event.msg).startswith(_REDUNDANT)


def attach_progress(logger: logging.Logger, progress: ProgressHandler, terse: bool) -> None:
    """Let Snakemake's logger print a line per cell and study; terse: and little else. Once for the same cells."""
    if any(isinstance(each, ProgressHandler) and each.plan == progress.plan for each in logger.handlers):
        return  # each "use rule" of another workflow comes by here
    if terse:
        for handler in logger.handlers:
            handler.addFilter(_is_news)
        command = shlex.join(["snakemake", *sys.argv[1:]])
        # After all that Snakemake has to say.
        atexit.register(lambda: sys.stderr.write(progress.ending(command)))
    logger.addHandler(progress)


def _why(attempt: Attempt) -> str:
    """`` (TIMEOUT on gpu07: ...)``: what the scheduler and the log say of a failure. `` (timeout)``: the cell's own
    time was up. Any other failure of the cell itself is in the end of the log, which is shown."""
    if attempt.final:
        return " (timeout)" if attempt.reason.startswith("timeout") else ""
    return printable(f" ({attempt.reason})") if attempt.reason else ""


def _failed(label: str, messages: Sequence[str]) -> str:
    return printable("\n    ".join([f"Failed: {label}", *filter(None, messages)]))


def _explanation(event: Any) -> list[str]:
    """The error messages in the log of a failed script that only reads; of many, the first few and the last."""
    if event.rule_name in MEASURING_RULES or not event.log:
        return []
    messages = [found[1] for line in _lines(event.log[0]) if (found := re.match(r"\w+\.py: (.*)", line))]
    left_out = len(messages) - _SHOWN_MESSAGES
    return messages if left_out <= 1 else [*messages[: _SHOWN_MESSAGES - 1], f"... {left_out} more", messages[-1]]


def _lines(log: str) -> list[str]:
    try:
        return Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
