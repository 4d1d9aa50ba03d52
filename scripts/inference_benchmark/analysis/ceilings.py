"""What a machine does at its best, from the samples in ceilings.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from inference_benchmark.analysis.roofline import Peaks
from inference_benchmark.analysis.statistics import percentile


class Machine(NamedTuple):
    """What a machine does at its best, by median samples and by the fastest, and flags from when it was measured."""

    typical: Peaks
    fastest: Peaks
    flags: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Machine:
        flags = ", ".join(flag["name"] for flag in document["flags"])
        return cls(peaks(document), peaks(document, min), flags)

    def for_process(self, tf32: bool) -> Machine:
        """For one whose products of fp32 matrices run in TF32, or do not."""
        if not tf32:
            return self
        return self._replace(typical=_with_tf32(self.typical), fastest=_with_tf32(self.fastest))


def _median(samples_s: Sequence[float]) -> float:
    return percentile(samples_s, 50)


def peaks(document: Mapping[str, Any], typical: Callable[[Sequence[float]], float] = _median) -> Peaks:
    """The fastest kernel at each working set and for each dtype, each by its typical sample.

    typical: of the seconds of one kernel; min gives what was seen once at the least, for how sure a peak is.
    Working sets that are larger must not be faster: where noise made one so, the smaller is held to be as fast.
    """
    bandwidth: dict[int, float] = {}
    flop_per_s: dict[str, float] = {}
    for result in document["results"]:
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


def _with_tf32(found: Peaks) -> Peaks:
    if "tf32" not in found.flop_per_s:
        return found
    return found._replace(flop_per_s={**found.flop_per_s, "float32": found.flop_per_s["tf32"]})
