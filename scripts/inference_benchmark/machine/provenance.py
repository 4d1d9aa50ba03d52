"""Software, device, host and git commit of a measurement. Imports no torch."""

import os
import platform
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_benchmark.machine import cgroups, hardware, slurm
from inference_benchmark.machine.packages import PACKAGES


def software() -> dict[str, Any]:
    """Versions of Python and of the packages that every record names; None for one that is not installed."""
    versions = {name: package.version for name, package in PACKAGES.items() if package.in_software}
    return {"python": platform.python_version(), **versions}


def device(gpus: Sequence[hardware.Gpu]) -> dict[str, Any]:
    """Name, driver and memory of the measured device: of the first of these GPUs, or of the CPU if there are none. With
    several also those of each, and the kinds of links between them."""
    if not gpus:
        return {"kind": "cpu", "name": hardware.cpu_name()}
    each = [{name: getattr(gpu, name) for name in ("name", "uuid", "memory_bytes")} for gpu in gpus]
    several = {"devices": each, "links": hardware.links(gpus)} if len(gpus) > 1 else {}
    # One of another kind is another device.
    names = {"name": ", ".join(dict.fromkeys(gpu.name for gpu in gpus))}
    return {"kind": "cuda", **each[0], **names, "driver": hardware.driver_version(), **several}


def node_name() -> str:
    """The scheduler's name of this machine, else its host name."""
    return slurm.node_name() or socket.gethostname()


def host() -> dict[str, Any]:
    """Facts about the machine around the device."""
    return {
        "name": node_name(),
        "job": slurm.job_id(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": hardware.cpu_name(),
        "usable_cpus": hardware.usable_cpus(),
        "cpu_limit": cgroups.cpu_limit(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "memory_limit": cgroups.memory_limit(),
        "container": cgroups.container(),
    }


def git(code: Path | None = None) -> dict[str, Any] | None:
    """Commit of the measuring code and whether it has uncommitted changes; None where no repository holds it. Changes
    of the configuration do not count: each record has its own. unknown: why there is no commit although there is a
    repository. code: the folder of the program."""
    code = code or Path(__file__).resolve().parents[3]
    # Git sets these for its hooks; with them it looks nowhere else.
    named = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
    environ = {name: value for name, value in os.environ.items() if name not in named}

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(code), *arguments]
        return subprocess.run(command, env={**environ, "LC_ALL": "C"}, capture_output=True, text=True)

    try:
        # An archive that was unpacked in another repository is no part of it.
        held = ask("ls-files", "--error-unmatch", "scripts/measure.py")
        if "dubious ownership" in held.stderr:
            remedy = f"git config --global --add safe.directory {code}"
            return {"commit": None, "dirty": None, "unknown": f"{code} belongs to another user; {remedy}"}
        commit = ask("rev-parse", "HEAD").stdout.strip() if held.returncode == 0 else ""
        if not commit:
            return None
        changes = ask("status", "--porcelain", "--", "Snakefile", "rules", "scripts").stdout.strip()
    except OSError:  # no git
        return None
    return {"commit": commit, "dirty": bool(changes)}
