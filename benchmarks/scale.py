#!/usr/bin/env python3
"""What grids of many cells cost, step by step. Anyone can rerun it: python benchmarks/scale.py

The records are made up, their cells those of the fake engine; everything that handles them is real.

dry run   snakemake -n with nothing measured
first     seconds per cell of the first cells of a whole grid, with all others waiting, over those of
          scripts/measure.py by hand
no-op     snakemake with everything done, over an empty Snakefile with as many jobs, in turn; the ratio is one of CPU
          time, because other programs may use the machine. All files have the metadata that jobs leave, so that
          Snakemake compares the parameters of each
collect, compare, tables, charts, report   each script on the records of all cells

Beside the seconds: MB of memory at the most. The longest: the longest command line of any job.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml
from snakemake.persistence.file import FilePersistence

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "scripts"), str(REPO / "tests")]

from made_up import TINY_BLOOM, records_of, write_records
from running import Workspace

from inference_benchmark.experiment import config
from inference_benchmark.experiment.experiment import Experiment

SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
#: Models, workloads and batch sizes, of two precisions each, by the number of cells.
SHAPES = {
    66: (1, 1, 33),
    108: (1, 1, 54),
    660: (1, 3, 110),
    6600: (3, 11, 100),
    10000: (5, 10, 100),
    20000: (10, 10, 100),
}
#: As many jobs, and nothing in them; rules that follow from all of them as ours do.
EMPTY = """
N = range({n})
rule all:
    input: expand('out/{{n}}.json', n=N), 'a', 'b', 'c'
rule one:
    output: 'out/{{n}}.json'
    log: 'log/{{n}}'
    shell: 'echo {{wildcards.n}} > {{output}}'
rule a:
    input: expand('out/{{n}}.json', n=N)
    output: 'a'
    shell: 'touch {{output}}'
rule b:
    input: 'a'
    output: 'b'
    shell: 'touch {{output}}'
rule c:
    input: 'a'
    output: 'c'
    shell: 'touch {{output}}'
"""

#: Times a command from a small process: its largest resident set would not be told below that of the one above it.
METER = """
import os, sys, time
began = time.perf_counter()
pid = os.fork()
if not pid:
    os.execvp(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    print(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=file)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


class Cost(NamedTuple):
    seconds: float
    cpu_seconds: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.megabytes:.0f} MB"


