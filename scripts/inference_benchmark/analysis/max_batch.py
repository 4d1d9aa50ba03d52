"""The search for the largest batch that fits: the next batch size to try, and the limit so far. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

#: ``batch_size``, whether it ``fits``, and the evidence.
Try = Mapping[str, Any]


class BatchLimit(NamedTuple):
    """fits: the largest batch size that fits, 0 where none does. fails: the smallest that does not; None if unknown."""

    fits: int
    fails: int | None


def batch_limit(tries: Sequence[Try]) -> BatchLimit:
    """The limit so far. A batch size that failed once does not fit, even if other tries of it succeeded."""
    fails = min((t["batch_size"] for t in tries if not t["fits"]), default=None)
    fitting = [t["batch_size"] for t in tries if t["fits"] and (fails is None or t["batch_size"] < fails)]
    return BatchLimit(max(fitting, default=0), fails)


def next_batch_size(tries: Sequence[Try], tolerance: float) -> int | None:
    """The batch size to try next; None when the search is over.

    The batch is doubled until one fails. Then the middle between the largest that fits and the smallest that fails is
    tried, until they differ by 1 or by the tolerance, a part of the one that fits. At last the largest that fits is
    tried again, because the memory now holds what the other tries left.
    """
    fits, fails = batch_limit(tries)
    if fails is None:
        return max(1, 2 * fits)
    if fails - fits > max(1, tolerance * fits):
        return (fits + fails) // 2
    confirmed = sum(t["batch_size"] == fits for t in tries) >= 2
    return None if fits == 0 or confirmed else fits


def failing_try(tries: Sequence[Try], batch_size: int) -> Try | None:
    """The try that shows that a batch size does not fit; None if there is none."""
    fails = batch_limit(tries).fails
    if fails is None or batch_size < fails:
        return None
    return next(t for t in tries if t["batch_size"] == fails and not t["fits"])
