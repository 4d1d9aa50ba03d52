"""Where memory ends: which batch size to try next, and what the tries say. Pure functions of the tries so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Try = Mapping[str, Any]


class Edge(NamedTuple):
    """fits: the largest batch size that does, 0 where none does. fails: the smallest that does not."""

    fits: int
    fails: int | None


def edge(tries: Sequence[Try]) -> Edge:
    """What is known so far. A batch size that failed once does not fit, whatever else was seen of it."""
    fails = min((t["batch_size"] for t in tries if not t["fits"]), default=None)
    fitting = [t["batch_size"] for t in tries if t["fits"] and (fails is None or t["batch_size"] < fails)]
    return Edge(max(fitting, default=0), fails)


def next_batch_size(tries: Sequence[Try]) -> int | None:
    """The batch size to try next: doubled until one fails, then halfway in between, at last the largest that fits
    once more, after all the others have been in this memory; None when there is nothing left to find out."""
    fits, fails = edge(tries)
    if fails is None:
        return max(1, 2 * fits)
    if fails - fits > 1:
        return (fits + fails) // 2
    confirmed = sum(t["batch_size"] == fits for t in tries) >= 2
    return None if fits == 0 or confirmed else fits
