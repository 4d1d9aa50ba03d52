"""The speed of the machine over the records of a run, and the cells around which it was slower than around others."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inference_benchmark.analysis import yardstick
from inference_benchmark.analysis.unseen import Around
from inference_benchmark.analysis.yardstick import Speed
from inference_benchmark.records import comparability
from inference_benchmark.records.record import Record

#: The flag of a cell. Only the summary has it, because it is derived from several records.
FLAG = "machine-slower"
#: The facts in which records have to agree for their yardsticks to be the same. The host is not among them, because one
#: of a cluster's equal nodes may be slow.
_SAME = (
    "device", "CPU", "usable CPUs", "CPU limit", "threads", "CUDA", "float32 matmul precision", "TF32", "torch",
)  # fmt: skip


def slower(records: Sequence[Record]) -> dict[str, str]:
    """{path: how much slower} of each measured cell around which the machine was slower than around the others.
    records: of all rounds of each cell."""
    whys = {
        record.cell.path: yardstick.why_slower([*speeds.values()], usual)
        for record, speeds, usual in _with_typical(records)
        if record.outcome == "ok"
    }
    return {path: why for path, why in whys.items() if why}


def around(records: Sequence[Record]) -> list[Around]:
    """Of each record. records: of all rounds of each cell."""
    found: dict[int, Around] = {}
    for record, speeds, usual in _with_typical(records):
        by_round = defaultdict(list)
        for (number, _), speed in speeds.items():
            by_round[number].append(speed)
        if len(by_round) == len(record.runs):
            parts = (yardstick.mean(each).over(usual) for each in by_round.values())
            found[id(record)] = [tuple(map(math.log, part)) for part in parts]
    return [found.get(id(record), ()) for record in records]


def facts(records: Sequence[Record]) -> dict[str, Any]:
    """For provenance.json: the median speed, ``variation`` around it, and ``over_time`` the part of it at each time,
    for both kernels. records: of one round each. Empty if no record has a yardstick."""
    shares = []
    for record, speeds, usual in _with_typical(records):
        times = {"before": record.started_at, "after": record.ended_at}
        shares += [(times[when], speed.over(usual)) for (_, when), speed in speeds.items()]
    if not shares:
        return {}
    variation = dict(zip(yardstick.NAMES, yardstick.variation([share for _, share in shares]), strict=True))
    over_time = [
        {"at": at, **{name: round(part, 4) for name, part in zip(yardstick.NAMES, share, strict=True)}}
        for at, share in sorted(shares)
    ]
    return {**typical(records)._asdict(), "variation": variation, "over_time": over_time}


def typical(records: Sequence[Record]) -> Speed | None:
    """The median speed of the machine; None if no record has a yardstick."""
    speeds = [speed for record in records for speed in _speeds(record).values()]
    return yardstick.typical(speeds) if speeds else None


def _speeds(record: Record) -> dict[tuple[int, str], Speed]:
    """By process, and "before" or "after"."""
    return {
        (index, when): Speed.of(times)
        for index, run in enumerate(record.runs)
        for when, times in (run.yardstick or {}).items()
    }


def _with_typical(records: Sequence[Record]) -> Iterator[tuple[Record, Mapping[tuple[int, str], Speed], Speed]]:
    """Each record that has a yardstick, its speeds, and the median speed of all records of the same machine and
    settings."""
    known, groups = comparability.facts(records), defaultdict(list)
    for index, record in enumerate(records):
        if speeds := _speeds(record):
            settings = (record.cell.machine, record.cell.device, *(known[name][index] for name in _SAME))
            groups[settings].append((record, speeds))
    for members in groups.values():
        usual = yardstick.typical([speed for _, speeds in members for speed in speeds.values()])
        yield from ((record, speeds, usual) for record, speeds in members)
