"""Fixtures: a copy of the project to run Snakemake in, cgroups with a limit, and a small file system."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import Workspace, fake_grid

from inference_benchmark.machine import cgroups
from inference_benchmark.models import families

# As where Snakemake is run by hand: a shell that starts something in the background has it ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_tests(tmp_path_factory, pytestconfig):
    """Weights drawn by tests go to a cache of their own. What transformers says of its families is kept between runs."""
    folder = tmp_path_factory.mktemp("cache")
    if hasattr(pytestconfig, "cache"):
        (folder / "transformers").symlink_to(pytestconfig.cache.mkdir("transformers"))
    os.environ["INFERENCE_BENCHMARK_CACHE"] = str(folder)
    families.names()  # here, so that no test meets the line that says that transformers is asked


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A project with a fake grid of six cells, nothing measured yet."""
    return Workspace.make(tmp_path, fake_grid())


@pytest.fixture(scope="session")
def _measured_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    Workspace.make(folder, fake_grid()).run()
    return folder


@pytest.fixture
def measured(_measured_once, tmp_path) -> Workspace:
    """The same, everything measured, with Snakemake's memory of it."""
    shutil.copytree(_measured_once, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system needs the right to mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@contextmanager
def cgroup_of_ours(controller: str, v1: dict[str, str], v2: dict[str, str]) -> Iterator[Path]:
    """The folder of a cgroup below ours with these limits, the first of which it must have; skips where that cannot be."""
    parent = next(cgroups.cgroups(controller), Path("/sys/fs/cgroup"))
    folder = parent / f"inference-benchmark-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"a {controller} cgroup cannot be made here: {error}")
    try:
        limits = v1 if (folder / next(iter(v1))).exists() else v2
        try:
            for n, (file, value) in enumerate(limits.items()):
                if n == 0 or (folder / file).exists():
                    (folder / file).write_text(value)
        except OSError as error:
            pytest.skip(f"a limit of {controller} cannot be set here: {error}")
        yield folder
    finally:
        for _ in range(50):
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.1)


@pytest.fixture
def cpu_cgroup():
    """One that may use half a CPU, and gets it before others do."""
    v1 = {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "cpu.shares": "100000"}
    with cgroup_of_ours("cpu", v1, {"cpu.max": "50000 100000", "cpu.weight": "10000"}) as folder:
        yield folder


@pytest.fixture
def memory_cgroup():
    """One with a limit of 200 MB."""
    v2 = {"memory.max": "200000000", "memory.swap.max": "0"}
    with cgroup_of_ours("memory", {"memory.limit_in_bytes": "200000000"}, v2) as folder:
        yield folder
