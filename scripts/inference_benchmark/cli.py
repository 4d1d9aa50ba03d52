"""What the thin command lines share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with main's status; a file that cannot be read or written is one line, not a traceback."""
    try:
        status = main()
    except OSError as error:
        status = fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    sys.exit(status)


def printable(text: str) -> str:
    """A text from a file, with nothing in it that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def fail(message: str) -> int:
    """Say what is wrong in the script's name; 1, to return from main."""
    print(f"{Path(sys.argv[0]).name}: {printable(message)}", file=sys.stderr)
    return 1
