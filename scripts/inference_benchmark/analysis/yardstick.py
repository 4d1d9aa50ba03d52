"""The speed of the machine, from the times of its yardstick: two fixed kernels, the same in every cell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis import statistics
from inference_benchmark.units import format_bytes

#: How long passes have to stay fast. A thread that runs all the time gets its time slices, of 3 to 4 ms on Linux, in
#: any such stretch. One that runs now and then, such as a daemon, leaves some stretches undisturbed.
STRETCH_S = 0.01
#: By what part the mean of before and after may be below the best. Without other work on a shared virtual machine it
#: was further below in 1 of 75 measurements; with a busy thread per core it was 40 % and more below
#: (benchmarks/trust.py).
TOLERANCE = 0.2
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


def best(speeds: Iterable[Speed]) -> Speed:
    """The 95th percentile of each kernel, because the fastest of hundreds is luck and grows with their number; at least
    one speed."""
    return _percentile(speeds, 95)


def typical(speeds: Sequence[Speed]) -> Speed:
    """The median of each kernel; at least one speed."""
    return _percentile(speeds, 50)


def _percentile(speeds: Iterable[Speed], percent: float) -> Speed:
    return Speed(*(statistics.percentile(list(values), percent) for values in zip(*speeds, strict=True)))


def is_slower(speed: Speed, reference: Speed) -> bool:
    """Whether either kernel was slower than a reference by more than the tolerance."""
    return min(speed.over(reference)) < 1 - TOLERANCE


def why_slower(measured: Mapping[str, Speed], reference: Speed) -> str | None:
    """How a machine was slower than its best, for a message; None if it was not.

    measured: before and after a cell; their mean decides, because a single one is too short to be certain. reference:
    the best of the machine.
    """
    means = (statistics.mean(values) for values in zip(*measured.values(), strict=True))
    if not measured or not is_slower(Speed(*means), reference):
        return None
    parts = []
    for index, (name, text) in enumerate(zip(NAMES, reference.texts, strict=True)):
        each = ", ".join(f"{speed.over(reference)[index]:.0%} {when}" for when, speed in measured.items())
        parts.append(f"{name} {each} ({text})")
    return f"the machine was slower than its best: {'; '.join(parts)}"
