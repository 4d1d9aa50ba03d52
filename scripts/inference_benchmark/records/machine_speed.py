"""The speed of the machine over the records of a run, and the cells in which it was slower than its best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inference_benchmark.analysis import yardstick
from inference_benchmark.analysis.yardstick import Speed
from inference_benchmark.records import comparability
from inference_benchmark.records.parts import Run
from inference_benchmark.records.record import Record

#: The flag of a cell. Only the summary has it, because it is derived from several records.
FLAG = "machine-slower"
#: The facts in which records have to agree for their yardsticks to be the same. The host is not among them, because one
#: of a cluster's equal nodes may be slow.
_SAME = (
    "device", "CPU", "usable CPUs", "CPU limit", "threads", "CUDA", "float32 matmul precision", "TF32", "torch",
)  # fmt: skip


def slower(records: Sequence[Record]) -> dict[str, str]:
    """{path: how much slower} of each measured cell in which the machine was slower than its own best. records: of one
    round or of all rounds of each cell."""
    messages = {}
    for record, speeds, best in _with_best(records):
        whys = [yardstick.why_slower(of_run, best) for of_run in speeds] if record.outcome == "ok" else []
        if found := list(filter(None, whys)):
            processes = f" (in {len(found)} of {len(whys)} processes)" if len(whys) > 1 else ""
            messages[record.cell.path] = found[0] + processes
    return messages


def facts(records: Sequence[Record]) -> dict[str, Any]:
    """For provenance.json: the median speed, and ``over_time`` the part of the best at each time, for both kernels.
    records: of one round each. Empty if no record has a yardstick."""
    over_time = []
    for record, speeds, best in _with_best(records):
        times = {"before": record.started_at, "after": record.ended_at}
        for when, speed in (each for of_run in speeds for each in of_run.items()):
            shares = (round(share, 4) for share in speed.over(best))
            over_time.append({"at": times[when], **dict(zip(yardstick.NAMES, shares, strict=True))})
    if not over_time:
        return {}
    return {**typical(records)._asdict(), "over_time": sorted(over_time, key=lambda point: point["at"])}


def typical(records: Sequence[Record]) -> Speed | None:
    """The median speed of the machine; None if no record has a yardstick."""
    speeds = [speed for record in records for run in record.runs for speed in _speeds(run).values()]
    return yardstick.typical(speeds) if speeds else None


def _speeds(run: Run) -> dict[str, Speed]:
    return {when: Speed.of(run.yardstick[when]) for when in ("before", "after") if when in (run.yardstick or {})}


def _with_best(records: Sequence[Record]) -> Iterator[tuple[Record, Sequence[Mapping[str, Speed]], Speed]]:
    """Each record that has a yardstick, the speeds of each of its runs, and the best speed of all records of the same
    machine and settings."""
    known, groups = comparability.facts(records), defaultdict(list)
    for index, record in enumerate(records):
        if any(speeds := [_speeds(run) for run in record.runs]):
            settings = (record.cell.machine, record.cell.device, *(known[name][index] for name in _SAME))
            groups[settings].append((record, speeds))
    for members in groups.values():
        best = yardstick.best(speed for _, speeds in members for of_run in speeds for speed in of_run.values())
        yield from ((record, speeds, best) for record, speeds in members)
