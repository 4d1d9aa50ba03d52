"""Every figure the tables show, as a formula of the raw samples. Each stands here and nowhere else.

*End-to-end latency* is the wall time of one whole generate call, token ids on the host to token ids on the
host; *time to first token* (TTFT) is that of a call of the same shape with max_new_tokens=1: what prefill
takes. What lies between the two is decode: N - 1 further steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from inference_benchmark.analysis import roofline, statistics
from inference_benchmark.analysis.roofline import Peaks, Shapes
from inference_benchmark.analysis.statistics import Estimate


class Figures(NamedTuple):
    """What was measured of a cell, each with its 95 % interval.

    Of one new token there is no decode; nor can it be told apart where all tokens took no longer than the
    first. The last two are None then.
    """

    latency_s: Estimate
    throughput_tok_per_s: Estimate
    first_token_s: Estimate
    time_per_output_token_s: Estimate | None = None
    decode_tok_per_s: Estimate | None = None


@cache
def interval_columns(name: str) -> tuple[str, str]:
    """The columns with the ends of a figure's interval: ``latency_s`` -> ``latency_low_s``, ``latency_high_s``."""
    stem, unit = re.fullmatch(r"(.+?)_(tok_per_s|s)", name).groups()
    return f"{stem}_low_{unit}", f"{stem}_high_{unit}"


def figures(record: Mapping[str, Any]) -> Figures:
    """The figures of a record whose outcome is ok.

    throughput = batch x N / latency; TPOT = (latency - TTFT) / (N - 1);
    decode throughput = batch x (N - 1) / (latency - TTFT), N being the new tokens per row.
    """
    batch, new_tokens = record["cell"]["batch_size"], record["cell"]["workload"]["new_tokens"]
    whole, first = ([run[name] for run in record["runs"]] for name in ("samples_s", "first_token_s"))
    latency = statistics.estimate(whole)
    throughput = latency.per(batch * new_tokens)
    if new_tokens == 1:
        return Figures(latency, throughput, latency)
    first_token, decode = statistics.estimate(first), statistics.difference(whole, first)
    if decode.value <= 0:
        return Figures(latency, throughput, first_token)
    steps = new_tokens - 1
    return Figures(latency, throughput, first_token, decode.times(1 / steps), decode.per(batch * steps))


class Limit(NamedTuple):
    """How far a phase of a cell is from what its machine can do. floor_s: the least time it can take; share: floor
    over measured; bound_by: ``memory`` or ``arithmetic``; sure: False where the floor, by the fastest samples of
    the ceilings, is above what was measured: then shapes or ceilings are wrong."""

    floor_s: float
    share: float
    bound_by: str
    sure: bool = True


def limits(record: Mapping[str, Any], found: Figures, typical: Peaks, fastest: Peaks) -> dict[str, Limit]:
    """Limits of ``prefill``, ``decode`` and ``whole`` of a record whose outcome is ok; none where its shapes or a
    ceiling for its arithmetic is unknown.

    typical, fastest: the machine's peaks by median and by fastest samples. Measured prefill is the TTFT, measured
    decode the latency less the TTFT.
    """
    if record["model"].get("shapes") is None:
        return {}
    shapes = Shapes.from_record(record["model"]["shapes"])
    batch, workload = record["cell"]["batch_size"], record["cell"]["workload"]
    prompt, new_tokens = workload["prompt_tokens"], workload["new_tokens"]
    steps = {"prefill": roofline.prefill(shapes, batch, prompt)}
    measured_s = {"prefill": found.first_token_s.value}
    if found.time_per_output_token_s is not None:
        steps["decode"] = roofline.decode(shapes, batch, prompt, new_tokens)
        measured_s["decode"] = found.time_per_output_token_s.value * (new_tokens - 1)
    if any(dtype not in typical.flop_per_s for part in steps.values() for dtype in part.flop):
        return {}
    floors, least = (
        {name: roofline.floor(part, peaks) for name, part in steps.items()} for peaks in (typical, fastest)
    )
    if new_tokens == 1 or "decode" in steps:
        measured_s["whole"] = found.latency_s.value
        for each in (floors, least):
            each["whole"] = each["prefill"].and_then(each["decode"]) if "decode" in each else each["prefill"]
    return {
        name: Limit(
            each.seconds, each.seconds / measured_s[name], each.bound_by, least[name].seconds <= measured_s[name]
        )
        for name, each in floors.items()
    }


def energy_per_token_j(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """(joules per generated token, its uncertainty from the counter's resolution); None without a counter.

    Over the timed whole calls of all processes: prefill included.
    """
    runs = record["runs"]
    if not runs or any(run["energy"] is None for run in runs):
        return None
    tokens = record["cell"]["batch_size"] * record["cell"]["workload"]["new_tokens"]
    tokens *= sum(len(run["samples_s"]) for run in runs)
    return tuple(sum(run["energy"][name] for run in runs) / tokens for name in ("joules", "resolution_j"))


def memory_share(record: Mapping[str, Any]) -> float | None:
    """The largest part of what there is that a process took: reserved of the device, or resident of the host.

    Of the host there is what its cgroup allows, if that is less.
    """
    shares = []
    for memory in (run["memory"] for run in record["runs"]):
        if "peak_reserved_bytes" in memory:
            shares.append(memory["peak_reserved_bytes"] / memory["device_total_bytes"])
        elif "peak_rss_bytes" in memory:
            limit = record["host"].get("memory_limit") or {"bytes": record["host"].get("memory_bytes")}
            shares += [memory["peak_rss_bytes"] / limit["bytes"]] if limit["bytes"] else []
    return max(shares, default=None)


def latency_s(tokens: int, throughput: float) -> float:
    """Seconds of a call that generates so many tokens in all its rows: tokens / throughput."""
    return tokens / throughput


def ms_per_token(throughput: float) -> float:
    """Milliseconds per generated token of the whole batch: 1000 / throughput."""
    return 1000 / throughput
