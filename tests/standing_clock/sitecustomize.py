"""The clock of scripts that measure stands still until CLOCK_STANDS_UNTIL: a file is there, or a worker was stopped.

Their time is up only after that, however busy the machine is. Python imports this module when it starts.
"""

import os
import sys
import time
from pathlib import Path

_until, _real, _began = os.environ.get("CLOCK_STANDS_UNTIL"), time.monotonic, []


def _descendants(pid: int | str) -> list[str]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [*children, *(other for child in children for other in _descendants(child))]


def _is_stopped(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    except OSError:
        return False


def _has_come() -> bool:
    return any(map(_is_stopped, _descendants(os.getpid()))) if _until == "stopped" else Path(_until).exists()


def _monotonic() -> float:
    if not _began and _has_come():
        _began.append(_real())
    return _real() - _began[0] if _began else 0.0


if _until and any(word.endswith("/measure.py") for word in sys.orig_argv):
    time.monotonic = _monotonic
