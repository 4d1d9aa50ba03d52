"""Environments, the software that cells are measured in: lock files, and problems with them."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inference_benchmark import files
from inference_benchmark.engines import ENGINES
from inference_benchmark.experiment.config_errors import show, unknown_names
from inference_benchmark.results.column import CURRENT

_EXACT = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[\w, .-]*\])?\s*==\s*[\w.+!-]+\s*(?:;[^#]*?)?(?:\s+--hash=\S+)*")
#: In a line of its own: nothing is installed that the file does not name, whatever packages say that they need.
NO_DEPS = "--no-deps"
#: Options of pip that say where packages come from. Others name files, whose changes would not be noticed.
_SOURCES = re.compile(
    rf"{NO_DEPS}|(-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--only-binary|--no-binary|--prefer-binary"
    r"|--require-hashes|--trusted-host)\b.*"
)


class Lock(NamedTuple):
    """Pip requirements with exact versions. text: lines without comments. packages: names, as normalised by PyPI."""

    text: str
    packages: frozenset[str]

    @property
    def digest(self) -> str:
        """A digest of the text: a changed comment does not change it."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def save(self) -> None:
        """Write it to where jobs read it, as it was when they were planned. Raises OSError."""
        if not (path := lock_path(self.digest)).exists():
            files.write(self.text, path)


def lock_path(digest: str) -> Path:
    """Where jobs read the lock with this digest."""
    return Path(".snakemake", "environments", f"{digest}.lock")


def parse(text: str) -> tuple[Lock, list[str]]:
    """(lock, problems, one line each) of the text of a file of requirements."""
    lines, packages, problems = [], set(), []
    for number, raw in enumerate(text.replace("\\\n", " ").splitlines(), start=1):
        line = " ".join(re.sub(r"(^|\s)#.*", "", raw).split())
        if not line:
            continue
        if exact := _EXACT.fullmatch(line):
            packages.add(re.sub(r"[-_.]+", "-", exact[1]).lower())
        elif not _SOURCES.fullmatch(line):
            problems.append(
                f"line {number}: {show(line)} is not exact; allowed: NAME==VERSION, {NO_DEPS}, and options of pip that "
                "say where packages come from"
            )
        lines.append(f"{line}\n")
    return Lock("".join(lines), frozenset(packages)), problems


def read(path: Path) -> tuple[Lock | None, list[str]]:
    """(lock, problems) of a file; no lock if it cannot be read."""
    if path.suffix in (".yaml", ".yml"):
        return None, [f"{path} is a conda file; allowed: a file of pip requirements with exact versions"]
    try:
        lock, problems = parse(files.read(path).decode())
        return lock, [f"{path}: {problem}" for problem in problems]
    except OSError as error:
        return None, [f"{path}: {error.strerror}; allowed: a file of pip requirements with exact versions"]
    except ValueError:
        return None, [f"{path} is not UTF-8 text"]


def contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """Problems with names, one line each. config: its environments and grid fit the schema."""
    named = config["environments"]
    for name in named:
        if name.lower() == CURRENT:  # some file systems ignore case
            yield f"environments.{name}: {show(name)} is the environment that Snakemake runs in; choose another name"
        if name.lower() in ENGINES:
            yield f"environments.{name}: {show(name)} is the name of an engine; choose another name"
    folders = Counter(name.lower() for name in named)
    for name in (name for name in named if folders[name.lower()] > 1):
        yield f"environments.{name}: the same folder as another one where file systems ignore capitals; rename it"
    used = {device: grid["environments"] for device, grid in config["grid"].items()}
    for device, names in used.items():
        yield from unknown_names(f"grid.{device}.environments", names, [CURRENT, *named], "under environments")
    for name in (name for name in named if not any(name in names for names in used.values())):
        yield f"environments.{name}: no grid names it; add it to grid.cuda.environments or grid.cpu.environments"


def of_engine(engine: str, named: Sequence[str], locks: Mapping[str, Lock]) -> tuple[Mapping[str, str], ...]:
    """Cell.environment of each environment in which an engine with an environment of its own is measured: its own in
    place of the current one, and each other whose lock has its package. named: the environments of a grid."""
    package = ENGINES[engine].package
    names = [engine if name == CURRENT else name for name in named]
    return tuple(of_cell(name, locks) for name in names if name == engine or package.is_in(locks[name].packages))


def of_cell(name: str, locks: Mapping[str, Lock]) -> Mapping[str, str]:
    return {"name": name, "lock": locks[name].digest} if name != CURRENT else {}


def name_of(environment: Mapping[str, str]) -> str:
    return environment.get("name", CURRENT)
