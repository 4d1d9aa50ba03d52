"""Fixtures: a copy of the project to run Snakemake in, and cells to measure."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_benchmark.experiment.cells import Cell
from inference_benchmark.machine import cgroups

REPO = Path(__file__).resolve().parents[1]
CODE = ("Snakefile", "config.yaml", "config.schema.yaml", "rules", "scripts", "report", "reference", "envs", "profiles")

TINY_BLOOM = {"model_type": "bloom", "hidden_size": 64, "n_head": 2, "n_layer": 2, "vocab_size": 300}
MEASUREMENT = {
    "warmup_tolerance_percent": 5,
    "max_warmup_calls": 5,
    "min_cycles": 3,
    "min_seconds": 0,
    "target_half_width_percent": 1,
    "max_seconds": 0,
    "processes": 1,
    "seed": 0,
    "threads": None,
}
#: The jobs that follow from a summary.
DERIVED = {"comparison": 1, "charts": 1, "tables": 1, "report": 1}
FAKE_GRID = {
    "models": ["tiny"],
    "workloads": [{"prompt_tokens": 4, "new_tokens": 8}],
    "engines": ["fake"],
    "precisions": ["fp32", "bf16"],
    "batch_sizes": [1, 2, 512],
    "memory_limit": "300 MB",
    "max_batch": False,
    "divergence": False,
}


# As where Snakemake is run by hand: a shell that starts something in the background has it ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two lanes for `make test`: within each, one test after the other.

    Groups of xdist 3.8 (xdist_group) do nothing with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "cluster" if "test_slurm.py::" in nodeid else "here"

    return Lanes(config, log)


@pytest.fixture(scope="session", autouse=True)
def _weights_cache(tmp_path_factory):
    """Weights drawn by tests go to a cache of their own."""
    os.environ["INFERENCE_BENCHMARK_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def make_cell(**changes) -> Cell:
    """A cell of the fake engine, quick to measure; changes replace fields."""
    fields = {
        "machine": "box",
        "device": "cpu",
        "model": {"name": "tiny", "architecture": TINY_BLOOM, "seed": 0},
        "workload": {"prompt_tokens": 4, "new_tokens": 8},
        "engine": "fake",
        "precision": "fp32",
        "batch_size": 2,
        "memory_limit_bytes": None,
        "measurement": dict(MEASUREMENT),
    }
    return Cell(**{**fields, **changes})


def measure_cli(
    cell: Cell, output: Path, prefix: tuple[str, ...] = (), options: tuple[str, ...] = (), **environ: str
) -> subprocess.CompletedProcess:
    """scripts/measure.py as the rule runs it."""
    command = [*prefix, sys.executable, str(REPO / "scripts/measure.py"), "--cell", cell.to_json(), *options]
    return subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, env={**os.environ, **environ}, timeout=300
    )


def fake_gpus(tmp_path: Path, n: int = 1, **more) -> dict[str, str]:
    """The environment of a process that finds n made-up GPUs, and locks of its own; see fake_nvml/pynvml.py."""
    gpus = [{"uuid": f"GPU-{i:04d}", "name": "NVIDIA Fake A", "memory_bytes": 80 * 10**9, **more} for i in range(n)]
    (tmp_path / "locks").mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, [str(REPO / "tests/fake_nvml"), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "FAKE_NVML": json.dumps({"gpus": gpus}), "TMPDIR": str(tmp_path / "locks")}


class Workspace:
    """A folder with the project's code and a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        """A folder that has been made one before."""
        self.folder = folder
        self.config = yaml.safe_load((folder / "config.yaml").read_text())

    @classmethod
    def make(cls, folder: Path, grid: dict, models: dict | None = None) -> Workspace:
        """Copy the code to a folder and configure it for the machine "box" and this grid."""
        for name in CODE:
            if (REPO / name).is_dir():
                shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(REPO / name, folder / name)
        workspace = cls(folder)
        workspace.config |= {"machine": "box", "device": "cpu", "grid": {"cuda": grid, "cpu": grid}}
        workspace.config["measurement"] = dict(MEASUREMENT)
        workspace.config["models"] = models or {"tiny": {"architecture": dict(TINY_BLOOM)}}
        workspace.save()
        return workspace

    @property
    def grid(self) -> dict:
        return self.config["grid"]["cpu"]

    def save(self) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).parent / "snakemake"), *arguments, "--cores", "1", "--resources", "gpu=1"]

    def snakemake(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={**os.environ, **environ},
            timeout=600,
        )

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
        """snakemake, expected to succeed."""
        done = self.snakemake(*arguments, **environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def plan(self, *arguments: str) -> dict[str, int]:
        """How many jobs of each rule a dry run plans."""
        done = self.run("-n", *arguments)
        return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE)}

    def record_path(
        self, precision: str, batch_size: int, engine: str = "fake", workload: str = "prompt4-new8"
    ) -> Path:
        return self.folder / f"results/box/tiny/{workload}/{engine}/{precision}/batch-{batch_size}.json"

    def record(self, *where, **more) -> dict:
        return json.loads(self.record_path(*where, **more).read_text())


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A project with a fake grid of six cells, nothing measured yet."""
    return Workspace.make(tmp_path, json.loads(json.dumps(FAKE_GRID)))


@pytest.fixture(scope="session")
def _measured_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    Workspace.make(folder, json.loads(json.dumps(FAKE_GRID))).run()
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


def inside(cgroup: Path) -> tuple[str, ...]:
    """What to put before a command that is to run in a cgroup."""
    return "sh", "-c", f'echo $$ > {cgroup}/cgroup.procs && exec "$@"', "sh"


@pytest.fixture
def cpu_cgroup():
    """One that may use half a CPU."""
    v1 = {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}
    with cgroup_of_ours("cpu", v1, {"cpu.max": "50000 100000"}) as folder:
        yield folder


@pytest.fixture
def memory_cgroup():
    """One with a limit of 200 MB."""
    v2 = {"memory.max": "200000000", "memory.swap.max": "0"}
    with cgroup_of_ours("memory", {"memory.limit_in_bytes": "200000000"}, v2) as folder:
        yield folder
