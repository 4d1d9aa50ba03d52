"""What the ratios are of: cells measured by scripts/measure.py, and the bare script that does the same by hand."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import made_up
from running import REPO, planned_environment

from inference_benchmark.engines import ENGINES
from inference_benchmark.experiment.cells import Cell, Workload
from inference_benchmark.measure import environments, warm_start
from inference_benchmark.measure.outcome import MeasurementError
from inference_benchmark.models import checkpoint

#: bloom-51m of config.yaml.
SMALL = {"model_type": "bloom", "hidden_size": 512, "n_head": 8, "n_layer": 8, "vocab_size": 50258}

#: Makes measure.py fork its worker from a server that belongs to this process.
FORKED = {**os.environ, warm_start.OWNER: str(os.getpid())}

#: Calls before the timed ones.
WARMUP_CALLS = 2

BARE = """
import json, sys, time
import numpy, torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
folder, precision, batch, prompt_tokens, new_tokens, calls, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(threads)
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float16}[precision]
quantisation = BitsAndBytesConfig(load_in_8bit=True) if precision == "int8" else None
model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map="cpu", quantization_config=quantisation)
ids = torch.from_numpy(numpy.random.default_rng(0).integers(model.config.vocab_size, size=(batch, prompt_tokens)))
samples = []
for length in [new_tokens] * calls + [1] * (calls - 1):
    began = time.perf_counter()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False,
                         eos_token_id=None, pad_token_id=0)
    out.numpy()
    samples.append(time.perf_counter() - began)
print(json.dumps(samples))
"""


def make_cell(architecture: dict, precision: str, batch: int, new_tokens: int, cycles: int) -> Cell:
    """A cell of hf. Two warm-up calls whatever they take, then as many calls as asked for, and one more and as many of
    one token."""
    return made_up.make_cell(
        model={"name": "m", "architecture": architecture, "seed": 0},
        workload=Workload(9, new_tokens),
        engine="hf",
        precision=precision,
        batch_size=batch,
        measurement=made_up.measurement(
            max_warmup_calls=WARMUP_CALLS, min_cycles=cycles, threads=len(os.sched_getaffinity(0))
        ),
    )


def measure_command(cell: Cell, output: Path) -> list[str]:
    return [sys.executable, str(REPO / "scripts/measure.py"), "--subject", cell.to_json(), "--output", str(output)]


def measured_s(output: Path) -> float:
    """Seconds per call in the record of a cell."""
    return statistics.median(json.loads(output.read_text())["runs"][0]["samples_s"])


def bare_command(cell: Cell, python: str | Path = sys.executable) -> list[str]:
    """The bare script with as many calls as the cell, in the environment of this Python."""
    settings, workload = cell.measurement, cell.workload
    calls = WARMUP_CALLS + settings.min_cycles
    numbers = (cell.batch_size, workload.prompt_tokens, workload.new_tokens, calls, settings.threads)
    return [str(python), "-c", BARE, str(checkpoint.ensure(cell.model)), cell.precision, *map(str, numbers)]


def bare_s(cell: Cell, output: str) -> float:
    """Seconds per call in what the bare script printed."""
    return statistics.median(json.loads(output)[WARMUP_CALLS : WARMUP_CALLS + cell.measurement.min_cycles])


def timed(command: list[str], **options) -> tuple[float, subprocess.CompletedProcess]:
    """Seconds that a command took, and what it printed. Ends the program with the end of that if it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}"[-2000:] + f"\n{command[0]} failed with status {done.returncode}")
    return seconds, done


def python_of(engine: str) -> str:
    """The Python that an engine runs in on a CPU, installed if need be."""
    lock = ENGINES[engine].locks.get("cpu")
    return str(python_in(engine, lock)) if lock else sys.executable


def python_in(name: str, lock: str) -> Path:
    """The Python of the environment of a file in envs/, made if it is missing. Ends the program where pip fails."""
    with tempfile.TemporaryDirectory() as scratch:
        with planned_environment(name, REPO / "envs" / lock, Path(scratch)) as planned:
            try:
                return environments.ensure(planned["name"], planned["lock"])
            except MeasurementError as error:
                sys.exit(str(error))


def report(name: str, ratios: Sequence[float]) -> None:
    print(
        f"{name}: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}, n = {len(ratios)}",
        flush=True,
    )
