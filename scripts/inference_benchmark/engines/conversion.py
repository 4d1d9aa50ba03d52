"""How a process that converts a checkpoint for an engine ends where it cannot."""

from __future__ import annotations

import sys

from inference_benchmark.engines.refusal import is_refusal, words_of
from inference_benchmark.models.cache import REFUSED


def report(error: Exception, what: str) -> int:
    """Print why it failed, and return its exit status, as cache.made_once reads them. what: it could not do."""
    refused = is_refusal(error)
    print(f"{what}: {words_of(error)}", file=sys.stdout if refused else sys.stderr)
    return REFUSED if refused else 1
