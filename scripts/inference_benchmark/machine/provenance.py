"""Software, device, host and git commit of a measurement. Imports no torch."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path
from typing import Any

from inference_benchmark.machine import cgroups, hardware, slurm
from inference_benchmark.machine.packages import PACKAGES


def software() -> dict[str, Any]:
    """Versions of Python and of the packages that every record names; None for one that is not installed."""
    versions = {name: package.version for name, package in PACKAGES.items() if package.in_software}
    return {"python": platform.python_version(), **versions}


def device(gpu: hardware.Gpu | None) -> dict[str, Any]:
    """Name, driver and memory of the measured device: this GPU, or the CPU if gpu is None."""
    if gpu is None:
        return {"kind": "cpu", "name": hardware.cpu_name()}
    return {
        "kind": "cuda",
        "name": gpu.name,
        "uuid": gpu.uuid,
        "memory_bytes": gpu.memory_bytes,
        "driver": hardware.driver_version(),
    }


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


def git(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit of the measuring code and whether it has uncommitted changes; None outside a checkout. Changes of the
    configuration do not count: each record has its own."""
    command = ("git", "-C", str(folder or Path(__file__).resolve().parents[3]))
    commit = slurm.output_of(*command, "rev-parse", "HEAD").strip()
    if not commit:
        return None
    changes = slurm.output_of(*command, "status", "--porcelain", "--", "Snakefile", "rules", "scripts").strip()
    return {"commit": commit, "dirty": bool(changes)}
