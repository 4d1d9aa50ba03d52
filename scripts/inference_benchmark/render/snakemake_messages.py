"""What Snakemake says in a run: which of its messages are news beside our lines, and what is read from them."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

#: The rules that measure, each with one cell or study as its output.
MEASURING_RULES = ("measure", "ceilings", "max_batch", "divergence", "batch_invariance", "quality", "timeline")
#: Snakemake's events that say no more than our lines.
_REDUNDANT_EVENTS = {LogEvent.JOB_INFO, LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS}
_REDUNDANT_EVENTS |= {LogEvent.GROUP_INFO, LogEvent.GROUP_ERROR}
#: What a dry run calls an error in a locked folder.
LOCKED = "Error: Directory cannot be locked"
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
    LOCKED,
)
#: How those begin that Snakemake repeats, some in every step of its end.
_REPEATED = ("Job stats:", "Will exit after finishing currently running jobs")
#: How the shell of a job that failed has ended, in Snakemake's message.
_EXIT = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.(\w+)")
#: How many messages of a failed job are shown at the end of a run.
_SHOWN_MESSAGES = 5


def only_news(clear: Callable[[], None]) -> Callable[[Any], bool]:
    """A filter that drops what Snakemake says before and after every single job, also of failed cells, and what it says
    again. Its own ``quiet`` settings would drop more: errors of other rules, the plan, and commands (-p). clear: called
    before the rest is printed."""
    said = set()

    def is_news(event: Any) -> bool:
        kind, text = getattr(event, "event", None), str(event.msg)
        if kind == LogEvent.JOB_ERROR:
            news = event.rule_name not in MEASURING_RULES and not explanation(event)
        else:
            news = kind not in _REDUNDANT_EVENTS and not text.startswith(_REDUNDANT) and text not in said
        if text.startswith(_REPEATED):
            said.add(text)
        if news:
            clear()
        return news

    return is_news


def first_output(event: Any) -> str:
    """The first output of a job; "" if it has none."""
    return str(next(iter(event.output), "")).removesuffix(" (update)")


def exit_text(message: str) -> str:
    """How a job ended, where its log does not say it: ``killed by SIGKILL``; "" unless Snakemake says it."""
    for status, name in _EXIT.findall(message)[-1:]:
        with suppress(ValueError):  # a status that stands for no signal
            return f"killed by {name or signal.Signals(int(status) - 128).name}"
        return f"exit status {status}"
    return ""


def explanation(event: Any) -> list[str]:
    """The error messages in the log of a failed script that only reads; of many, the first few and the last."""
    if event.rule_name in MEASURING_RULES or not event.log:
        return []
    messages = [found[1] for line in lines(event.log[0]) if (found := re.match(r"\w+\.py: (.*)", line))]
    left_out = len(messages) - _SHOWN_MESSAGES
    return messages if left_out <= 1 else [*messages[: _SHOWN_MESSAGES - 1], f"... {left_out} more", messages[-1]]


def lines(log: str) -> list[str]:
    try:
        return Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
