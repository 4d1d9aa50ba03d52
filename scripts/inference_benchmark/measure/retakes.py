"""A disturbed round of a cell, or study of the ceilings, is measured again, once the machine is quiet.

Whether a round is disturbed, and which of several is the least, follows from its conditions alone: what others took of
the device, and its yardsticks. Its own times decide nothing, so that no figure is selected by its value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from inference_benchmark.analysis import yardstick
from inference_benchmark.analysis.yardstick import Speed
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import conditions, quiet
from inference_benchmark.measure.outcome import CellFailure
from inference_benchmark.measure.run_notes import notes_of_run
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.records.parts import Reason

#: What a worker left, how that ended, and why.
Take = tuple[WorkerReport, str, Reason | None]


class Other(NamedTuple):
    """A take that does not count, and why."""

    report: WorkerReport
    reason: str


class Disturbance(NamedTuple):
    """reasons: none if the round counts as undisturbed. degree: the part of the machine that was lost, to compare."""

    reasons: list[str]
    degree: float

    @classmethod
    def of(cls, report: WorkerReport, device: str, speeds: list[Speed], usual: Speed | None) -> Disturbance:
        """speeds: of its yardsticks. usual: the speed of the machine; None as long as it is not known."""
        reasons = conditions.disturbances(report.conditions, device)
        degree = conditions.lost_share(report.conditions)
        if usual and speeds:
            degree += max(0.0, 1 - min(yardstick.mean(speeds).over(usual)))
            reasons += filter(None, [yardstick.why_slower(speeds, usual, yardstick.DISTURBED)])
        return cls(reasons, degree)


def least_disturbed(
    measure: Callable[[float], Take], device: str, watch: Supervision, timed_with: str = ""
) -> tuple[Take, list[Other]]:
    """The least disturbed of the first take and of at most max_retakes more, and the others.

    measure: takes the seconds that it may wait for quiet. timed_with: what yardsticks are timed with; others are not
    comparable. A take without figures is the last, and decides. Raises what the first take does; a later one that fails
    leaves those before it.
    """
    takes: list[tuple[Take, Disturbance]] = []
    with notes_of_run() as notes:
        patience_s = min(notes.worth(watch.patience_s), watch.timeout_s / 2)
        most = 1 + int(notes.worth(watch.max_retakes))
    while len(takes) < most:
        if takes and not quiet.wait_after_look(patience_s).is_quiet:
            break
        try:
            take = report, outcome, _ = measure(patience_s)
        except CellFailure as error:
            if not takes:
                raise
            print(f"the retake failed: {error}", file=sys.stderr)
            break
        speeds = [Speed.of(times) for times in report.yardstick.values()]
        with notes_of_run() as notes:
            disturbance = Disturbance.of(report, device, speeds, notes.usual_speed(timed_with))
            notes.add_speeds(timed_with, speeds)
        takes.append((take, disturbance))
        if outcome != "ok" or not disturbance.reasons:
            break
        print(f"disturbed: {'; '.join(disturbance.reasons)}", file=sys.stderr)
    (_, outcome, _), disturbance = takes[-1]
    with notes_of_run() as notes:
        notes.escaped(not disturbance.reasons)
    chosen = takes[-1] if outcome != "ok" else min(takes, key=lambda take: (bool(take[1].reasons), take[1].degree))
    others = [take for take in takes if take is not chosen]
    return chosen[0], [Other(report, "; ".join(why.reasons)) for (report, _, _), why in others]
