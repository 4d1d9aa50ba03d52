"""What tests run: scripts as the rules run them, and Snakemake in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from filelock import FileLock
from made_up import TINY_BLOOM, as_config
from preloaded import HANGS_S, Preloaded

from inference_benchmark.experiment import environments
from inference_benchmark.experiment.studies import Study, Subject
from inference_benchmark.machine import cgroups
from inference_benchmark.models import checkpoint
from inference_benchmark.records import record_file
from inference_benchmark.records.record import StudyRecord

REPO = Path(__file__).resolve().parents[1]
CODE = ("Snakefile", "config.yaml", "config.schema.yaml", "rules", "scripts", "report", "reference", "envs", "profiles")
PUBLISHED = REPO / "reference/bloom_a100_80gb.csv"
#: Machines whose runs README.md shows, by the names of their folders in results/.
SHOWN = sorted(set(re.findall(r"results/([^/\s]+)/charts", (REPO / "README.md").read_text())))
#: Files of the machine "box" that are quicker to make than all of them.
SUMMARY, TABLES, REPORT = (f"results/box/{name}" for name in ("summary.csv", "tables.md", "report.html"))


def _modules(*packages: str) -> list[str]:
    """The modules of packages of ours."""
    folder = REPO / "scripts/inference_benchmark"
    paths = [path for package in packages for path in (folder / package).glob("[a-z]*.py")]
    return [f"inference_benchmark.{path.parent.name}.{path.stem}" for path in paths]


_BITSANDBYTES = ("bitsandbytes", "transformers.integrations.bitsandbytes")
_PROGRAMS = [*_modules("measure", "compare", "records", "render"), "vega_once", "venv_once"]
_ENGINES = (
    *_PROGRAMS,
    *(f"inference_benchmark.engines.{name}" for name in ("hf_static", "hf_continuous", "ctranslate2")),
    *(name for name in _modules("worker") if not name.endswith(".server")),  # which is started as a module
    *(f"transformers.models.{family}.modeling_{family}" for family in ("bloom", "gpt2", "llama")),
    *("ctranslate2.converters", "transformers.integrations.accelerate"),
    # Where there is a GPU, these ask CUDA about it, and forks could then not use it.
    *(() if Path("/dev/nvidiactl").exists() else (*_BITSANDBYTES, "torch._inductor.compile_fx")),
)
#: Processes that have imported what scripts need that use no engine; Snakemake; and the real engines with what measures.
PROGRAMS = Preloaded(*_PROGRAMS)
PLANS = (
    "snakemake.cli",
    *("snakemake.report.html_reporter", "smart_open", "fastjsonschema"),
    *_modules("experiment"),
    *(f"inference_benchmark.{name}" for name in ("records.attempts", "render.progress")),
    *("snakemake_once", "venv_once"),
)
SNAKEMAKE = Preloaded(*PLANS)
ENGINES = Preloaded(*_ENGINES)
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


def clock_stands_until(event: str | Path, **behaviour: Any) -> dict[str, str]:
    """The environment of scripts that measure in which their time begins to run out only at an event, however busy the
    machine is: a file that comes to be, or ``stopped``, a worker that was. behaviour: of the fake engine."""
    path = os.pathsep.join(filter(None, [str(REPO / "tests/standing_clock"), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "CLOCK_STANDS_UNTIL": str(event), "FAKE_ENGINE": fault(**behaviour)}


def wait_for(what: Callable[[], Any]) -> Any:
    """The first true value of what(), asked again and again."""
    until = time.monotonic() + HANGS_S
    while not (value := what()):
        assert time.monotonic() < until, f"nothing came of {what}"
        time.sleep(0.05)
    return value


def worker_of(parent: subprocess.Popen) -> int:
    """The pid of the worker of a running measure.py, once it is there."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")

    def workers() -> list[int]:
        found = map(int, children.read_text().split())
        return [pid for pid in found if "inference_benchmark.worker" in cgroups.read(Path(f"/proc/{pid}/cmdline"))]

    return wait_for(workers)[0]


