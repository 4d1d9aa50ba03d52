"""What llama.cpp says, which its interface returns as a mere failure."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from typing import Any

import llama_cpp

#: Levels, as in ggml.h; the package names them otherwise.
_INFO, _ERROR, _CONTINUED = 2, 4, 5
_said: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=100))
_level = _INFO


@llama_cpp.llama_log_callback
def _listen(level: int, text: bytes, _: Any) -> None:
    """Keeps the last texts of each level, and prints errors: if llama.cpp ends the process, they tell why."""
    global _level
    _level = level if level != _CONTINUED else _level
    words = text.decode(errors="replace")
    _said[_level].append(words)
    if _level == _ERROR:
        print(words, end="", file=sys.stderr, flush=True)


llama_cpp.llama_log_set(_listen, None)


def clear() -> None:
    """Forget what has been said."""
    _said.clear()


def errors() -> str:
    """The errors since then."""
    return "".join(_said[_ERROR])


def has_said(words: str) -> bool:
    """Whether it has informed of this since then."""
    return words in "".join(_said[_INFO])
