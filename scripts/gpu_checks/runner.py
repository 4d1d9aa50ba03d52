"""Runs checks, each in a process of its own, within a budget of time. Imports no torch."""

import math
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

from inference_benchmark.worker.process import die_with_parent, qualified_name

#: Seconds that a process may take to end after its verdict.
_GRACE_S = 10


class Verdict(NamedTuple):
    """verdict: ``ok``, ``failed`` or ``skipped``. evidence: in one line. facts: figures and more, for programs."""

    verdict: str
    evidence: str
    facts: Mapping[str, Any] = {}


def ok_if(condition: Any, evidence: str, facts: Mapping[str, Any] | None = None) -> Verdict:
    return Verdict("ok" if condition else "failed", evidence, facts or {})


def skipped(evidence: str) -> Verdict:
    return Verdict("skipped", evidence)


class NothingToCheckError(Exception):
    """What a check looks at could not be had; ``verdict`` says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.evidence)
        self.verdict = verdict


@dataclass(frozen=True)
class Check:
    """name: its parts separated by ``/``. run: can be pickled. limit_s: seconds that it may take. needs: names of
    earlier checks; unless they are ok it is skipped. skip: why it is not run here; None if it is."""

    name: str
    run: Callable[[], Verdict]
    limit_s: float
    needs: tuple[str, ...] = ()
    skip: str | None = None

    def log(self, folder: Path) -> Path:
        """Where everything goes that its processes print."""
        return folder / f"{self.name.replace('/', '-')}.log"


class Ended(NamedTuple):
    check: Check
    verdict: Verdict
    seconds: float


class Running(NamedTuple):
    """A check whose process runs. began_s: on the clock of time.monotonic. may_take_s: seconds."""

    check: Check
    process: multiprocessing.Process
    verdict: connection.Connection
    began_s: float
    may_take_s: float

    @property
    def deadline_s(self) -> float:
        return self.began_s + self.may_take_s


def chosen(planned: Sequence[Check], only: Sequence[str]) -> list[Check]:
    """The checks of these names and below them, as ``cells/hf/fp32`` is below ``cells/hf``. Raises LookupError."""
    for name in only:
        if not any(_is_in(check, name) for check in planned):
            raise LookupError(f"there is no check {name!r}; allowed: {', '.join(check.name for check in planned)}")
    return [check for check in planned if any(_is_in(check, name) for name in only)]


def _is_in(check: Check, name: str) -> bool:
    return f"{check.name}/".startswith(f"{name}/")


def may_take_s(limit_s: float, budget_s: float, spent_s: float) -> float | None:
    """Seconds that a check may take, of its own limit and what is left of the budget; None where nothing is left."""
    left_s = budget_s - spent_s
    return min(limit_s, left_s) if left_s > 0 else None


def overtime(limit_s: float, took_s: float) -> Verdict:
    """The verdict on a check that was ended after so many seconds: it took too long only if it had all of its time."""
    if took_s < limit_s:
        return skipped(f"no time left; ended after {took_s:.0f} s")
    return ok_if(False, f"no end after {limit_s:.0f} s")


def run_checks(planned: Sequence[Check], budget_s: float, at_a_time: int, logs: Path) -> Iterator[Ended]:
    """Run the checks in their order, several at a time; yield each when it ends."""
    began_s, waiting, running = time.monotonic(), list(planned), []
    unknown, not_ok = {check.name for check in planned}, set()
    try:
        while waiting or running:
            check = next((each for each in waiting if unknown.isdisjoint(each.needs)), None)
            if check is None or len(running) == at_a_time:
                ended = _wait(running, logs)
            else:
                waiting.remove(check)
                seconds = may_take_s(check.limit_s, budget_s, time.monotonic() - began_s)
                if why_not := _why_not(check, not_ok, seconds):
                    ended = [Ended(check, skipped(why_not), 0.0)]
                else:
                    running.append(_start(check, seconds, logs))
                    continue
            for each in ended:
                unknown.discard(each.check.name)
                if each.verdict.verdict != "ok":
                    not_ok.add(each.check.name)
                yield each
    finally:
        for each in running:
            _end(each)


def _why_not(check: Check, not_ok: set[str], seconds: float | None) -> str | None:
    """Why a check is not started; None if it is."""
    if check.skip:
        return check.skip
    if unmet := not_ok.intersection(check.needs):
        return f"needs {' and '.join(sorted(unmet))}"
    return "no time left" if seconds is None else None


def _start(check: Check, seconds: float, logs: Path) -> Running:
    spawn = multiprocessing.get_context("spawn")
    receiving, sending = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_run, args=(check, sending, check.log(logs)))
    process.start()
    sending.close()
    return Running(check, process, receiving, time.monotonic(), seconds)


def _run(check: Check, sending: connection.Connection, log: Path) -> None:
    """The child process. It leads a session of its own, so that all that it has started can be ended with it."""
    os.setsid()
    die_with_parent()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        verdict = check.run()
    except NothingToCheckError as error:
        verdict = error.verdict
    except Exception as error:
        traceback.print_exc()
        verdict = ok_if(False, f"{qualified_name(error).rpartition('.')[2]}: {first_line(str(error))}")
    sending.send(verdict)


def _wait(running: list[Running], logs: Path) -> list[Ended]:
    """Wait for the next check that ends or whose time is up, and take all such from those that run."""
    left_s = min(each.deadline_s for each in running) - time.monotonic()
    ready = connection.wait([each.verdict for each in running], None if math.isinf(left_s) else max(0, left_s))
    now_s, ended = time.monotonic(), []
    for each in list(running):
        if each.verdict in ready:
            try:
                verdict = each.verdict.recv()
                each.process.join(_GRACE_S)
            except EOFError:
                each.process.join()
                verdict = ok_if(False, _how_it_ended(each.process.exitcode, each.check.log(logs)))
        elif now_s >= each.deadline_s:
            verdict = overtime(each.check.limit_s, each.may_take_s)
        else:
            continue
        _end(each)
        running.remove(each)
        ended.append(Ended(each.check, verdict, now_s - each.began_s))
    return ended


def _end(each: Running) -> None:
    with suppress(ProcessLookupError):
        os.killpg(each.process.pid, signal.SIGKILL)
    each.process.kill()
    each.process.join()
    each.verdict.close()


def _how_it_ended(exitcode: int, log: Path) -> str:
    status = signal.Signals(-exitcode).name if exitcode < 0 else f"exit status {exitcode}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return f"its process ended with {status}" + (f": {lines[-1]}" if lines else "")


def first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
