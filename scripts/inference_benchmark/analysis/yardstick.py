"""How fast the machine itself was, by the times of its yardstick: two fixed kernels, the same in every cell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis import statistics
from inference_benchmark.units import format_bytes

#: By what part a speed may be below the best one. In 25 ms a single time slice that another thread gets, 4 ms on most
#: systems, costs 16 %; a thread that wants a core for itself takes half of it.
TOLERANCE = 0.2


class Speed(NamedTuple):
    """What the two kernels reached: bytes read and written per second, and floating-point operations per second."""

    memory_bytes_per_s: float
    arithmetic_flop_per_s: float

    @classmethod
    def of(cls, times: Mapping[str, Any]) -> Self:
        """times: of one yardstick, as a record has them. All passes count: a neighbour holds back only some of them."""
        return cls(
            len(times["memory_s"]) * times["moved_bytes"] / sum(times["memory_s"]),
            len(times["arithmetic_s"]) * times["flop"] / sum(times["arithmetic_s"]),
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


#: What a person calls the two.
NAMES = ("memory", "arithmetic")


def best(speeds: Iterable[Speed]) -> Speed:
    """The highest of each kernel; at least one speed."""
    return Speed(*map(max, zip(*speeds, strict=True)))


def typical(speeds: Sequence[Speed]) -> Speed:
    """The median of each kernel; at least one speed."""
    return Speed(*(statistics.percentile(list(values), 50) for values in zip(*speeds, strict=True)))


def is_slower(speed: Speed, reference: Speed) -> bool:
    """Whether either kernel was slower than a reference by more than the tolerance."""
    return min(speed.over(reference)) < 1 - TOLERANCE


def why_slower(measured: Mapping[str, Speed], reference: Speed) -> str | None:
    """How a machine was slower than its best, for a message; None where it was not.

    measured: before and after a cell. reference: the best of the machine, so that two that differ by more than the
    tolerance are never both within it.
    """
    if not any(is_slower(speed, reference) for speed in measured.values()):
        return None
    parts = []
    for name, text, shares in zip(
        NAMES, reference.texts, zip(*(speed.over(reference) for speed in measured.values()), strict=True), strict=True
    ):
        each = ", ".join(f"{share:.0%} {when}" for when, share in zip(measured, shares, strict=True))
        parts.append(f"{name} {each} ({text})")
    return f"the machine was slower than its best: {'; '.join(parts)}"
