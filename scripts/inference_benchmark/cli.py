"""Messages, exit status and arguments that scripts share."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

#: How often a person is told what goes on, where it takes long.
TOLD_EVERY_S = 15


class ProblemsError(ValueError):
    """Errors for the user to correct; ``problems`` holds one line each."""

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(problems))


def run(main: Callable[[], int | None]) -> NoReturn:
    """Exit with the status that main returns, with 0 for None, or where it raises ProblemsError or OSError with 1 and
    one line for each problem instead of a traceback. What it prints is UTF-8, whatever the locale."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")
    try:
        status = main()
    except ProblemsError as error:
        for problem in error.problems:
            status = fail(problem)
    except OSError as error:
        status = fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    sys.exit(status)


def printable(text: str) -> str:
    """The text with its control characters replaced: a terminal would interpret them."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def fail(message: str) -> int:
    """Print an error message after the name of the script. Returns 1, the exit status for main."""
    line = f"{Path(sys.argv[0]).name}: {printable(message)}"
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:  # a log on a full disk; the other stream is a terminal
        print(line)
    return 1


@contextmanager
def signals_wait() -> Iterator[None]:
    """Hold back signals that end this process while it starts another, which could not be ended before it is known. The
    new process inherits the blocked signals. This thread alone holds them back: start others in such a block, too, so
    that they never take one."""
    signals = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def every(seconds: float, tell: Callable[[], object]) -> threading.Event:
    """Call tell again and again, on a thread that sleeps meanwhile, until the returned event is set."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            tell()

    with signals_wait():
        threading.Thread(target=repeat, daemon=True).start()
    return ended


def add_template(parser: argparse.ArgumentParser, name: str) -> None:
    """The argument --template. name: of the default in the project's folder report/."""
    parser.add_argument(
        "--template",
        type=Path,
        default=Path(__file__).parents[2] / "report" / name,
        help="the page's Jinja template, with page.css and the templates it uses beside it (%(default)s)",
    )
