"""The lines that a run prints: one per finished cell or study, wherever the job ran; at the end of an incomplete run,
what is missing and why; and at the end of a dry run, how long the run will take.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import chdir, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from snakemake_interface_logger_plugins.common import LogEvent

from inference_benchmark import files
from inference_benchmark.cli import TOLD_EVERY_S, every, printable
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
#: What a dry run calls an error in a locked folder.
_LOCKED = "Error: Directory cannot be locked"
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
    "Some jobs were triggered by provenance information",
    "Rules with provenance triggered jobs",
    _LOCKED,
)
#: How those begin that Snakemake repeats, some in every step of its end.
_REPEATED = ("Job stats:", "Will exit after finishing currently running jobs")
#: How the shell of a job that failed has ended, in Snakemake's message.
_EXIT = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.(\w+)")
#: What each outcome is called at the end of a run.
_OUTCOMES = {"ok": "measured", "oom": "out of memory", "unsupported": "not supported", "interrupted": "interrupted"}
#: How many messages of a failed job are shown at the end of a run, and how many lines of its log.
_SHOWN_MESSAGES, _TAIL_LINES = 5, 12
#: What Snakemake says of a failed job: the scheduler's number for it, the scheduler's logs, and a message.
_Failure = tuple[str | None, Sequence[str], str]


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


class ProgressHandler(logging.Handler):
    """Prints ``[3/18] bloom-51m ... batch 4: 38.1 tok/s, 15 left, about 2 min`` as cells and studies end.

    attempts: is told of every attempt. mode: what Snakemake does; retries: how often it repeats a failed job;
    unfinished: the outputs of all jobs that are still to be run. in_place: write is to a terminal, on which what is
    running is one line.
    """

    def __init__(
        self,
        plan: Plan,
        attempts: AttemptLog,
        mode: Callable[[], Literal["plan", "touch", "run"]],
        retries: Callable[[], int],
        unfinished: Callable[[], Iterable[str]],
        write: Callable[[str], Any] = _write,
        clock: Callable[[], float] = time.monotonic,
        in_place: bool = False,
    ) -> None:
        super().__init__(logging.INFO)
        self.plan, self.attempts, self.mode, self.retries, self.unfinished = plan, attempts, mode, retries, unfinished
        self.write, self.clock, self.began, self.in_place = write, clock, clock(), in_place
        self.expected: set[str] = set()
        self.running: dict[int, tuple[Subject, float]] = {}
        self.is_shown = False
        self.would_run: list[Subject] = []
        self.would_decide: list[str] = []
        self.group_failures: dict[int, _Failure] = {}
        self.exits: dict[int, str] = {}
        self.ended: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.pages: dict[int, str] = {}
        self.made: list[str] = []

    def emit(self, event: logging.LogRecord) -> None:
        try:
            self._receive(event)
        except Exception as error:  # a line that cannot be printed is no reason to stop measuring
            with suppress(OSError):  # as where the terminal was closed
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
                    self.running[event.jobid] = subject, self.clock()
                    self.attempts.begin(subject)
            case LogEvent.JOB_INFO if self.mode() == "plan":
                self.would_decide.append(path)
            case LogEvent.JOB_INFO if event.rule_name in _PAGE_RULES and self.mode() == "run":
                self.pages[event.jobid] = path
            case LogEvent.JOB_FINISHED if event.job_id in self.pages:
                self.made.append(self.pages.pop(event.job_id))
            case LogEvent.JOB_FINISHED if event.job_id in self.running:
                self._finish(self.running.pop(event.job_id)[0])
            case LogEvent.ERROR:  # by the thread that then tells of the failed job
                self.exits[event.thread] = _exit(str(event.msg))
            case None if str(event.msg).startswith(_LOCKED):
                self.write_line("Another Snakemake runs in this folder, or was killed in it (snakemake --unlock).\n")
            case LogEvent.GROUP_ERROR:
                failure = getattr(event, "external_jobid", None), event.aux_logs, "it did not become a job"
                self.group_failures |= {job["jobid"]: failure for job in event.job_error_info}
            case LogEvent.JOB_ERROR if event.jobid in self.running:
                said = (event.rule_msg or self.exits.pop(event.thread, "")).partition("\n")[0]
                failure = event.aux.get("external_jobid"), event.log[1:], said
                self._fail(self.running.pop(event.jobid)[0], self.group_failures.pop(event.jobid, failure))
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
        elif attempt.is_interruption:
            self.ended.add(subject.path)
            self.outcomes["interrupted"] += 1
            self._print(subject, "interrupted")
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

    def tell_running(self) -> None:
        """Write what has been running longest, if for long."""
        with self.lock:  # of the handler: other threads tell of jobs that end
            for subject, began in list(self.running.values())[:1]:
                if (seconds := self.clock() - began) >= TOLD_EVERY_S:
                    more = f", and {len(self.running) - 1} more" if len(self.running) > 1 else ""
                    line = self._line(subject, f"running for {format_duration(seconds)}{more}")
                    if not self.in_place:
                        self.write_line(f"{line}\n")
                    else:
                        self.write_line(line[: shutil.get_terminal_size().columns - 1])
                        self.is_shown = True

    def clear(self) -> None:
        """Remove the line about what is running from a terminal."""
        if self.is_shown:
            self.is_shown = False
            self.write("\r\033[K")

    def write_line(self, line: str) -> None:
        self.clear()
        self.write(line)

    def _print(self, subject: Subject, text: str) -> None:
        self.write_line(f"{self._line(subject, text)}\n")

    def _line(self, subject: Subject, text: str) -> str:
        machine = f"{subject.setup.machine}: " if len(self.plan.machines) > 1 else ""
        return f"[{len(self.ended)}/{self.total}] {machine}{subject.label}: {text}"

    def ending(self, command: str, folder: Path = Path()) -> str:
        """What is printed at the end of a run or dry run by this command; "" if there is nothing to say. folder: of the
        results, from where the user is."""
        if self.mode() == "plan":
            return self._estimate()
        return self.summary(command, folder) if self.mode() == "run" else ""

    def summary(self, command: str, folder: Path = Path()) -> str:
        """What a run has measured, what is missing and why; if nothing is, the best of it, the pages that it made, and
        what would make its figures more certain. folder: as of ending."""
        # Of jobs that end after Ctrl-C, Snakemake tells no more.
        for subject, _ in self.running.values():
            if self.attempts.has_recorded(subject):
                self._finish(subject)
        failed = sum(self.plan.subject(path) is not None for path in self.failures)
        missing = max(0, self.total - len(self.ended))
        if not self.failures and not missing and not self.outcomes["interrupted"]:
            steps = self._next_steps() if self.ended else ()
            return "".join(f"{line}\n" for line in (*self._results(folder), *steps))
        counts = [f"{self.outcomes[outcome]} {name}" for outcome, name in _OUTCOMES.items() if self.outcomes[outcome]]
        counts += [f"{n} {name}" for n, name in ((failed, "failed"), (missing, "not reached")) if n]
        lines = [f"Cells and studies: {', '.join(counts)}."] if self.total else []
        return "\n".join([*lines, *self.failures.values(), f"To go on, with what is missing: {command}"]) + "\n"

    def _results(self, folder: Path) -> Iterator[str]:
        """The best of each machine whose report was made, and where that is."""
        # Here, because it is not needed to read the rules.
        from inference_benchmark.render.ranking import ranked
        from inference_benchmark.results.summary_csv import read_summary

        for page in map(Path, sorted(self.made)):
            summary, provenance = page.with_name("summary.csv"), page.with_name("provenance.json")
            if len(page.parts) == 2:  # results/report.html
                yield f"Report of all machines: {folder / page}"
                continue
            target = files.read_json(provenance)["measurement"]["target_half_width_percent"] / 100
            yield f"The best of each column on {page.parent.name}, by throughput:"
            yield from ranked(read_summary(summary), target)
            yield f"Report: {folder / page}; tables: {folder / page.with_name('tables.md')}"

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


def _only_news(clear: Callable[[], None]) -> Callable[[Any], bool]:
    """A filter that drops what Snakemake says before and after every single job, also of failed cells, and what it says
    again. Its own ``quiet`` settings would drop more: errors of other rules, the plan, and commands (-p). clear: called
    before the rest is printed."""
    said = set()

    def is_news(event: Any) -> bool:
        kind, text = getattr(event, "event", None), str(event.msg)
        if kind == LogEvent.JOB_ERROR:
            news = event.rule_name not in MEASURING_RULES and not _explanation(event)
        else:
            news = kind not in _REDUNDANT_EVENTS and not text.startswith(_REDUNDANT) and text not in said
        if text.startswith(_REPEATED):
            said.add(text)
        if news:
            clear()
        return news

    return is_news


def attach_progress(
    logger: logging.Logger, progress: ProgressHandler, terse: bool, is_local: Callable[[], bool]
) -> None:
    """Let Snakemake's logger print a line per cell and study, and what is running if jobs run on this machine; terse:
    and little else. Once for the same cells."""
    if any(isinstance(each, ProgressHandler) and each.plan == progress.plan for each in logger.handlers):
        return  # each "use rule" of another workflow comes by here
    if terse:
        for handler in logger.handlers:
            handler.addFilter(_only_news(progress.clear))
    # After all that Snakemake has to say, and has left the folder of --directory again.
    atexit.register(_tell_ending, progress, shlex.join(["snakemake", *sys.argv[1:]]), Path.cwd())
    every(TOLD_EVERY_S, lambda: progress.running and is_local() and progress.tell_running())
    logger.addHandler(progress)


def _tell_ending(progress: ProgressHandler, command: str, folder: Path) -> None:
    """Print how a run ended. folder: that of its results."""
    from_here = os.path.relpath(folder)
    with chdir(folder):
        progress.write_line(progress.ending(command, Path(from_here)))


def _exit(message: str) -> str:
    """How a job ended, where its log does not say it: ``killed by SIGKILL``; "" unless Snakemake says it."""
    for status, name in _EXIT.findall(message)[-1:]:
        with suppress(ValueError):  # a status that stands for no signal
            return f"killed by {name or signal.Signals(int(status) - 128).name}"
        return f"exit status {status}"
    return ""


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
