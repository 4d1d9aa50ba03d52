"""The peaks of a machine, from the samples of its ceilings study."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Self

from inference_benchmark.analysis.roofline import Peaks

#: The dtypes that a product can be widened to without loss: they hold every number of the narrower dtype and add in
#: fp32. docs/limits.md gives the reasons.
WIDER = {
    "tf32": ("float32",),
    "bfloat16": ("tf32", "float32"),
    "float16": ("tf32", "float32"),
    "int8": ("bfloat16", "float16", "tf32", "float32"),
}

#: The kinds of ceilings: what each is at, and the work of a call.
_KINDS = {
    "bandwidth": ("working_set_bytes", "moved_bytes"),
    "matmul": ("dtype", "flop"),
    "link": ("link", "moved_bytes"),
}


class Ceilings(NamedTuple):
    """The machine's peaks. flags: names of the warnings about their measurement."""

    peaks: Peaks
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, results: Sequence[Mapping[str, Any]], flags: Sequence[str] = ()) -> Self:
        return cls(peaks(results), tuple(flags))

    def for_process(self, tf32: bool) -> Self:
        """For a process whose products of fp32 matrices run in TF32, or do not."""
        flop_per_s = self.peaks.flop_per_s
        if not tf32 or "tf32" not in flop_per_s:
            return self
        return self._replace(peaks=self.peaks._replace(flop_per_s={**flop_per_s, "float32": flop_per_s["tf32"]}))


def peaks(results: Sequence[Mapping[str, Any]]) -> Peaks:
    """The fastest sample of all kernels at each working set, for each dtype and over each link.

    The fastest, as in STREAM (McCalpin, 1995), because other work on a machine can only slow a kernel down. If noise
    made a larger working set faster than a smaller one, the smaller counts as equally fast. If a wider dtype is faster
    than a narrower one, the narrower counts as equally fast, because its products could be widened.
    """
    speeds: dict[str, dict[Any, float]] = {kind: {} for kind in _KINDS}
    for result in results:
        at, work = _KINDS[result["kind"]]
        of_kind, place = speeds[result["kind"]], result[at]
        of_kind[place] = max(of_kind.get(place, 0.0), result[work] / min(result["samples_s"]))
    bandwidth, flop_per_s, link_bytes_per_s = speeds.values()
    falling = sorted(bandwidth, reverse=True)
    fastest = accumulate((bandwidth[size] for size in falling), max)
    widened = {
        dtype: max(flop_per_s[each] for each in (dtype, *WIDER.get(dtype, ())) if each in flop_per_s)
        for dtype in flop_per_s
    }
    return Peaks(list(zip(falling, fastest, strict=True))[::-1], widened, link_bytes_per_s)
