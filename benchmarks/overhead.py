#!/usr/bin/env python3
"""What the benchmark itself costs, as ratios within one run. Anyone can rerun it: python benchmarks/overhead.py

cell      wall time of scripts/measure.py on a tiny cell, over that of a bare script that imports torch and
          transformers, loads the same checkpoint and generates the same number of times
forked    a cell forked from a server, as in a run of Snakemake: its wall time over that of the bare script and that
          of one that starts cold, and its latency over the latter's
latency   latency in the record over latency in the bare script, process by process in turn
engines   a timed call of every engine over the same call of its library, on one loaded model, in turn (calls.py): in
          each cell of the default CPU grid that fits, and of hf-static and hf-continuous (with a Llama) besides.
          --engines names others, such as vllm and llama-cpp, which are installed if need be
noop      wall time of `snakemake` with nothing to do at 66 cells, over that of an empty Snakefile of the same size
others    this benchmark, a bare script and optimum-benchmark in turn: others.py. By name only: it installs
          optimum-benchmark, and takes a quarter of an hour
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "scripts"), str(REPO / "tests")]

import others
from made_up import TINY_BLOOM
from ratios import (
    FORKED,
    SMALL,
    bare_command,
    bare_s,
    make_cell,
    measure_command,
    measured_s,
    python_of,
    report,
    timed,
)
from running import Workspace, fake_grid

from inference_benchmark.engines import ENGINES
from inference_benchmark.machine import interpreter
from inference_benchmark.models import checkpoint


def cell_ratios(
    architecture: dict, precision: str, batch: int, new_tokens: int, cycles: int, pairs: int, environ=os.environ
):
    """(wall ratios, latency ratios) of measure.py in an environment over the bare script, in turn."""
    cell = make_cell(architecture, precision, batch, new_tokens, cycles)
    bare = bare_command(cell)
    walls, latencies = [], []
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "r.json"
        ours = measure_command(cell, output)
        for pair in range(pairs + 1):
            # In turn, each first every other time, so that a drift of the machine's speed cancels.
            if pair % 2:
                ours_wall_s, _ = timed(ours, env=environ)
                bare_wall_s, done = timed(bare)
            else:
                bare_wall_s, done = timed(bare)
                ours_wall_s, _ = timed(ours, env=environ)
            if pair:  # the first pair warms the disk cache
                walls.append(ours_wall_s / bare_wall_s)
                latencies.append(measured_s(output) / bare_s(cell, done.stdout))
    return walls, latencies


def forked_ratios(architecture: dict, pairs: int) -> tuple[list[float], list[float]]:
    """(wall ratios, latency ratios) of cells that are forked over those that start cold, in turn."""
    walls, latencies = [], []
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "r.json"
        command = measure_command(make_cell(architecture, "fp32", 1, 16, 9), output)

        def measured(environ) -> tuple[float, float]:
            seconds, _ = timed(command, env=environ)
            return seconds, measured_s(output)

        for pair in range(pairs + 1):
            order = (FORKED, os.environ) if pair % 2 else (os.environ, FORKED)
            taken = {environ is FORKED: measured(environ) for environ in order}
            if pair:  # the first starts the server
                walls.append(taken[True][0] / taken[False][0])
                latencies.append(taken[True][1] / taken[False][1])
    return walls, latencies


def engine_ratios(name: str, precision: str, batch: int, seconds: float) -> list[float]:
    """Our timed call over the bare one for so many seconds; [] where the engine lacks the precision."""
    config = yaml.safe_load((REPO / "config.yaml").read_text())
    grid = config["grid"]["cpu"]
    model = config["models"][grid["models"][0]]
    if not ENGINES[name].has_family(model["architecture"]["model_type"]):
        model = yaml.safe_load((REPO / "docs/engines.yaml").read_text())["models"]["llama-56m"]
    call = {"name": name, "precision": precision, "rows": batch, "seconds": seconds, **grid["workloads"][0]}
    call["folder"] = str(checkpoint.ensure({**model, "seed": 0}))
    python = python_of(name)
    command = [python, str(REPO / "benchmarks/calls.py"), json.dumps(call)]
    _, done = timed(command, env=interpreter.child_environment(python))
    return json.loads(done.stdout.splitlines()[-1])


def report_engines(names: list[str], precisions: list[str], batch_sizes: list[int], seconds: float) -> None:
    """Each in a process of its own, as cells are."""
    for name in names:
        for precision in (each for each in precisions if each in ENGINES[name].precisions):
            for batch in batch_sizes:
                if ratios := engine_ratios(name, precision, batch, seconds):
                    report(f"engines, {name} {precision} batch {batch}", ratios)


def noop_ratios(pairs: int) -> list[float]:
    """snakemake with nothing to do: ours at 66 cells over an empty workflow of 66 files."""
    snakemake = str(Path(sys.executable).parent / "snakemake")
    with tempfile.TemporaryDirectory() as scratch:
        ours, empty = Path(scratch) / "ours", Path(scratch) / "empty"
        ours.mkdir(), empty.mkdir()
        sizes = [1, 2, 4, 8, 16, 32, 64, *range(128, 1921, 128)]
        Workspace.make(ours, fake_grid(precisions=["fp32", "bf16", "int8"], batch_sizes=sizes)).run()
        (empty / "Snakefile").write_text(
            "N = range(66)\n"
            "rule all:\n    input: expand('out/{n}.json', n=N), 'a', 'b', 'c'\n"
            "rule one:\n    output: 'out/{n}.json'\n    log: 'log/{n}'\n    shell: 'echo {wildcards.n} > {output}'\n"
            "rule a:\n    input: expand('out/{n}.json', n=N)\n    output: 'a'\n    shell: 'touch {output}'\n"
            "rule b:\n    input: 'a'\n    output: 'b'\n    shell: 'touch {output}'\n"
            "rule c:\n    input: 'a'\n    output: 'c'\n    shell: 'touch {output}'\n"
        )
        shutil.copytree(REPO / "profiles", empty / "profiles")
        subprocess.run([snakemake], cwd=empty, check=True, capture_output=True)
        ratios = []
        for pair in range(pairs + 1):
            ours_s, done = timed([snakemake], cwd=ours)
            assert "Nothing to be done" in done.stderr, done.stderr
            empty_s, done = timed([snakemake], cwd=empty)
            assert "Nothing to be done" in done.stderr, done.stderr
            if pair:
                ratios.append(ours_s / empty_s)
        return ratios


EVERYTHING = ("cell", "forked", "latency", "engines", "noop")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    grid = yaml.safe_load((REPO / "config.yaml").read_text())["grid"]["cpu"]
    usual = list(dict.fromkeys([*grid["engines"], "hf-static", "hf-continuous"]))
    parser.add_argument("what", nargs="*", default=EVERYTHING, help="which; all but others by default")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs per ratio")
    parser.add_argument("--seconds", type=float, default=20, help="of calls per ratio of engines")
    parser.add_argument("--engines", nargs="+", default=usual, help="of engines")
    parser.add_argument("--precisions", nargs="+", default=grid["precisions"], help="of engines")
    fitting = grid["batch_sizes"][:-1]
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=fitting, help="of engines")
    arguments = parser.parse_args()
    if "cell" in arguments.what:
        report("cell, tiny", cell_ratios(TINY_BLOOM, "fp32", 1, 8, 3, arguments.pairs)[0])
    if "forked" in arguments.what:
        within_a_run = cell_ratios(TINY_BLOOM, "fp32", 1, 8, 3, arguments.pairs, FORKED)[0]
        report("forked over the bare script, tiny, wall", within_a_run)
        walls, latencies = forked_ratios(SMALL, arguments.pairs)
        report("forked over cold, 51M fp32 batch 1, wall", walls)
        report("forked over cold, 51M fp32 batch 1, latency", latencies)
    if "latency" in arguments.what:
        report("latency, 51M fp32 batch 1", cell_ratios(SMALL, "fp32", 1, 16, 9, arguments.pairs)[1])
    if "engines" in arguments.what:
        report_engines(arguments.engines, arguments.precisions, arguments.batch_sizes, arguments.seconds)
    if "noop" in arguments.what:
        report("noop, 66 cells", noop_ratios(arguments.pairs))
    if "others" in arguments.what:
        others.report_others(arguments.pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
