"""Every figure the tables show, as a formula of the raw samples. Each stands here and nowhere else.

A *sample* is the wall time in seconds of one whole generate call: from token ids on the host to
token ids on the host, prompt processing (prefill) included.
"""

from __future__ import annotations

from collections.abc import Sequence


def latency_s(samples_s: Sequence[float]) -> float:
    """Mean end-to-end latency of one generate call, in seconds."""
    return sum(samples_s) / len(samples_s)


def throughput_tok_per_s(batch_size: int, new_tokens: int, samples_s: Sequence[float]) -> float:
    """Generated tokens per second over all cycles: batch x new_tokens x cycles / total time."""
    return batch_size * new_tokens * len(samples_s) / sum(samples_s)


def ms_per_token(throughput: float) -> float:
    """Milliseconds per generated token of the whole batch: 1000 / throughput."""
    return 1000 / throughput
