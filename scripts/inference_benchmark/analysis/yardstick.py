"""How fast the machine itself was, by the times of its yardstick: two fixed kernels, the same in every cell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis import statistics
from inference_benchmark.units import format_bytes

#: How long passes have to stay fast. A thread that is there all the time gets its time slices, of 3 to 4 ms on Linux,
#: in any such stretch. One that only comes by, such as a daemon of the system, leaves some stretch alone.
STRETCH_S = 0.01
#: By what part the mean of before and after may be below the best. On a shared virtual machine without other work
#: it was so in 1 of 75 measurements; beside a thread that wants a core for itself speeds were 40 % and more below the
#: best (benchmarks/trust.py).
TOLERANCE = 0.2
#: The best is what a machine reaches this often: the fastest of hundreds of times is luck, and grows with their number.
_BEST_PERCENTILE = 95


class Speed(NamedTuple):
    """What the two kernels reached: bytes read and written per second, and floating-point operations per second."""

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


#: What a person calls the two.
NAMES = ("memory", "arithmetic")


def best(speeds: Iterable[Speed]) -> Speed:
    """The 95th percentile of each kernel; at least one speed."""
    return _percentile(speeds, _BEST_PERCENTILE)


def typical(speeds: Sequence[Speed]) -> Speed:
    """The median of each kernel; at least one speed."""
    return _percentile(speeds, 50)


def _mean(speeds: Iterable[Speed]) -> Speed:
    return Speed(*(statistics.mean(values) for values in zip(*speeds, strict=True)))


def _percentile(speeds: Iterable[Speed], percent: float) -> Speed:
    return Speed(*(statistics.percentile(list(values), percent) for values in zip(*speeds, strict=True)))


def is_slower(speed: Speed, reference: Speed) -> bool:
    """Whether either kernel was slower than a reference by more than the tolerance."""
    return min(speed.over(reference)) < 1 - TOLERANCE


def why_slower(measured: Mapping[str, Speed], reference: Speed) -> str | None:
    """How a machine was slower than its best, for a message; None where it was not.

    measured: before and after a cell; their mean is judged, because a single one is too short to be certain. reference:
    the best of the machine.
    """
    if not measured or not is_slower(_mean(measured.values()), reference):
        return None
    parts = []
    for name, text, shares in zip(
        NAMES, reference.texts, zip(*(speed.over(reference) for speed in measured.values()), strict=True), strict=True
    ):
        each = ", ".join(f"{share:.0%} {when}" for when, share in zip(measured, shares, strict=True))
        parts.append(f"{name} {each} ({text})")
    return f"the machine was slower than its best: {'; '.join(parts)}"
