"""A folder of results as it was at commits of its git repository."""

import io
import subprocess
import tarfile
from pathlib import Path

from inference_benchmark.cli import ProblemsError


def extracted(folder: Path, commits: str, scratch: Path) -> list[tuple[str, Path]]:
    """(short name of the commit, the folder there) for every commit of a range that changed its records, oldest first.
    folder: of a machine, in the working tree. commits: as git log takes them, such as ``v1.0..HEAD``. Raises
    ProblemsError where git cannot do it, or no commit did."""
    folder = folder.absolute()
    records = f":(glob){folder.name}/**/batch-*.json"
    shown = ("--reverse", "--format=%h", "--diff-filter=AM")  # added or modified
    listed = _git(folder, "log", *shown, "--end-of-options", commits, "--", records)
    names = listed.decode().split()
    if not names:
        raise ProblemsError(f"{folder}: no commit of {commits} changed its records")
    for name in names:
        archive = _git(folder, "archive", "--format=tar", name, folder.name)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(scratch / name, filter="data")
    return [(f"{folder.name} at {name}", scratch / name / folder.name) for name in names]


def _git(folder: Path, *arguments: str) -> bytes:
    """What git prints in the folder around a folder: paths are relative to it."""
    done = subprocess.run(["git", "-C", folder.parent, *arguments], capture_output=True)
    if done.returncode:
        message = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[0]
        raise ProblemsError(f"{folder}: git {arguments[0]}: {message}")
    return done.stdout
