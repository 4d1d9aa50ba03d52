"""The speed of the machine, from the times of its yardstick: two fixed kernels, the same in every cell. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis import descriptive
from inference_benchmark.units import format_bytes

#: How long passes have to stay fast. A thread that runs all the time gets its time slices, of 3 to 4 ms on Linux, in
#: any such stretch. One that runs now and then, such as a daemon, leaves some stretches undisturbed.
STRETCH_S = 0.01
#: By what part the mean of a cell may be below the median of all cells.
TOLERANCE = 0.2
#: By what part it may be below the median for the round to count as undisturbed: a shared virtual machine is as slow in
#: 1 of 100 rounds without other processes, and beside a busy thread per core in nearly all.
DISTURBED = 0.4
#: What a person calls the two kernels.
NAMES = ("memory", "arithmetic")


class Speed(NamedTuple):
    """The speeds of the two kernels: bytes read and written, and floating-point operations, per second."""

    memory_bytes_per_s: float
    arithmetic_flop_per_s: float

    @classmethod
    def of(cls, times: Mapping[str, Any]) -> Self:
        """times: of one yardstick, as a record has them."""
        return cls(
            times["moved_bytes"] * _passes_per_s(times["memory_s"]),
            times["flop"] * _passes_per_s(times["arithmetic_s"]),
        )

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        """facts: a mapping that has its fields, as provenance.json."""
        return cls(*(facts[name] for name in cls._fields))

    def over(self, other: Self) -> Self:
        """Ratios to another speed."""
        return type(self)(*(ours / theirs for ours, theirs in zip(self, other, strict=True)))

    @property
    def texts(self) -> tuple[str, str]:
        """``48.1 GB/s``, ``351 Gflop/s``"""
        return f"{format_bytes(self.memory_bytes_per_s)}/s", f"{self.arithmetic_flop_per_s / 1e9:.3g} Gflop/s"


def _passes_per_s(seconds: Sequence[float]) -> float:
    """In the fastest stretch of successive passes that is long enough, or in all of them together."""
    fastest, total_s, first = 0.0, 0.0, 0
    for last, pass_s in enumerate(seconds):
        total_s += pass_s
        while total_s - seconds[first] >= STRETCH_S:
            total_s -= seconds[first]
            first += 1
        if total_s >= STRETCH_S:
            fastest = max(fastest, (last - first + 1) / total_s)
    return fastest or len(seconds) / sum(seconds)


def typical(speeds: Sequence[Speed]) -> Speed:
    """The median of each kernel; at least one speed."""
    return Speed(*(descriptive.percentile(values, 50) for values in zip(*speeds, strict=True)))


def variation(speeds: Sequence[Speed]) -> tuple[float, float]:
    """How much the speed of each kernel varied, as a part of it: the standard deviation of its logarithms, 0 for a
    single speed."""
    return tuple(
        math.expm1(descriptive.standard_deviation([*map(math.log, values)]) or 0)
        for values in zip(*speeds, strict=True)
    )


def mean(speeds: Sequence[Speed]) -> Speed:
    """Of each kernel; at least one speed."""
    return Speed(*map(descriptive.mean, zip(*speeds, strict=True)))


def why_slower(measured: Sequence[Speed], reference: Speed, tolerance: float = TOLERANCE) -> str | None:
    """How the machine was slower around a cell than around the others, for a message; None if it was not.

    measured: before and after each of its processes; their mean decides, because its figures are means as well, and a
    single one is too short to be certain. reference: typical of all cells.
    """
    if not measured:
        return None
    ratios = mean(measured).over(reference)
    if min(ratios) >= 1 - tolerance:
        return None
    parts = (f"{name} {ratio:.0%} of {text}" for name, ratio, text in zip(NAMES, ratios, reference.texts, strict=True))
    return f"the machine was slower than around the other cells: {', '.join(parts)}"
