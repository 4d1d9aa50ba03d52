"""Fixtures: a copy of the project to run Snakemake in, cgroups with a limit, and a small file system."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import preloaded
import pytest
from filelock import FileLock
from running import REPO, Workspace, edit_ceilings, fake_grid, forked_children, run_study, wait_for

from inference_benchmark.experiment.studies import CeilingsStudy
from inference_benchmark.machine import cgroups
from inference_benchmark.models import families
from inference_benchmark.models.cache import cache_root

# As where Snakemake is run by hand: a shell that starts something in the background has it ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Most programs run in copies of the project, and would compile the copy again in every process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
preloaded.share()
# Nothing of the cache of the person who runs the tests; read when the hub's library is imported.
os.environ |= {"HF_HOME": str(preloaded.folder() / "hub"), "HF_HUB_OFFLINE": "1"}
# Threads that wait for others sleep. With more processes than CPUs, those that spin take most of the time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


#: Folders whose files take longest, those that take most first: what processes begin last should end soon.
_LONGEST = ("cluster", "gpu_checks", "browser", "engines", "workflow", "measure", "worker", "models")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folders = {name: n for n, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: folders.get(item.path.parent.name, len(folders)))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all processes of a test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _cache_of_tests(shared_folder):
    """Weights drawn by tests go to a cache of their own. What transformers says of its families is in the usual one: it
    takes a while, and nothing else can run meanwhile."""
    folder, asked = shared_folder / "cache", cache_root() / "transformers"
    folder.mkdir(exist_ok=True)
    with suppress(OSError):  # it is there, or the usual one cannot be written
        asked.mkdir(parents=True, exist_ok=True)
        (folder / "transformers").symlink_to(asked)
    os.environ["INFERENCE_BENCHMARK_CACHE"] = str(folder)
    families.names()  # here, so that no test meets the line that says that transformers is asked


@pytest.fixture(scope="session")
def ceilings_once(shared_folder) -> Path:
    """The record of the ceilings of this machine, "box", from few samples."""
    path, scripts = shared_folder / "ceilings.json", shared_folder / "ceilings/scripts"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            shutil.copytree(REPO / "scripts", scripts)
            edit_ceilings(scripts, {"= 5, 1000, 0.1, 1.0": "= 2, 1000, 0.01, 0.1"})
            run_study(CeilingsStudy("box", "cpu", None), path, scripts)
    return path


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A project with a fake grid of six cells, nothing measured yet."""
    return Workspace.make(tmp_path, fake_grid())


@pytest.fixture(scope="session")
def measured_once(shared_folder) -> Workspace:
    """The same, everything measured and made; only to be looked at."""
    return Workspace.run_once(shared_folder / "measured", fake_grid())


@pytest.fixture
def measured(measured_once, tmp_path) -> Workspace:
    """The same, with Snakemake's memory of it, to be changed."""
    return measured_once.copy(tmp_path)


@pytest.fixture
def forked() -> Iterator[None]:
    """Weights are drawn and converted in forks."""
    with forked_children():
        yield


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


def _is_removed(cgroup: Path) -> bool:
    """Whether no process is left in it, so that it can be removed."""
    try:
        cgroup.rmdir()
    except OSError:
        return False
    return True


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
        wait_for(lambda: _is_removed(folder))


@pytest.fixture
def cpu_cgroup():
    """One that may use half a CPU, and gets it before others do."""
    v1 = {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "cpu.shares": "100000"}
    with cgroup_of_ours("cpu", v1, {"cpu.max": "50000 100000", "cpu.weight": "10000"}) as folder:
        yield folder


@pytest.fixture
def memory_cgroup(request):
    """One with a limit of 200 MB, or of as many bytes as a test asks for."""
    limit = str(getattr(request, "param", 200_000_000))
    v2 = {"memory.max": limit, "memory.swap.max": "0"}
    with cgroup_of_ours("memory", {"memory.limit_in_bytes": limit}, v2) as folder:
        yield folder
