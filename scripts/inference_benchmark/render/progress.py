"""The lines that a run prints: one per finished cell or study, wherever the job ran, and what is running."""

from __future__ import annotations

import atexit
import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any, Literal

from snakemake_interface_logger_plugins.common import LogEvent

from inference_benchmark.cli import TOLD_EVERY_S, every, printable
from inference_benchmark.experiment import outputs
from inference_benchmark.experiment.cells import log_path
from inference_benchmark.experiment.plan import Plan
from inference_benchmark.experiment.studies import Subject
from inference_benchmark.records import record_file
from inference_benchmark.records.attempts import Attempt, AttemptLog
from inference_benchmark.records.estimate import Known
from inference_benchmark.render import closing
from inference_benchmark.render.closing import Tally
from inference_benchmark.render.one_line import failure_text, record_text, see_text
from inference_benchmark.render.snakemake_messages import LOCKED, exit_text, explanation, first_output, lines, only_news
from inference_benchmark.units import format_duration

#: How many cells and studies have to end before they tell how long the others will take.
_LEAST_ENDED = 3
#: How many lines of the log of a failed cell are shown.
_TAIL_LINES = 12
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
        self.write, self.clock, self.in_place = write, clock, in_place
        self.tally, self.pages = Tally(plan), outputs.pages(plan.experiments)
        self.known = Known([], [])
        self.began, self.took_s, self.ends_at, self.next_estimate = None, 0.0, 0.0, 0.0
        self.running: dict[int, tuple[Subject, float]] = {}
        self.is_shown = False
        self.would_run: list[Subject] = []
        self.would_make: list[str] = []
        self.making: dict[int, str] = {}
        self.group_failures: dict[int, _Failure] = {}
        self.exits: dict[int, str] = {}

    def emit(self, event: logging.LogRecord) -> None:
        try:
            self._receive(event)
        except Exception as error:  # a line that cannot be printed is no reason to stop measuring
            with suppress(OSError):  # as where the terminal was closed
                self.write_line(f"(no line for this cell: {error})\n")

    def _receive(self, event: Any) -> None:
        match getattr(event, "event", None):
            case LogEvent.RUN_INFO if self.mode() == "run":
                self._expect_unfinished()
            case LogEvent.JOB_INFO if subject := self.plan.subject(path := first_output(event)):
                if self.mode() == "plan":
                    self.would_run.append(subject)
                elif self.mode() == "run":
                    if path not in self.tally.expected:  # of a further round, which was decided meanwhile
                        self._expect_unfinished()
                    self.running[event.jobid] = subject, self.clock()
                    self.began = self.clock() if self.began is None else self.began
                    self.attempts.begin(subject)
            case LogEvent.JOB_INFO if self.mode() == "plan":
                self.would_make.append(path)
            case LogEvent.JOB_INFO if path in self.pages and self.mode() == "run":
                self.making[event.jobid] = path
            case LogEvent.JOB_FINISHED if event.job_id in self.making:
                self.tally.made.append(self.making.pop(event.job_id))
            case LogEvent.JOB_FINISHED if event.job_id in self.running:
                self._finish(self.running.pop(event.job_id)[0])
            case LogEvent.ERROR:  # by the thread that then tells of the failed job
                self.exits[event.thread] = exit_text(str(event.msg))
            case None if str(event.msg).startswith(LOCKED):
                self.write_line("Another Snakemake runs in this folder, or was killed in it (snakemake --unlock).\n")
            case LogEvent.GROUP_ERROR:
                failure = getattr(event, "external_jobid", None), event.aux_logs, "it did not become a job"
                self.group_failures |= {job["jobid"]: failure for job in event.job_error_info}
            case LogEvent.JOB_ERROR if event.jobid in self.running:
                said = (event.rule_msg or self.exits.pop(event.thread, "")).partition("\n")[0]
                failure = event.aux.get("external_jobid"), event.log[1:], said
                self._fail(*self.running.pop(event.jobid), self.group_failures.pop(event.jobid, failure))
            case LogEvent.JOB_ERROR if messages := explanation(event):
                self.tally.failures[event.log[0]] = failure_text("failed", event.rule_name, event.log[:1], messages)

    def _expect_unfinished(self) -> None:
        subjects = ((path, self.plan.subject(path)) for path in self.unfinished())
        self.tally.expected |= {path: subject for path, subject in subjects if subject}
        if self.tally.expected and not self.known.records:
            self.known = Known.of(self.plan)

    def _finish(self, subject: Subject) -> None:
        if subject.path not in self.tally.ended:
            finished = record_file.load_any(Path(subject.path))
            self.known.records.append(finished)
            self._end(subject, finished.outcome, printable(record_text(finished)), finished.took_s)

    def _fail(self, subject: Subject, began: float, failure: _Failure) -> None:
        (job, scheduler_logs, message), retries = failure, self.retries()
        attempt = self.attempts.fail(subject, job, message if job is None else None, retries)
        if attempt.finished:  # another cell of its job failed
            self._finish(subject)
        elif attempt.is_interruption:
            self.tally.ended[subject.path] = "interrupted"
            self._print(subject, "interrupted")
        elif attempt.attempt <= retries and not attempt.final:
            self._print(subject, f"failed{_why(attempt)}, attempt {attempt.attempt + 1} of {retries + 1} follows")
        elif subject.path not in self.tally.ended:
            logs = [log for log in map(str, (log_path(subject.path), *scheduler_logs)) if Path(log).exists()]
            self.tally.failures[subject.path] = failure_text("failed", subject.label, logs, [attempt.reason])
            self._end(subject, "failed", f"failed{_why(attempt)}{see_text(logs)}", self.clock() - began)
            self.write_line("".join(f"    {printable(line)}\n" for line in lines(attempt.log)[-_TAIL_LINES:]))

    def _end(self, subject: Subject, outcome: str, text: str, took_s: float) -> None:
        """Print the line of a cell or study that has ended, with what is left."""
        self.tally.ended[subject.path] = outcome
        self.took_s += took_s
        if left := self.tally.left:
            text += f", {len(left)} left"
        if left and len(self.tally.ended) >= _LEAST_ENDED:
            text += f", about {format_duration(self._left_s(left))}"
        self._print(subject, text)

    def _left_s(self, left: Sequence[Subject]) -> float:
        """How long these will take: what a dry run would say now, or less where jobs run side by side. With thousands
        of cells that takes long to work out, while others are measured: 1 % of the time at most."""
        if (now := self.clock()) >= self.next_estimate:
            side_by_side = min(1, (now - self.began) / self.took_s) if self.took_s else 1
            self.ends_at = now + side_by_side * self.known.estimate(left).seconds
            self.next_estimate = now + 100 * (self.clock() - now)
        return max(0, self.ends_at - now)

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
        return f"[{len(self.tally.ended)}/{len(self.tally.expected)}] {machine}{subject.label}: {text}"

    def ending(self, command: str, folder: Path = Path()) -> str:
        """What is printed at the end of a run or dry run by this command; "" if there is nothing to say. folder: of the
        results, from where the user is."""
        if self.mode() == "plan":
            return closing.of_plan(self.plan, self.would_run, self.would_make)
        # Of jobs that end after Ctrl-C, Snakemake tells no more.
        for subject, _ in self.running.values():
            if self.attempts.has_recorded(subject):
                self._finish(subject)
        return closing.of_run(self.tally, command, folder) if self.mode() == "run" else ""


