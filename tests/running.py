"""What tests run: scripts as the rules run them, and Snakemake in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import yaml
from made_up import TINY_BLOOM, as_config

from inference_benchmark.experiment import environments
from inference_benchmark.experiment.studies import Study, Subject
from inference_benchmark.records import record_file
from inference_benchmark.records.record import StudyRecord

REPO = Path(__file__).resolve().parents[1]
CODE = ("Snakefile", "config.yaml", "config.schema.yaml", "rules", "scripts", "report", "reference", "envs", "profiles")
PUBLISHED = REPO / "reference/bloom_a100_80gb.csv"
#: Files of the machine "box" that are quicker to make than all of them.
SUMMARY, TABLES, REPORT = (f"results/box/{name}" for name in ("summary.csv", "tables.md", "report.html"))
#: A plan of no jobs.
NOTHING: dict[str, int] = {}
#: The jobs that follow from a summary.
DERIVED = {"comparison": 1, "charts": 1, "tables": 1, "report": 1}
_FAKE_GRID = {
    "models": ["tiny"],
    "workloads": [{"prompt_tokens": 4, "new_tokens": 8}],
    "engines": ["fake"],
    "precisions": ["fp32", "bf16"],
    "batch_sizes": [1, 2, 512],
    "memory_limit": "300 MB",
    "max_batch": False,
    "divergence": False,
}


def fake_grid(**changes: Any) -> dict[str, Any]:
    """Six cells of the fake engine in config.yaml, of which two do not fit."""
    return {**json.loads(json.dumps(_FAKE_GRID)), **changes}


def fault(**behaviour: Any) -> str:
    """What FAKE_ENGINE is set to, so that the fake engine behaves like this."""
    return json.dumps(behaviour)


def flag_names(record: dict, prefixes: tuple[str, ...] = ("gpu", "energy", "conditions")) -> set[str]:
    """The names of a record's flags that begin like this."""
    return {flag["name"] for flag in record["flags"] if flag["name"].startswith(prefixes)}


def measure_jobs(plan: dict[str, int]) -> int:
    return plan.get("measure", 0)


def scramble(folder: Path) -> None:
    """Modification times in no order, as a clone leaves them."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    for index, path in enumerate(sorted(files, key=lambda p: p.name[::-1])):
        os.utime(path, (1_600_000_000 - index, 1_600_000_000 - index))


def measure_cli(
    subject: Subject, output: Path, prefix: tuple[str, ...] = (), options: tuple[str, ...] = (), **environ: str
) -> subprocess.CompletedProcess:
    """scripts/measure.py as the rules run it."""
    command = [*prefix, sys.executable, str(REPO / "scripts/measure.py"), "--subject", subject.to_json(), *options]
    return subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, env={**os.environ, **environ}, timeout=300
    )


def run_study(study: Study, path: Path, **environ: str) -> StudyRecord:
    """The record of a study, expected to succeed."""
    done = measure_cli(study, path, **environ)
    assert done.returncode == 0, done.stderr
    return record_file.load_for(study, path)


def merge_cli(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    """scripts/merge.py in a folder."""
    command = [sys.executable, REPO / "scripts/merge.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def read_record(path: Path, subject: Subject | None = None) -> dict[str, Any]:
    """A checked record as JSON. subject: what it has to be the record of."""
    if subject is None:
        record_file.load_any(path)
    else:
        record_file.load_for(subject, path)
    return json.loads(path.read_text())


def fake_gpus(tmp_path: Path, n: int = 1, **more: Any) -> dict[str, str]:
    """The environment of a process that finds n made-up GPUs, and locks of its own; see fake_nvml/pynvml.py."""
    gpus = [{"uuid": f"GPU-{i:04d}", "name": "NVIDIA Fake A", "memory_bytes": 80 * 10**9, **more} for i in range(n)]
    (tmp_path / "locks").mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, [str(REPO / "tests/fake_nvml"), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "FAKE_NVML": json.dumps({"gpus": gpus}), "TMPDIR": str(tmp_path / "locks")}


def another_python(folder: Path, **versions: str) -> str:
    """A virtual environment that has what this one has, except that these packages say they are of these versions."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    for name, version in versions.items():
        described = site / f"{name}-{version}.dist-info/METADATA"
        described.parent.mkdir()
        described.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return str(folder / "bin/python")


@contextmanager
def planned_environment(name: str, lock_file: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Cell.environment of a lock file, which lies where jobs in the working directory, this folder, read it."""
    lock, problems = environments.read(lock_file)
    assert problems == []
    with chdir(folder):
        lock.save()
        yield {"name": name, "lock": lock.digest}


def light_lock(folder: Path, **versions: str) -> str:
    """The text of a lock file that installs in seconds: packages that say they are of these versions and hold nothing,
    except that the environment finds what this one has."""
    folder.mkdir(exist_ok=True)
    for name, version in versions.items():
        about = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
            wheel.writestr(f"borrowed-by-{name}.pth", sysconfig.get_path("purelib"))
    lines = ["--no-index", f"--find-links {folder}", *(f"{name}=={version}" for name, version in versions.items())]
    return "\n".join(lines) + "\n"


def inside(cgroup: Path) -> tuple[str, ...]:
    """What to put before a command that is to run in a cgroup."""
    return "sh", "-c", f'echo $$ > {cgroup}/cgroup.procs && exec "$@"', "sh"


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
        workspace.config["measurement"] = as_config()
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
        self, precision: str, batch_size: int, engine: str = "fake", workload: str = "prompt4-new8", below: str = ""
    ) -> Path:
        """below: the folder of an environment."""
        return self.folder / "results/box" / below / f"tiny/{workload}/{engine}/{precision}/batch-{batch_size}.json"

    def record(self, *where: Any, **more: Any) -> dict:
        """A record as JSON."""
        return json.loads(self.record_path(*where, **more).read_text())

    def all_records(self) -> list[Path]:
        """The paths of all records, relative to the folder."""
        return sorted(path.relative_to(self.folder) for path in (self.folder / "results").rglob("batch-*.json"))
