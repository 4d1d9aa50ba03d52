"""Two short fixed kernels that show how fast the machine itself is: one bound by memory, one by arithmetic.

A neighbour on the same host takes memory bandwidth, cache and clock, and no counter of a virtual machine shows it.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class _Kernels(NamedTuple):
    """A pass copies one half of a buffer onto the other, so many times, or multiplies square matrices, so many times.

    buffer_bytes: more than the caches of a core, or of a GPU. side: of the matrices. untimed_s, timed_s: minimal
    seconds of passes. A GPU first has to leave the clocks of an idle one.
    """

    buffer_bytes: int
    copies: int
    side: int
    products: int
    untimed_s: float
    timed_s: float


_KERNELS = {
    # The product is the one with which an engine starts: a larger one would leave more scratch space of the library
    # in the process, before the limit on memory counts. 25 ms, because a cell of the default grid takes a few seconds.
    "cpu": _Kernels(2**26, copies=1, side=256, products=14, untimed_s=0, timed_s=0.025),
    "cuda": _Kernels(2**28, copies=10, side=4096, products=1, untimed_s=0.05, timed_s=0.05),
}


def measure(device: torch.device) -> dict[str, Any]:
    """Seconds of every pass of both kernels, and the work of a pass: memory_s, moved_bytes, arithmetic_s, flop.

    No memory is kept: on a CPU a block of this size comes from the system and goes back to it.
    """
    times = _times(device, _KERNELS[device.type])
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return times


def _times(device: torch.device, kernels: _Kernels) -> dict[str, Any]:
    buffer = torch.ones(kernels.buffer_bytes // 4, device=device)
    source, target = buffer.chunk(2)
    memory_s = _passes(device, kernels, kernels.copies, lambda: target.copy_(source))
    left, right, product = (part.view(kernels.side, -1) for part in buffer[: 3 * kernels.side**2].chunk(3))
    left.uniform_()
    right.uniform_()
    arithmetic_s = _passes(device, kernels, kernels.products, lambda: torch.mm(left, right, out=product))
    return {
        "memory_s": memory_s,
        "moved_bytes": kernels.copies * kernels.buffer_bytes,
        "arithmetic_s": arithmetic_s,
        "flop": kernels.products * 2 * kernels.side**3,
    }


def _passes(device: torch.device, kernels: _Kernels, times: int, kernel: Callable[[], Any]) -> list[float]:
    """Seconds of successive passes; at least one is not timed."""

    def seconds_of_pass() -> float:
        began = time.perf_counter()
        for _ in range(times):
            kernel()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    for least_s in (kernels.untimed_s, kernels.timed_s):
        seconds = [seconds_of_pass()]
        while sum(seconds) < least_s:
            seconds.append(seconds_of_pass())
    return seconds