def flag_names(record: dict, prefixes: tuple[str, ...] = ("gpu", "energy", "conditions")) -> set[str]:
    """The names of a record's flags that begin like this."""
    return {flag["name"] for flag in record["flags"] if flag["name"].startswith(prefixes)}


def measure_jobs(plan: dict[str, int]) -> int:
    return plan.get("measure", 0)


def shorten_ceilings(folder: Path) -> None:
    """Let the copy of the code in a folder measure ceilings of small operands, which takes seconds."""
    edit_ceilings(
        folder / "scripts",
        {'"cpu": 2**30': '"cpu": 2**22', '"cpu": (16, 128, 1024, 4096)': '"cpu": (16,)'},
    )


def edit_ceilings(scripts: Path, changes: Mapping[str, str]) -> None:
    """Let a copy of the scripts measure ceilings with other settings. changes: new texts by those that they replace."""
    path = scripts / "inference_benchmark/worker/ceilings.py"
    text = path.read_text()
    for usual, other in changes.items():
        assert text.count(usual) == 1
        text = text.replace(usual, other)
    path.write_text(text)


def scramble(folder: Path) -> None:
    """Modification times in no order, as a clone leaves them."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    for index, path in enumerate(sorted(files, key=lambda p: p.name[::-1])):
        os.utime(path, (1_600_000_000 - index, 1_600_000_000 - index))


def _changes_the_start(environ: Mapping[str, str]) -> bool:
    """Whether Python runs a module of PYTHONPATH when it starts."""
    folders = environ.get("PYTHONPATH", "").split(os.pathsep)
    return any(Path(folder, "sitecustomize.py").exists() for folder in folders if folder)


#: Runs a script in a cgroup.
_INSIDE = """
import runpy, sys
_, cgroup, *sys.argv = sys.argv
with open(f"{cgroup}/cgroup.procs", "w") as processes:
    processes.write("0")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def measure_cli(
    subject: Subject,
    output: Path | str,
    prefix: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
    cwd: Path | None = None,
    cgroup: Path | None = None,
    scripts: Path = REPO / "scripts",
    **environ: str,
) -> subprocess.CompletedProcess:
    """scripts/measure.py as the rules run it, but for its start where nothing depends on that. cgroup: where it runs."""
    command = [scripts / "measure.py", "--subject", subject.to_json(), *options, "--output", output]
    command = ["-c", _INSIDE, cgroup, *command] if cgroup else command
    whole, path, engine = {**os.environ, **environ}, environ.get("PYTHONPATH"), getattr(subject, "base_engine", None)
    # These are read when Python, or a library, is imported.
    if prefix or _changes_the_start(environ) or (path and engine is None):
        words = [*prefix, sys.executable, *command]
        return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=whole, timeout=HANGS_S)
    if engine == "ctranslate2" and "architecture" in subject.model:
        convert(drawn(subject.model))
    preloaded = PROGRAMS if engine == "fake" else engines_with(path) if path else ENGINES
    return preloaded.run(command, cwd, whole)


@cache
def engines_with(path: str) -> Preloaded:
    """What ENGINES is, with optional packages."""
    return Preloaded(*_ENGINES, path=path)


def noted(folder: Path) -> dict[str, str]:
    """Cell.model of a checkpoint, which jobs in the working directory find."""
    found = checkpoint.Checkpoint(checkpoint.fingerprint(folder), folder)
    found.save()
    return {"name": "mine", "fingerprint": found.fingerprint}


@contextmanager
def forked_children() -> Iterator[None]:
    """What this process starts with its own Python, to draw or to convert weights, is a fork of ENGINES."""
    with patch.object(sys, "executable", ENGINES.python):
        yield


def drawn(model: dict[str, Any]) -> Path:
    """The checkpoint of a model with an architecture, drawn if need be."""
    with forked_children():
        return checkpoint.ensure(model)


def convert(folder: Path) -> None:
    """Convert a checkpoint for ctranslate2, if it can be: an engine that needs it would import all anew for that."""
    code = "import sys, pathlib; from inference_benchmark.engines import ctranslate2; ctranslate2.converted(pathlib.Path(sys.argv[1]))"
    ENGINES.run(["-c", code, folder])


