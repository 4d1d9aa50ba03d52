"""What a machine does at its best, from the samples of its ceilings study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis.roofline import Peaks
from inference_benchmark.analysis.statistics import percentile


class Ceilings(NamedTuple):
    """The machine's peaks, by median and by fastest samples. flags: names of the warnings about their measurement."""

    typical: Peaks
    fastest: Peaks
    flags: str = ""

    @classmethod
    def of(cls, results: Sequence[Mapping[str, Any]], flags: Sequence[str] = ()) -> Self:
        return cls(peaks(results), peaks(results, min), ", ".join(flags))

    def for_process(self, tf32: bool) -> Self:
        """For a process whose products of fp32 matrices run in TF32, or do not."""
        if not tf32:
            return self
        return self._replace(typical=_with_tf32(self.typical), fastest=_with_tf32(self.fastest))


def _median(samples_s: Sequence[float]) -> float:
    return percentile(samples_s, 50)


def peaks(results: Sequence[Mapping[str, Any]], typical: Callable[[Sequence[float]], float] = _median) -> Peaks:
    """The fastest kernel at each working set and for each dtype, each by its typical sample.

    typical: of the seconds of one kernel. min gives the fastest sample, which tells how sure a peak is.
    A larger working set must not be faster than a smaller one: where noise made it so, the smaller is taken to be as
    fast.
    """
    bandwidth: dict[int, float] = {}
    flop_per_s: dict[str, float] = {}
    for result in results:
        seconds = typical(result["samples_s"])
        if result["kind"] == "bandwidth":
            size = result["working_set_bytes"]
            bandwidth[size] = max(bandwidth.get(size, 0.0), result["moved_bytes"] / seconds)
        else:
            dtype = result["dtype"]
            flop_per_s[dtype] = max(flop_per_s.get(dtype, 0.0), result["flop"] / seconds)
    falling, best = [], 0.0
    for size in sorted(bandwidth, reverse=True):
        best = max(best, bandwidth[size])
        falling.append((size, best))
    return Peaks(falling[::-1], flop_per_s)


def _with_tf32(machine: Peaks) -> Peaks:
    if "tf32" not in machine.flop_per_s:
        return machine
    return machine._replace(flop_per_s={**machine.flop_per_s, "float32": machine.flop_per_s["tf32"]})