def attach_progress(
    logger: logging.Logger, progress: ProgressHandler, terse: bool, is_local: Callable[[], bool]
) -> None:
    """Let Snakemake's logger print a line per cell and study, and what is running if jobs run on this machine; terse:
    and little else. Once for the same cells."""
    if any(isinstance(each, ProgressHandler) and each.plan == progress.plan for each in logger.handlers):
        return  # each "use rule" of another workflow comes by here
    if terse:
        for handler in logger.handlers:
            handler.addFilter(only_news(progress.clear))
    # After all that Snakemake has to say, and has left the folder of --directory again.
    atexit.register(_tell_ending, progress, shlex.join(["snakemake", *sys.argv[1:]]), Path.cwd())
    every(TOLD_EVERY_S, lambda: progress.running and is_local() and progress.tell_running())
    logger.addHandler(progress)


def _tell_ending(progress: ProgressHandler, command: str, folder: Path) -> None:
    """Print how a run ended. folder: that of its results."""
    from_here = os.path.relpath(folder)
    with chdir(folder):
        progress.write_line(progress.ending(command, Path(from_here)))


def _why(attempt: Attempt) -> str:
    """`` (TIMEOUT on gpu07: ...)``: what the scheduler and the log say of a failure. `` (timeout)``: the cell's own
    time was up. Any other failure of the cell itself is in the end of the log, which is shown."""
    if attempt.final:
        return " (timeout)" if attempt.reason.startswith("timeout") else ""
    return printable(f" ({attempt.reason})") if attempt.reason else ""