def run_study(study: Study, path: Path, scripts: Path = REPO / "scripts", **environ: str) -> StudyRecord:
    """The record of a study, expected to succeed."""
    done = measure_cli(study, path, scripts=scripts, **environ)
    assert done.returncode == 0, done.stderr
    return record_file.load_for(study, path)


def script(name: str, *arguments: Any, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """A script that uses no engine."""
    return PROGRAMS.run([REPO / f"scripts/{name}.py", *map(str, arguments)], cwd)


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
        made_up_package(site, name, version)
    return str(folder / "bin/python")


def made_up_package(site: Path, name: str, version: str) -> None:
    """An installed package that says it is of a version."""
    (site / name).mkdir(exist_ok=True)
    (site / name / "__init__.py").touch()
    described = site / f"{name}-{version}.dist-info/METADATA"
    described.parent.mkdir()
    described.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@contextmanager
def planned_environment(name: str, lock_file: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Cell.environment of a lock file, which lies where jobs in the working directory, this folder, read it."""
    lock, problems = environments.read(lock_file)
    assert problems == []
    with chdir(folder):
        lock.save()
        yield {"name": name, "lock": lock.digest}


def light_lock(folder: Path, requires: str = "", **versions: str) -> str:
    """The text of a lock file that installs in seconds: packages that say they are of these versions and hold nothing,
    except that the environment finds what this one has. requires: what they say that they need."""
    folder.mkdir(exist_ok=True)
    for name, version in versions.items():
        about = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            needs = f"Requires-Dist: {requires}\n" if requires else ""
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
            wheel.writestr(f"{name}/__init__.py", "")
            wheel.writestr(f"borrowed-by-{name}.pth", sysconfig.get_path("purelib"))
    lines = ["--no-index", f"--find-links {folder}", *(f"{name}=={version}" for name, version in versions.items())]
    return "\n".join(lines) + "\n"


class Workspace:
    """A folder with the project's code and a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        """A folder that has been made one before."""
        self.folder = folder
        self.config = yaml.safe_load((folder / "config.yaml").read_text())

    @classmethod
    def run_once(
        cls, folder: Path, grid: dict, change: Callable[[dict], None] = lambda _: None, **environ: str
    ) -> Workspace:
        """One in which everything was measured and made, by the first process that asks for it: only to be looked at.
        What Snakemake said is in run.log. change: of the configuration."""
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "run.log").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                made = cls.make(folder, grid)
                change(made.config)
                made.save()
                done = made.run(**environ)
                (folder / "run.log").write_text(done.stdout + done.stderr)
        return cls(folder)

    def copy(self, folder: Path) -> Workspace:
        """The same in another folder, which may be changed."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        (folder / "run.log").unlink()
        return Workspace(folder)

    @classmethod
    def make(cls, folder: Path, grid: dict, models: dict | None = None) -> Workspace:
        """Copy the code to a folder and configure it for the machine "box" and this grid."""
        for name in CODE:
            if (REPO / name).is_dir():
                # With its bytecode, but not what another process writes of it.
                shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
            else:
                shutil.copy(REPO / name, folder / name)
        workspace = cls(folder)
        workspace.config |= {"machine": "box", "device": "cpu", "grid": {"cuda": grid, "cpu": grid}}
        workspace.config["measurement"] = as_config()
        workspace.config["watch"] |= {"patience_seconds": 0, "max_retakes": 0}  # other tests use the CPUs
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
        shells = {} if _changes_the_start(environ) else self._programs.for_shells()
        return SNAKEMAKE.run(self.command(*arguments), self.folder, {**os.environ, **shells, **environ})

    @property
    def _programs(self) -> Preloaded:
        """What its jobs are forked from."""
        variants = self.config.get("engines") or {}
        used = {variants.get(name, {}).get("engine", name) for name in self.grid["engines"]}
        return PROGRAMS if used <= {"fake"} else ENGINES

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
