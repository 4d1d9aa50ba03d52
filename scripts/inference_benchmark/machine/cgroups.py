"""Cgroup limits of this process, and the out-of-memory kills that the kernel counted."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path


def cgroups(
    controller: str, membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[Path]:
    """This process's cgroup for a controller (``memory``, ``cpu``) and its visible ancestors, nearest first."""
    if not membership.exists():
        return
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            base = root / "unified" if (root / "unified").is_dir() else root
        elif controller in controllers.split(","):
            base = root / controller
        else:
            continue
        # In a container, the path is that of the host and does not exist. The root is then the container's own cgroup.
        folder = base / name.lstrip("/")
        folder = folder if folder.is_dir() else base
        while folder.is_dir():
            yield folder
            if folder == base:
                break
            folder = folder.parent


def oom_kills(groups: Iterable[Path] | None = None) -> dict[str, int]:
    """Out-of-memory kills that the kernel counted in each cgroup of this process: {cgroup: count}."""
    names = ("memory.events", "memory.oom_control")  # cgroup v2, v1
    paths = (group / name for group in groups or cgroups("memory") for name in names)
    return {str(path.parent): count for path, count in numbers(paths, r"^oom_kill (\d+)$")}


def memory_limit(groups: Iterable[Path] | None = None) -> dict[str, int | str] | None:
    """The smallest cgroup memory limit of this process, as {name, bytes}; None without a limit."""
    names = ("memory.max", "memory.limit_in_bytes")  # cgroup v2, v1
    paths = (group / name for group in groups or cgroups("memory") for name in names)
    # v1 writes "no limit" as a number near 2**63.
    limits = [(n_bytes, str(path)) for path, n_bytes in numbers(paths, r"^(\d+)$") if n_bytes < 2**60]
    return dict(zip(("bytes", "name"), min(limits), strict=True)) if limits else None


def free_memory_bytes(groups: Iterable[Path] | None = None) -> int | None:
    """The memory that no process holds under the limits of this process's cgroups; None without a limit. What files
    take counts as free: the kernel gives it back."""
    free = []
    for group in groups or cgroups("memory"):
        limit, held = memory_limit([group]), numbers([group / "memory.stat"], r"^(?:anon|total_rss) (\d+)$")
        free += [limit["bytes"] - n_bytes for _, n_bytes in held if limit]
    return min(free, default=None)


def cpu_limit(groups: Iterable[Path] | None = None) -> float | None:
    """The smallest cgroup CPU quota of this process, in CPUs; None without a quota."""
    limits = []
    for group in groups or cgroups("cpu"):
        quota, _, period = read(group / "cpu.max").strip().partition(" ")  # cgroup v2
        if not period:  # v1
            quota, period = (read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def container(root: Path = Path("/")) -> str | None:
    """The kind of container around this process, from marker files and the environment; None outside a container."""
    for name, marker in (("docker", ".dockerenv"), ("podman", "run/.containerenv"), ("apptainer", ".singularity.d")):
        if (root / marker).exists():
            return name
    return "kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else None


def read(path: Path, max_characters: int = -1) -> str:
    """The text of a kernel file; "" if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(max_characters)
    except OSError:
        return ""


def numbers(paths: Iterable[Path], pattern: str) -> Iterator[tuple[Path, int]]:
    """(path, number) of each kernel file with a line that matches; the number is the pattern's group."""
    for path in paths:
        if match := re.search(pattern, read(path), re.MULTILINE):
            yield path, int(match[1])
