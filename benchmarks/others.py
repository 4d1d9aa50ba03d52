"""This benchmark against optimum-benchmark, a benchmark for the same purpose: python benchmarks/overhead.py others

A cell and a grid, each with the same checkpoint, workload, threads and number of calls. optimum-benchmark runs as its
readme shows: its command line, its launcher `process`, which isolates each cell, and its sweep (`--multirun`) for the
grid. It has an environment of its own (envs/optimum-benchmark.lock) with an older transformers. So its latency is
compared with that of the bare script in that environment.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from made_up import as_config
from ratios import (
    FORKED,
    SMALL,
    bare_command,
    bare_s,
    make_cell,
    measure_command,
    measured_s,
    python_in,
    report,
    timed,
)
from running import Workspace

from inference_benchmark.experiment.cells import Cell
from inference_benchmark.models import checkpoint

BATCH_SIZES = [1, 2, 4, 8, 16, 32]
NEW_TOKENS, CYCLES = 8, 5
#: optimum-benchmark's words for our precisions.
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {"torch_dtype": "float32"},
    "bf16": {"torch_dtype": "bfloat16"},
    "int8": {
        "torch_dtype": "float16",
        "device_map": "cpu",
        "quantization_scheme": "bnb",
        "quantization_config": {"load_in_8bit": True, "llm_int8_threshold": 6.0},
    },
}
#: Nothing is looked up on the hub: the checkpoint is a folder.
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}


class Taken(NamedTuple):
    """What one process took: seconds from its start to its end, and seconds per call as it measured them."""

    wall_s: float
    call_s: float


def settings(cell: Cell) -> dict[str, Any]:
    """optimum-benchmark's configuration for the calls of a cell; precision and batch size are overrides.

    Before its timed calls it makes two whole ones, and `warmup_runs` of two tokens: as many as a cell has of one token.
    """
    return {
        "defaults": [
            "benchmark",
            {"scenario": "inference"},
            {"launcher": "process"},
            {"backend": "pytorch"},
            {"precision": "fp32"},
            "_self_",
        ],
        "name": "cell",
        "backend": {
            "model": str(checkpoint.ensure(cell.model)),
            "task": "text-generation",
            "device": "cpu",
            # Its names are the wrong way round: this one is given to torch.set_num_threads.
            "inter_op_num_threads": cell.measurement.threads,
        },
        "scenario": {
            "iterations": cell.measurement.min_cycles,
            "warmup_runs": 1 + cell.measurement.min_cycles,
            "duration": 0,
            "input_shapes": {"batch_size": 1, "sequence_length": cell.workload.prompt_tokens},
            "generate_kwargs": dict.fromkeys(("max_new_tokens", "min_new_tokens"), cell.workload.new_tokens),
        },
        "hydra": {
            "job": {"chdir": True},
            "run": {"dir": "run"},
            "sweep": {"dir": "sweep", "subdir": "${hydra.job.num}"},
        },
    }


def write_settings(cell: Cell, folder: Path) -> None:
    (folder / "precision").mkdir(parents=True)
    (folder / "cell.yaml").write_text(yaml.safe_dump(settings(cell), sort_keys=False))
    for name, backend in PRECISIONS.items():
        text = "# @package backend\n" + yaml.safe_dump(backend)
        (folder / f"precision/{name}.yaml").write_text(text)


def optimum_command(installed: Path, config: Path, precision: str, batch_size: str, *options: str) -> list[str]:
    """The command line for a cell; with --multirun for a grid, with lists separated by commas."""
    named = ["--config-dir", str(config), "--config-name", "cell"]
    overrides = [f"precision={precision}", f"scenario.input_shapes.batch_size={batch_size}"]
    return [str(installed / "bin/optimum-benchmark"), *named, *options, *overrides]


def optimum_s(path: Path) -> float:
    """Seconds per call in a benchmark_report.json."""
    return statistics.median(json.loads(path.read_text())["generate"]["latency"]["values"])


def cell_in_turn(installed: Path, pairs: int) -> list[dict[str, Taken]]:
    """What each took for one cell, so many times: bare, cold, forked, bare-theirs and optimum-benchmark."""
    cell = make_cell(SMALL, "fp32", 1, NEW_TOKENS, CYCLES)
    with tempfile.TemporaryDirectory() as scratch:
        config, output = Path(scratch) / "config", Path(scratch) / "r.json"
        write_settings(cell, config)

        def ours(environ: Mapping[str, str]) -> Taken:
            wall_s, _ = timed(measure_command(cell, output), env=environ)
            return Taken(wall_s, measured_s(output))

        def bare(python: str | Path) -> Taken:
            wall_s, done = timed(bare_command(cell, python), env=OFFLINE)
            return Taken(wall_s, bare_s(cell, done.stdout))

        def optimum() -> Taken:
            environ = OFFLINE | {"OVERRIDE_BENCHMARKS": "1"}
            wall_s, _ = timed(optimum_command(installed, config, "fp32", "1"), cwd=scratch, env=environ)
            return Taken(wall_s, optimum_s(Path(scratch) / "run/benchmark_report.json"))

        ways = {
            "bare": lambda: bare(sys.executable),
            "cold": lambda: ours(os.environ),
            "forked": lambda: ours(FORKED),
            "bare-theirs": lambda: bare(installed / "bin/python"),
            "optimum-benchmark": optimum,
        }
        taken = []
        for pair in range(pairs + 1):
            # Another one first each time, so that a drift of the machine's speed cancels.
            first = pair % len(ways)
            names = [*ways][first:] + [*ways][:first]
            taken.append({name: ways[name]() for name in names})
        return taken[1:]  # the first round warms the disk cache and starts the server


def grid_walls_s(installed: Path) -> tuple[float, float]:
    """Seconds for PRECISIONS x BATCH_SIZES: of a whole run of Snakemake, and of a sweep of optimum-benchmark."""
    cell = make_cell(SMALL, "fp32", 1, NEW_TOKENS, CYCLES)
    workload = {"prompt_tokens": cell.workload.prompt_tokens, "new_tokens": NEW_TOKENS}
    grid = {
        "models": ["m"],
        "workloads": [workload],
        "engines": ["hf"],
        "precisions": [*PRECISIONS],
        "batch_sizes": BATCH_SIZES,
        "memory_limit": None,
        "max_batch": False,
        "divergence": False,
    }
    with tempfile.TemporaryDirectory() as scratch:
        run, config = Path(scratch) / "ours", Path(scratch) / "config"
        run.mkdir()
        workspace = Workspace.make(run, grid, {"m": {"architecture": SMALL}})
        workspace.config["measurement"] = as_config(cell.measurement)
        workspace.save()
        write_settings(cell, config)
        cells = len(PRECISIONS) * len(BATCH_SIZES)
        ours_s, _ = timed(workspace.command(), cwd=run)
        outcomes = [json.loads((run / path).read_text())["outcome"] for path in workspace.all_records()]
        assert outcomes == ["ok"] * cells, outcomes
        sizes = ",".join(map(str, BATCH_SIZES))
        sweep = optimum_command(installed, config, ",".join(PRECISIONS), sizes, "--multirun")
        theirs_s, _ = timed(sweep, cwd=scratch, env=OFFLINE)
        reports = list(Path(scratch).glob("sweep/*/benchmark_report.json"))
        assert len(reports) == cells, reports
    return ours_s, theirs_s


def report_others(pairs: int) -> None:
    installed = python_in("optimum-benchmark", "optimum-benchmark.lock").parents[1]  # 1.6 GB, more with CUDA
    taken = cell_in_turn(installed, pairs)

    def ratios(part: str, name: str, over: str) -> list[float]:
        return [getattr(each[name], part) / getattr(each[over], part) for each in taken]

    report("latency, forked over bare", ratios("call_s", "forked", "bare"))
    report("latency, cold over bare", ratios("call_s", "cold", "bare"))
    report(
        "latency, optimum-benchmark over bare, both with its libraries",
        ratios("call_s", "optimum-benchmark", "bare-theirs"),
    )
    for ours in ("forked", "cold"):
        for other in ("bare", "optimum-benchmark"):
            report(f"wall of a cell, {ours} over {other}", ratios("wall_s", ours, other))
    report("wall of a cell, optimum-benchmark over bare", ratios("wall_s", "optimum-benchmark", "bare"))
    ours_s, theirs_s = grid_walls_s(installed)
    cells = len(PRECISIONS) * len(BATCH_SIZES)
    print(f"wall of {cells} cells: {ours_s:.0f} s over {theirs_s:.0f} s of optimum-benchmark: {ours_s / theirs_s:.3f}")