def run(command: list[str], folder: Path) -> tuple[Cost, str]:
    """What a command costs, the largest of its processes counted for memory, and what it says."""
    with tempfile.NamedTemporaryFile() as cost:
        process = [sys.executable, "-I", "-S", "-c", METER, cost.name, *command]
        done = subprocess.run(process, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seconds, cpu_seconds, kilobytes = map(float, cost.read().split())
    if done.returncode:
        raise RuntimeError(f"{command[:3]} failed:\n{done.stdout[-3000:]}")
    return Cost(seconds, cpu_seconds, kilobytes / 1000), done.stdout


def project(folder: Path, n: int) -> tuple[Workspace, Experiment]:
    """A project with a grid of n cells, nothing measured."""
    models, workloads, batches = SHAPES[n]
    grid = {
        "models": [f"m{i}" for i in range(models)],
        "workloads": [{"prompt_tokens": 4, "new_tokens": 8 + i} for i in range(workloads)],
        "engines": ["fake"],
        "precisions": ["fp32", "bf16"],
        "batch_sizes": list(range(1, batches + 1)),
        "memory_limit": None,
        "max_batch": False,
        "divergence": False,
    }
    made = Workspace.make(folder, grid, {name: {"architecture": dict(TINY_BLOOM)} for name in grid["models"]})
    schema = yaml.safe_load((folder / "config.schema.yaml").read_text())
    before = Path.cwd()
    os.chdir(folder)
    try:
        return made, config.load(made.config, schema).experiments[0]
    finally:
        os.chdir(before)


def make_up_records(folder: Path, experiment: Experiment) -> int:
    """A record for every cell; their mean size in bytes."""
    write_records(folder, records_of(experiment))
    return round(statistics.mean(path.stat().st_size for path in (folder / "results").rglob("batch-*.json")))


def give_metadata(folder: Path, like: str, params: Mapping[str, list[str]]) -> None:
    """Give files the metadata of one that a job made, each with parameters of its own, by path."""
    metadata = FilePersistence(path=folder / ".snakemake")
    record = metadata._read_record(like)
    for path, values in params.items():
        metadata._write_record(path, record.model_copy(update={"params": [*map(repr, values)]}))


def first_cells(made: Workspace, experiment: Experiment, count: int = 12) -> float:
    """Seconds per cell at the start of a whole run, over those of the same cells by hand."""
    paths = [made.folder / cell.path for cell in list(experiment.cells())[: count + 1]]
    process = subprocess.Popen(
        [SNAKEMAKE], cwd=made.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not paths[-1].exists():
        if process.poll() is not None:
            raise RuntimeError("the run ended early")
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # heard in the background too: conftest sees to it
    process.wait()
    ours = (paths[-1].stat().st_mtime - paths[0].stat().st_mtime) / count
    by_hand = []
    for cell in list(experiment.cells())[:count]:
        command = [sys.executable, "scripts/measure.py", "--subject", cell.to_json(), "--output", "by-hand.json"]
        by_hand.append(run(command, made.folder)[0].seconds)
    shutil.rmtree(made.folder / "results")
    return ours - statistics.mean(by_hand)


def no_op(made: Workspace, n: int, pairs: int) -> Iterator[tuple[Cost, Cost]]:
    """(ours, an empty Snakefile's), in turn."""
    empty = made.folder / "empty"
    (empty / "out").mkdir(parents=True)
    (empty / "Snakefile").write_text(EMPTY.format(n=n))
    shutil.copytree(REPO / "profiles/default", empty / "profiles/default")
    files = [f"out/{i}.json" for i in range(n)]
    run([SNAKEMAKE, files[0]], empty)
    give_metadata(empty, files[0], {file: [] for file in files})
    for file in files:
        (empty / file).touch()
    run([SNAKEMAKE, "--scheduler", "greedy"], empty)
    for pair in range(pairs + 1):
        sides = []
        for folder in (made.folder, empty):
            cost, printed = run([SNAKEMAKE], folder)
            if "Nothing to be done" not in printed:
                raise RuntimeError(printed[-3000:])
            sides.append(cost)
        if pair:
            yield sides[0], sides[1]


def longest_line(made: Workspace) -> int:
    """Characters of the longest command that a job would run, after all were planned."""
    _, printed = run([SNAKEMAKE, "-n", "-p", "--forceall"], made.folder)
    return max(map(len, re.findall(r"python scripts/.*", printed)))


def measure(n: int, pairs: int) -> None:
    print(f"\n{n:,} cells")

    def tell(what: str, costs: object) -> None:
        print(f"  {what:10} {costs}", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        made, experiment = project(Path(scratch), n)
        tell("dry run", run([SNAKEMAKE, "-n", "--quiet"], made.folder)[0])
        tell("first", f"{first_cells(made, experiment):.2f} s a cell more than by hand")
        size = make_up_records(made.folder, experiment)
        tell("record", f"{size:,} bytes")
        texts = {cell.path: [cell.to_json()] for cell in experiment.cells()}
        give_metadata(made.folder, next(iter(texts)), texts)
        _, printed = run([SNAKEMAKE, "-n", "-p"], made.folder)
        for name in ("collect", "compare", "tables", "charts", "report"):
            command = re.search(rf"python (scripts/{name}\.py .*?)(?= 2> )", printed)[1]
            for folder in ("charts", "comparison"):
                (made.folder / "results/box" / folder).mkdir(exist_ok=True)
            tell(name, run(["bash", "-c", f"exec {sys.executable} {command}"], made.folder)[0])
        run([SNAKEMAKE], made.folder)
        costs = list(no_op(made, n, pairs))
        ratios = [ours.cpu_seconds / theirs.cpu_seconds for ours, theirs in costs]
        ours, theirs = (Cost(*map(statistics.median, zip(*side, strict=True))) for side in zip(*costs, strict=True))
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        tell("no-op", f"{ours}; empty {theirs}; ratio {ratio}")
        tell("longest", f"{longest_line(made):,} characters")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cells", nargs="*", type=int, default=[108, 660, 6600, 20000], help=f"of {', '.join(map(str, SHAPES))}"
    )
    parser.add_argument("--pairs", type=int, default=3, help="pairs of no-op runs")
    arguments = parser.parse_args()
    for n in arguments.cells:
        measure(n, arguments.pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
