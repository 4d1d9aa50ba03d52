"""What the command lines of the scripts have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn


class ProblemsError(ValueError):
    """Things for a user to correct; ``problems`` holds one line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with the status that main returns.

    Where main raises ProblemsError, or OSError for a file, each problem is one line, not a traceback, and the status 1.
    """
    try:
        status = main()
    except ProblemsError as error:
        for problem in error.problems:
            status = fail(problem)
    except OSError as error:
        status = fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    sys.exit(status)


def printable(text: str) -> str:
    """A text from a file, without the control characters that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def fail(message: str) -> int:
    """Print what is wrong, after the name of the script. Returns 1, for main to return."""
    print(f"{Path(sys.argv[0]).name}: {printable(message)}", file=sys.stderr)
    return 1
