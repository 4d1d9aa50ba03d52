"""The formula of every figure, once each: functions of what was measured of a cell.

*End-to-end latency* is the wall time of one whole generate call, token ids on the host to token ids on the host.
*Time to first token* (TTFT) is that of a call of the same shape with max_new_tokens=1: what prefill takes. The
difference of the two is decode: N - 1 further steps. figures.py says how each figure is named and printed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from inference_benchmark.analysis import descriptive, roofline, statistics
from inference_benchmark.analysis.ceilings import Ceilings
from inference_benchmark.analysis.scatter import NO_PRIOR, Prior
from inference_benchmark.analysis.statistics import Estimate, Groups
from inference_benchmark.analysis.unseen import Around

#: Parts of a call that have a limit of their own.
PHASES = ("prefill", "decode", "whole")


class PhaseLimit(NamedTuple):
    """How close a phase of a cell comes to the limit of its machine.

    floor_s: the least time it can take. bound_by: ``memory``, ``arithmetic`` or ``link``.
    """

    floor_s: float
    measured_s: Estimate
    bound_by: str

    @property
    def is_exceeded(self) -> bool:
        """Whether it was faster than it can be. Then shapes or ceilings are wrong, and the limit is unknown."""
        return self.measured_s.value < self.floor_s

    @property
    def share(self) -> Estimate | None:
        """Floor over measured time; None where the limit is unknown."""
        return None if self.is_exceeded else self.measured_s.per(self.floor_s)


class Priors(NamedTuple):
    """What all cells of a run show about the scatter of one over its processes, for each time that figures follow
    from."""

    whole: Prior = NO_PRIOR
    first_token: Prior = NO_PRIOR
    decode: Prior = NO_PRIOR


NO_PRIORS = Priors()
#: How many times as wide as the target the interval of the calls for one token may be. They are short, so that of a
#: machine whose speed changes within seconds a round sees one speed or another, where whole calls see several.
FIRST_TOKEN_ALLOWANCE = 1.5


class TimedPart(NamedTuple):
    """samples_s: as in MeasuredCell. prior: of its processes. allowance: how many times as wide as the target its
    interval may be."""

    samples_s: Groups
    prior: Prior
    allowance: float

    @property
    def half_width(self) -> float | None:
        """Half its interval, as a part of the mean and of the allowance; None where it is unknown."""
        half_width = statistics.estimate(self.samples_s, self.prior).half_width
        return None if half_width is None else half_width / self.allowance

    def rounds_to_reach(self, half_width: float, most: int) -> int:
        return statistics.rounds_to_reach(half_width * self.allowance, self.samples_s, most, self.prior)


@dataclass(frozen=True)
class MeasuredCell:
    """Everything that the figures of a measured cell follow from.

    whole_s, first_token_s: seconds of each whole call and of each call for one token, by process; the latter are not
    used where new_tokens is 1. energy_j: (joules, their uncertainty) over the whole calls of each process; None without
    a counter. memory_bytes: (peak, whole) of each process. shapes and ceilings: None where unknown. priors: from
    all cells of the run.
    """

    batch_size: int
    prompt_tokens: int
    new_tokens: int
    whole_s: Groups
    first_token_s: Groups = ()
    energy_j: Sequence[tuple[float, float]] | None = None
    memory_bytes: Sequence[tuple[int, int | None]] = ()
    shapes: roofline.Shapes | None = None
    ceilings: Ceilings | None = None
    priors: Priors = NO_PRIORS

    @property
    def timed_parts(self) -> list[TimedPart]:
        """Those whose interval has a target: the whole calls, and those for one token."""
        whole = TimedPart(self.whole_s, self.priors.whole, 1)
        if self.new_tokens == 1:
            return [whole]
        return [whole, TimedPart(self.first_token_s, self.priors.first_token, FIRST_TOKEN_ALLOWANCE)]

    @cached_property
    def half_width(self) -> float | None:
        """The largest of its parts; None where one is unknown."""
        widths = [part.half_width for part in self.timed_parts]
        return None if None in widths else max(widths)

    def rounds_to_reach(self, half_width: float, most: int) -> int:
        """As statistics.rounds_to_reach, for all parts."""
        return max(part.rounds_to_reach(half_width, most) for part in self.timed_parts)

    @property
    def whole_calls_s(self) -> list[float]:
        """Seconds of each whole call of all processes."""
        return [seconds for samples in self.whole_s for seconds in samples]

    @cached_property
    def latency_s(self) -> Estimate:
        """Mean time of one whole call."""
        return statistics.estimate(self.whole_s, self.priors.whole)

    @cached_property
    def first_token_latency_s(self) -> Estimate:
        """Mean time of one call for one new token; the latency where only one is generated."""
        if self.new_tokens == 1:
            return self.latency_s
        return statistics.estimate(self.first_token_s, self.priors.first_token)

    @cached_property
    def decode_s(self) -> Estimate | None:
        """Latency less TTFT. None for one new token, and where the difference is no more than noise: a rate could be of
        any size."""
        if self.new_tokens == 1:
            return None
        return statistics.difference(self.whole_s, self.first_token_s, self.priors.decode)

    @cached_property
    def limits(self) -> Mapping[str, PhaseLimit]:
        """Limits of ``whole``, ``prefill`` and ``decode``; none where shapes, ceilings or the peak of a dtype or link
        are unknown, and that of ``decode`` only where its time is known."""
        if self.shapes is None or self.ceilings is None:
            return {}
        steps = {"prefill": roofline.prefill(self.shapes, self.batch_size, self.prompt_tokens)}
        if self.new_tokens > 1:
            steps["decode"] = roofline.decode(self.shapes, self.batch_size, self.prompt_tokens, self.new_tokens)
        peaks = self.ceilings.peaks.times(self.shapes.devices or 1)
        if not all(map(peaks.have, steps.values())):
            return {}
        floors = {name: roofline.floor(part, peaks) for name, part in steps.items()}
        floors["whole"] = roofline.Floor(*map(sum, zip(*floors.values(), strict=True)))
        measured_s = {"prefill": self.first_token_latency_s, "whole": self.latency_s, "decode": self.decode_s}
        return {
            name: PhaseLimit(floors[name].seconds, taken_s, floors[name].bound_by)
            for name, taken_s in measured_s.items()
            if taken_s is not None
        }


def priors(cells: Sequence[MeasuredCell], around: Sequence[Around] = ()) -> list[Priors]:
    """Of each of the cells of one run. around: the speed of the machine, for each cell; () if it is known for none."""
    whole_s = [cell.whole_s for cell in cells]
    # Where one token is generated there are no calls for one token beside the whole calls.
    timed_s = [(cell.whole_s, cell.first_token_s) if cell.new_tokens > 1 else ((), ()) for cell in cells]
    return list(
        map(
            Priors,
            statistics.priors_of_processes(whole_s, around),
            statistics.priors_of_processes([first_token_s for _, first_token_s in timed_s], around),
            statistics.priors_of_differences(timed_s, around),
        )
    )


def throughput_tok_per_s(cell: MeasuredCell) -> Estimate:
    """batch size x new tokens / latency."""
    return cell.latency_s.per(cell.batch_size * cell.new_tokens)


def time_per_token_ms(cell: MeasuredCell) -> Estimate:
    """1000 / throughput."""
    return Estimate(ms_per_token(throughput_tok_per_s(cell).value))


def prompt_tok_per_s(cell: MeasuredCell) -> Estimate:
    """batch size x prompt tokens / TTFT."""
    return cell.first_token_latency_s.per(cell.batch_size * cell.prompt_tokens)


def time_per_output_token_s(cell: MeasuredCell) -> Estimate | None:
    """(latency - TTFT) / (new tokens - 1)."""
    return cell.decode_s and cell.decode_s.times(1 / (cell.new_tokens - 1))


def decode_tok_per_s(cell: MeasuredCell) -> Estimate | None:
    """batch size x (new tokens - 1) / (latency - TTFT)."""
    return cell.decode_s and cell.decode_s.per(cell.batch_size * (cell.new_tokens - 1))


def limit_share(cell: MeasuredCell, phase: str) -> Estimate | None:
    """The least time that the machine allows / the measured time; None for a cell that was faster than that."""
    return cell.limits[phase].share if phase in cell.limits else None


def energy_per_token_j(cell: MeasuredCell) -> Estimate | None:
    """Joules over the timed whole calls / the tokens they generated, prefill inside."""
    if not cell.energy_j:
        return None
    tokens = cell.batch_size * cell.new_tokens * len(cell.whole_calls_s)
    joules, uncertainty = (sum(parts) / tokens for parts in zip(*cell.energy_j, strict=True))
    return Estimate(joules, joules - uncertainty, joules + uncertainty)


def peak_memory_bytes(cell: MeasuredCell) -> Estimate | None:
    """The most memory that a process took."""
    return Estimate(max(peak for peak, _ in cell.memory_bytes)) if cell.memory_bytes else None


def floor_s(cell: MeasuredCell, phase: str) -> float | None:
    """The least time that the machine allows for a phase."""
    return cell.limits[phase].floor_s if phase in cell.limits else None


def latency_percentile_s(cell: MeasuredCell, percent: float) -> float:
    """Of the whole calls of all processes."""
    return descriptive.percentile(cell.whole_calls_s, percent)


def latency_p95_s(cell: MeasuredCell) -> float | None:
    """The 95th percentile; None for fewer than 20 calls, where one of them alone would be it."""
    return latency_percentile_s(cell, 95) if len(cell.whole_calls_s) >= 20 else None


def latency_sd_s(cell: MeasuredCell) -> float | None:
    """The standard deviation (n - 1); None for a single call."""
    return descriptive.standard_deviation(cell.whole_calls_s)


def memory_share(memory_bytes: Sequence[tuple[int, int | None]]) -> float | None:
    """The largest part of the memory that a process took, of (peak, whole) of each process."""
    return max((peak / capacity for peak, capacity in memory_bytes if capacity), default=None)


def ms_per_token(throughput: float) -> float:
    """Milliseconds per generated token of the whole batch: 1000 / throughput."""
    return 1000 / throughput


def latency_from_throughput_s(tokens: int, throughput: float) -> float:
    """Seconds of a call that generates so many tokens in all its rows: tokens / throughput."""
    return tokens / throughput
