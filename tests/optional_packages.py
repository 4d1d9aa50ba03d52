"""Optional packages, each installed into a folder of its own: they are no part of the default lock."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import REPO


def pins(lock: str) -> dict[str, str]:
    """The packages of a file in envs/, with their versions."""
    return dict(re.findall(r"^([\w-]+)==(.+)$", (REPO / "envs" / lock).read_text(), re.MULTILINE))


def install(lock: str, folder: Path) -> str:
    """A path with these packages, for PYTHONPATH. Without a package index the test is skipped.

    Where REQUIRE_OPTIONAL names locks, theirs have to be installed, and tests of others are skipped: they take minutes.
    """
    required = os.environ.get("REQUIRE_OPTIONAL", lock).split()
    if lock not in required:
        pytest.skip(f"REQUIRE_OPTIONAL does not name {lock}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    command = [*pip, "--requirement", str(REPO / "envs" / lock)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "DISABLE_CUDA": "1"})
    if done.returncode and "REQUIRE_OPTIONAL" not in os.environ:
        pytest.skip(f"{lock} cannot be installed: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return str(folder)
