"""What the jobs of one run of Snakemake on one machine tell each other: how fast the machine is, and whether it
is of use to wait for quiet. A cell that is measured by hand knows nothing of others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from inference_benchmark import files
from inference_benchmark.analysis import yardstick
from inference_benchmark.analysis.yardstick import Speed
from inference_benchmark.measure.warm_start import OWNER

#: So many of the last speeds are kept; the median of fewer than the least is not yet the machine's.
_KEPT, _LEAST = 50, 5


@dataclass
class RunNotes:
    """speeds: of the machine by its yardsticks, by what they were timed with. vain: how many of the last waits and
    retakes did not escape the disturbance."""

    speeds: dict[str, list[Speed]] = field(default_factory=dict)
    vain: int = 0

    def usual_speed(self, timed_with: str) -> Speed | None:
        """The median; None as long as it is not known."""
        speeds = self.speeds.get(timed_with, [])
        return yardstick.typical([Speed(*each) for each in speeds]) if len(speeds) >= _LEAST else None

    def add_speeds(self, timed_with: str, speeds: list[Speed]) -> None:
        self.speeds[timed_with] = [*self.speeds.get(timed_with, []), *speeds][-_KEPT:]

    def worth(self, most: float) -> float:
        """Of the longest wait, or the largest number of retakes: half after each in vain, so that a machine that is
        disturbed all the time costs a run twice the most, not that of every cell."""
        return most / 2**self.vain

    def escaped(self, has: bool) -> None:
        """Note whether a wait or a retake escaped the disturbance, or a cell met none."""
        self.vain = 0 if has else self.vain + 1


@contextmanager
def notes_of_run() -> Iterator[RunNotes]:
    """The notes of this run, kept when the block is left without an error. Raises OSError."""
    if OWNER not in os.environ:
        yield RunNotes()
        return
    import filelock

    folder = files.private_folder(f"-{int(os.environ[OWNER])}")
    path = folder / "notes.json"
    with filelock.FileLock(folder / "notes.lock"):
        notes = RunNotes(**files.read_json(path)) if path.exists() else RunNotes()
        yield notes
        path.write_text(json.dumps(asdict(notes)), encoding="utf-8")
