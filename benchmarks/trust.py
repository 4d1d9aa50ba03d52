#!/usr/bin/env python3
"""Whether our figures can be trusted, by experiment. Anyone can rerun it: python benchmarks/trust.py

same      A/A: a small grid of real models, then the same grid again; how many cells are called different
planted   a grid of a sleeping engine, the same again, and once with every call 5 % slower; its processes scatter
          by 1 % and its calls by 2 %, so that there is something to see through
drift     the same cells twice in one run, while the machine becomes 10 % slower from its beginning to its end: measured
          round by round, as Snakemake does, and with all rounds of a cell one after the other
paired    A/A as for same, the two cells of a pair right after each other, round by round; then with the times of the
          second multiplied by 1.03: in how many cells it is called, by numbers of rounds, paired and unpaired
beside    the default grid and protocol of a CPU beside processes that take all CPUs for 30 % of the time; the same
          without waiting and measuring again; and the same without neighbours, which is the best that this machine
          allows: each against further rounds without neighbours. Takes two hours; what is known so far is said every
          three rounds. With --records it goes on where it was interrupted
sampling  latency while the sampler looks on, over latency while it is stopped, in turn; it looks 50 times as often
          as by default, because what it costs at the default rate drowns in the noise of any machine
parent    CPU time of the parent of a measurement during one timed minute
yardstick cells of a loaded engine, each between two yardsticks: on a quiet machine, beside a busy process per CPU, and
          beside a process per CPU that copies large arrays; how many are machine-slower, and what a yardstick costs.
          A cell during which the kernel counted others on the CPUs is not one of a quiet machine; it is left out

Cells are compared as compare does it: Welch's t test on the logarithms of the processes' means, corrected for
the number of cells (Holm). Each line says what was found and what is wanted.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "scripts"), str(REPO / "tests")]

import yaml
from made_up import make_cell, measurement

from inference_benchmark import engines
from inference_benchmark.analysis import descriptive, statistics
from inference_benchmark.analysis import yardstick as analysis
from inference_benchmark.analysis.yardstick import Speed
from inference_benchmark.compare import result_set, verdicts
from inference_benchmark.compare.comparing import compare
from inference_benchmark.experiment.cells import Cell, Workload
from inference_benchmark.experiment.config import load
from inference_benchmark.experiment.experiment import Experiment, in_measuring_order
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import conditions, interpreter
from inference_benchmark.machine.hardware import default_threads
from inference_benchmark.machine.host_counters import REAL_ROOTS, process_cpu_s
from inference_benchmark.machine.quiet import OtherLoad
from inference_benchmark.measure import warm_start
from inference_benchmark.measure.run import measure_cell
from inference_benchmark.models import checkpoint
from inference_benchmark.records import record_file
from inference_benchmark.records.record import Record
from inference_benchmark.records.results import cell_results
from inference_benchmark.records.rounds import combined, measured_cells
from inference_benchmark.worker.engine_session import timed_call

SMALL = {"model_type": "bloom", "hidden_size": 256, "n_head": 4, "n_layer": 4, "vocab_size": 10_000}
#: Engine of the planted experiment: real sleeps on a real clock.
SLEEPING = {"real_clock": True, "sleep_s": 0.01, "scatter": [0.01, 0.02]}
SLOWDOWN = 1.05
PAIRED_SLOWDOWN = 1.03
#: How many experiments are drawn for each number of rounds.
DRAWN = 200
#: How much slower the machine is at the end of a drifting run.
DRIFT = 0.1
#: How many times as often as by default the sampler looks on in its experiment.
AMPLIFIED = 50

Grid = list[list[list[float]]]
#: The samples of the two cells of a pair, in one round.
Pair = tuple[list[float], list[float]]


def measure_grid(cells: Sequence[Cell], rounds: int, **behaviour) -> Grid:
    """The whole calls of each cell, by round."""
    os.environ["FAKE_ENGINE"] = json.dumps(behaviour)
    in_rounds = [[samples_of(replace(cell, round=number)) for cell in cells] for number in range(1, rounds + 1)]
    return [list(of_cell) for of_cell in zip(*in_rounds, strict=True)]


def samples_of(cell: Cell) -> list[float]:
    (run,) = measure_cell(cell, Supervision()).runs
    return run.samples_s


def called_different(base: Grid, new: Grid) -> int:
    tests = [statistics.ratio_test(*pair) for pair in zip(base, new, strict=True)]
    return sum(statistics.significant([test for test in tests if test]))


def spread(grid: Grid) -> str:
    """How much the processes of a cell scatter around their mean, in the middle of all cells."""
    scatter = []
    for groups in grid:
        means = [descriptive.mean(samples) for samples in groups]
        scatter.append(descriptive.standard_deviation(means) / descriptive.mean(means))
    return f"processes scatter by {descriptive.percentile(scatter, 50):.1%}"


def small_cells(max_seconds: float, batch_sizes: Sequence[int] = (1, 2, 4, 8)) -> list[Cell]:
    """A small grid of real models."""
    settings = measurement(min_seconds=0.3, max_seconds=max_seconds)
    model = {"name": "small", "architecture": SMALL, "seed": 0}
    return [
        make_cell(engine="hf", model=model, precision=precision, batch_size=batch, measurement=settings)
        for precision in ("fp32", "bf16")
        for batch in batch_sizes
    ]


def same(rounds: int) -> str:
    cells = small_cells(max_seconds=1)
    first, again = measure_grid(cells, rounds), measure_grid(cells, rounds)
    different = called_different(first, again)
    return (
        f"A/A: {different} of {len(cells)} cells called different ({rounds} rounds each, {spread(first)}); "
        f"wanted: at most 5 %, here {math.floor(0.05 * len(cells))}"
    )


def paired(rounds: int) -> str:
    """Experiments of any number of rounds are drawn from those that were measured (Efron, 1979), each corrected for its
    cells. Without a slowdown the two of a pair are the same cell, so each pair may as well be the other way round."""
    cells = small_cells(max_seconds=0.5)
    taken: list[list[Pair]] = [[] for _ in cells]
    with forking():
        for number in range(1, rounds + 1):
            for of_cell, cell in zip(taken, cells, strict=True):
                first, second = (samples_of(replace(cell, round=number)) for _ in range(2))
                of_cell.append((first, second))
    rng = random.Random(0)

    def drawn(of_cell: Sequence[Pair], n_rounds: int) -> list[Pair]:
        return [pair if rng.random() < 0.5 else pair[::-1] for pair in rng.choices(of_cell, k=n_rounds)]

    def called(n_rounds: int, slower: float, is_paired: bool) -> str:
        experiments = ([drawn(of_cell, n_rounds) for of_cell in taken] for _ in range(DRAWN))
        found = [
            verdict
            for experiment in experiments
            for verdict in statistics.significant([_tested(of_cell, slower, is_paired) for of_cell in experiment])
        ]
        return f"{sum(found) / len(found):.0%}"

    lines = [
        f"{n} rounds: {called(n, PAIRED_SLOWDOWN, True)} (A/A {called(n, 1, True)}), "
        f"unpaired {called(n, PAIRED_SLOWDOWN, False)} (A/A {called(n, 1, False)})"
        for n in (3, 5, 8, 10, 15, 20, 30, 40, 60)
    ]
    scatter = sorted(stdev(math.log(fmean(new) / fmean(base)) for base, new in of_cell) for of_cell in taken)
    return (
        f"paired: a planted 3 % slowdown of one of a pair is called in {'; '.join(lines)}; wanted: at least 95 % with "
        f"as many rounds as you measure, A/A at most 5 %; {len(cells)} cells, {rounds} rounds, the ratios of pairs "
        f"scatter by {', '.join(f'{each:.1%}' for each in scatter)}"
    )


def _tested(of_cell: Sequence[Pair], slower: float, is_paired: bool):
    """The test of the rounds of a cell, with the times of the second of each pair multiplied."""
    base = [first for first, _ in of_cell]
    new = [[slower * sample for sample in second] for _, second in of_cell]
    if is_paired:
        (test,) = statistics.paired_ratio_tests(
            [statistics.shifts_of_rounds(*(dict(enumerate(of)) for of in (base, new)))]
        )
        return test
    return statistics.ratio_test(base, new)


@contextmanager
def forking() -> Iterator[None]:
    """Workers are forked, as in a run of Snakemake: cells take seconds less, and the two of a pair are closer."""
    os.environ[warm_start.OWNER] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[warm_start.OWNER]


#: Takes all CPUs for 30 % of the time, in random stretches; begins somewhere in such a stretch or pause. Ends with this
#: process, however that ends. Arguments: a seed, and the shortest and the longest stretch in seconds.
NEIGHBOURS = """
import os, random, subprocess, sys, time
code, parent = "import os; parent = os.getppid()\\nwhile os.getppid() == parent: pass", os.getppid()
seed, *of_stretch_s = map(float, sys.argv[1:])
chance = random.Random(seed)
pause_s, stretch_s = (lambda: chance.uniform(*of_stretch_s) * 7 / 3), (lambda: chance.uniform(*of_stretch_s))
left = chance.random()
is_busy = chance.random() < 0.3
while os.getppid() == parent:
    if is_busy:
        hogs = [subprocess.Popen([sys.executable, "-c", code]) for _ in os.sched_getaffinity(0)]
        time.sleep(left * stretch_s())
        for hog in hogs:
            hog.kill()
            hog.wait()
    else:
        time.sleep(left * pause_s())
    is_busy, left = not is_busy, 1
"""
#: What the others are held against: rounds without neighbours that are in none of them.
TRUTH = "the truth"
#: Rounds that are measured in one stretch, in turn of all kinds.
STRETCH = 3


def default_run() -> tuple[Experiment, Supervision]:
    """Of config.yaml on a CPU, and how its cells are watched."""
    config, schema = (yaml.safe_load((REPO / name).read_bytes()) for name in ("config.yaml", "config.schema.yaml"))
    plan = load({**config, "device": "cpu"}, schema, code=REPO)
    return plan.experiments[0], plan.watch


def beside(rounds: int, kept: Path | None) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        return _beside(rounds, kept or Path(scratch))


def _beside(rounds: int, folder: Path) -> str:
    """Runs are drawn from the rounds that were measured, as rounds that followed each other (the blocks of Kuensch,
    1989), so that what lasts for minutes stays in them. All in turn, each time beginning with another: what changes
    within the hour is in all. What does not come of neighbours shows without them, against a truth of other rounds.
    Cells that do not fit are left out. folder: for the records; those that are there are not measured again."""
    experiment, watch = default_run()
    kinds = {
        TRUTH: (False, watch),
        "without neighbours": (False, watch),
        "by default": (True, watch),
        "without waits and retakes": (True, replace(watch, patience_s=0, max_retakes=0)),
    }
    paths = in_measuring_order(experiment, 1)
    fit = [record.outcome == "ok" for record in measured_round(experiment, paths, 1, watch, folder / "which fit")]
    paths = [path for path, does_fit in zip(paths, fit, strict=True) if does_fit]
    measured: dict[str, list[list[Record]]] = {name: [] for name in kinds}
    said = ""
    for turn, first in enumerate(range(1, rounds + 1, STRETCH)):
        numbers = range(first, min(first + STRETCH, rounds + 1))
        names, begins_with = list(kinds), turn % len(kinds)
        for name in names[begins_with:] + names[:begins_with]:
            has_neighbours, watched = kinds[name]
            with neighbours(seed=first) if has_neighbours else nullcontext():
                measured[name] += [
                    measured_round(experiment, paths, number, watched, folder / name) for number in numbers
                ]
        true_cells = cell_results([record for of_round in measured[TRUTH] for record in of_round])
        truth_s = [cell.figures["latency_s"].value for cell in true_cells]
        said = "; ".join(
            f"{name}: {against_truth(experiment, of_kind, truth_s)}"
            for name, of_kind in measured.items()
            if name != TRUTH and len(of_kind) >= 2 * experiment.most_rounds
        )
        print(f"  {numbers[-1]} rounds: {said}", file=sys.stderr, flush=True)
    return f"beside neighbours, {len(paths)} cells, {rounds} rounds of each kind: {said}"


@contextmanager
def neighbours(seed: int, shortest_s: float = 2, longest_s: float = 30) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", NEIGHBOURS, *map(str, (seed, shortest_s, longest_s))]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measured_round(
    experiment: Experiment, paths: Sequence[str], number: int, watch: Supervision, folder: Path
) -> list[Record]:
    """paths: of the cells in the first round; the records are in their order. In every second round the cells are
    measured the other way round, as by default."""
    records = {}
    with forking():
        for path in filter(set(paths).__contains__, in_measuring_order(experiment, number)):
            cell = replace(experiment.by_path[path], round=number)
            if not (file := folder / cell.path).exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                record_file.write(measure_cell(cell, watch), file)
            records[path] = record_file.load(file)
    return [records[path] for path in paths]


def as_needed(experiment: Experiment, rounds: Sequence[Sequence[Record]]) -> list[Record]:
    """Of one run: the first rounds of all cells, then of each as many as its interval needs."""
    least, most = experiment.rounds, experiment.most_rounds
    records = [record for of_round in rounds[:least] for record in of_round]
    target = experiment.measurement.target_half_width
    needed = [cell.rounds_to_reach(target, most) for cell in measured_cells(combined(records)).values()]
    for number, of_round in enumerate(rounds[least:], least + 1):
        records += [record for record, n_rounds in zip(of_round, needed, strict=True) if n_rounds >= number]
    return records


def against_truth(experiment: Experiment, rounds: Sequence[Sequence[Record]], truth_s: Sequence[float]) -> str:
    """What runs of consecutive rounds find. rounds: of all cells, in one order. truth_s: of each cell."""
    most = experiment.most_rounds
    runs = [as_needed(experiment, rounds[first : first + most]) for first in range(len(rounds) - most + 1)]
    pairs = [(cell, true_s) for of_run in runs for cell, true_s in zip(cell_results(of_run), truth_s, strict=True)]
    off = {id(cell): abs(math.log(cell.figures["latency_s"].value / true_s)) for cell, true_s in pairs}
    held = [cell.figures["latency_s"].low <= true_s <= cell.figures["latency_s"].high for cell, true_s in pairs]
    unmarked = [off[id(cell)] for cell, _ in pairs if not cell.warnings]
    wrong = sum(each > 0.15 for each in unmarked)
    sets = [result_set.of_records(of_run) for of_run in runs]
    compared = [
        cell for i in range(len(sets)) for j in range(i + most, len(sets)) for cell in compare(sets[i], sets[j]).cells
    ]
    called = fmean(cell.verdict in (verdicts.FASTER, verdicts.SLOWER) for cell in compared)
    widths = [math.sqrt(cell.ratio.high / cell.ratio.low) - 1 for cell in compared]
    return (
        f"{len(runs)} runs of {experiment.rounds} to {most} rounds, "
        f"off by {descriptive.percentile(list(off.values()), 50):.1%} in the median, wanted: at most 5 %; "
        f"{len(unmarked)} of {len(pairs)} cells without a mark, of which {wrong} are off "
        f"by more than 15 %, wanted: none; {fmean(held):.0%} of intervals hold the truth, wanted: 90 to 98 %; "
        f"one run against another: {called:.0%} called different, wanted: at most 5 %, "
        f"median interval of the ratio ±{descriptive.percentile(widths, 50):.0%}, wanted: at most 15 %"
    )


def sleeping_cells(n_cells: int) -> list[Cell]:
    settings = measurement(min_seconds=0.1, max_seconds=0.1)
    return [make_cell(batch_size=n + 1, measurement=settings) for n in range(n_cells)]


def planted(n_cells: int, rounds: int) -> str:
    cells = sleeping_cells(n_cells)
    base, again = measure_grid(cells, rounds, **SLEEPING), measure_grid(cells, rounds, **SLEEPING)
    slow = measure_grid(cells, rounds, **SLEEPING, slow=SLOWDOWN)
    return (
        f"planted 5 % slowdown: called in {called_different(base, slow)} of {n_cells} cells, wanted: at least 95 %; "
        f"without it: in {called_different(base, again)}, wanted: at most 5 % "
        f"({rounds} rounds each, {spread(base)})"
    )


def drift(n_cells: int, rounds: int) -> str:
    cells = sleeping_cells(n_cells) * 2

    def called(order: Sequence[tuple[int, int]]) -> int:
        """order: (round, index of the cell), as they are measured."""
        taken: Grid = [[] for _ in cells]
        for position, (number, index) in enumerate(order):
            slower = 1 + DRIFT * position / len(order)
            os.environ["FAKE_ENGINE"] = json.dumps({**SLEEPING, "slow": slower})
            taken[index].append(samples_of(replace(cells[index], round=number)))
        return called_different(taken[:n_cells], taken[n_cells:])

    numbers, indices = range(1, rounds + 1), range(len(cells))
    by_round = called([(number, index) for number in numbers for index in indices])
    by_cell = called([(number, index) for index in indices for number in numbers])
    return (
        f"drift of {DRIFT:.0%} over a run: in rounds {by_round} of {n_cells} pairs of equal cells called different, "
        f"wanted: at most 5 %; cell by cell {by_cell}, wanted: most ({rounds} rounds each)"
    )


SAMPLER = """
import sys, time
from inference_benchmark.machine.conditions import Sampler
sampler = Sampler((), int(sys.argv[1]))
sampler.open()
while True:
    sampler.sample()
    time.sleep(1 / float(sys.argv[2]))
"""


def sampling(seconds: float) -> str:
    """Blocks of half a second with the sampler and without, in turn; each pair gives a ratio of their medians."""
    import numpy

    looker = conditions.Sampler((), os.getpid())
    looker.open()
    began = time.process_time()
    for _ in range(200):
        looker.sample()
    cost_s = (time.process_time() - began) / 200
    folder = checkpoint.ensure({"name": "small", "architecture": SMALL, "seed": 0})
    engine = engines.create("hf")
    engine.start("cpu", len(os.sched_getaffinity(0)), folder)
    engine.load(folder, "fp32")
    prompts = numpy.random.default_rng(0).integers(engine.vocab_size, size=(1, 9))
    rate = Supervision().sample_hz
    command = [sys.executable, "-c", SAMPLER, str(os.getpid()), str(rate * AMPLIFIED)]
    child = subprocess.Popen(command, env=interpreter.child_environment())
    time.sleep(2)
    try:

        def block(looked_at: bool) -> float:
            child.send_signal(signal.SIGCONT if looked_at else signal.SIGSTOP)
            calls, until = [], time.perf_counter() + 1 / rate
            while time.perf_counter() < until:
                calls.append(timed_call(engine, engine.generate, prompts, 8)[0])
            return descriptive.percentile(calls, 50)

        ratios = []
        for pair in range(round(seconds * rate / 2)):
            order = (True, False) if pair % 2 else (False, True)
            latency_s = {looked_at: block(looked_at) for looked_at in order}
            ratios.append(latency_s[True] / latency_s[False])
    finally:
        child.kill()
    (often,) = statistics.paired_ratio_tests([[math.log(ratio) for ratio in ratios]])
    seen, default = (
        "{:+.2%} ({:+.2%} to {:+.2%})".format(*(factor**power - 1 for factor in often[:3]))
        for power in (1, 1 / AMPLIFIED)
    )
    return (
        f"sampling at {rate * AMPLIFIED:g} Hz changes the latency by {seen}, n = {len(ratios)} pairs; at the default "
        f"{rate:g} Hz that is {default}, wanted: less than 0.5 %; one look takes {cost_s * 1e3:.2f} ms of a CPU, at "
        f"{rate:g} Hz {cost_s * rate:.3%} of its time"
    )


def parent(seconds: float) -> str:
    cell = make_cell(measurement=measurement(min_seconds=seconds + 30, max_seconds=seconds + 30))
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, str(REPO / "scripts/measure.py"), "--subject", cell.to_json()]
        child = subprocess.Popen(
            [*command, "--output", f"{scratch}/r.json"],
            env={**os.environ, "FAKE_ENGINE": json.dumps({"real_clock": True, "sleep_s": 0.02})},
        )
        try:
            time.sleep(10)  # until it is timed
            before = process_cpu_s(REAL_ROOTS, child.pid)
            time.sleep(seconds)
            used_s = process_cpu_s(REAL_ROOTS, child.pid) - before
        finally:
            child.terminate()
            child.wait()
    return f"the parent used {used_s:.2f} s of a CPU in {seconds:g} s, {used_s / seconds:.2%}; wanted: less than 1 %"


HOGS = {
    "a busy process per CPU": "while True: pass",
    "a process per CPU that copies arrays of 256 MiB": """
import numpy
source = numpy.ones(2**25)
target = source.copy()
while True:
    numpy.copyto(target, source)
""",
}
#: One of the default grid on a CPU.
DEFAULT_CELL = {
    "engine": "hf",
    "model": {
        "name": "bloom-51m",
        "architecture": {"model_type": "bloom", "hidden_size": 512, "n_head": 8, "n_layer": 8, "vocab_size": 50258},
        "seed": 0,
    },
    "workload": Workload(prompt_tokens=9, new_tokens=8),
    "batch_size": 1,
    "memory_limit_bytes": 800_000_000,
    "measurement": measurement(min_seconds=1, max_seconds=2),
}
#: Seconds of calls between two yardsticks.
CALLS_S = 0.1
#: How long the experiment goes on looking for moments in which others leave the CPUs alone.
PATIENCE_S = 60


class Between(NamedTuple):
    """A cell: the speeds before and after it, seconds of both yardsticks, and the others' part of the CPUs' time."""

    speeds: Sequence[Speed]
    yardsticks_s: float
    others: float


def yardstick(n_cells: int) -> str:
    import numpy

    folder = checkpoint.ensure({"name": "small", "architecture": SMALL, "seed": 0})
    engine = engines.create("hf")
    engine.start("cpu", default_threads(), folder)
    gc.freeze()  # as a worker does
    engine.load(folder, "fp32")
    prompts = numpy.random.default_rng(0).integers(engine.vocab_size, size=(1, 9))

    def cell() -> Between:
        """Calls of the engine between two yardsticks."""
        others, began = OtherLoad(), time.perf_counter()
        first, called = engine.yardstick(), time.perf_counter()
        while time.perf_counter() < called + CALLS_S:
            timed_call(engine, engine.generate, prompts, 8)
        calls_s = time.perf_counter() - called
        speeds = [Speed.of(first), Speed.of(engine.yardstick())]
        return Between(speeds, time.perf_counter() - began - calls_s, others.share())

    quiet: list[Between] = []
    until = time.monotonic() + PATIENCE_S
    while len(quiet) < n_cells and time.monotonic() < until:
        others = OtherLoad()
        time.sleep(0.2)
        if others.share() <= conditions.MAX_OTHER:
            quiet += [each] if (each := cell()).others <= conditions.MAX_OTHER else []
    if not quiet:
        return f"yardstick: others used the CPUs for all of {PATIENCE_S} s; nothing is known of a quiet machine"
    beside: dict[str, list[Between]] = {}
    for name, code in HOGS.items():
        hogs = [subprocess.Popen([sys.executable, "-c", code]) for _ in os.sched_getaffinity(0)]
        try:
            time.sleep(1)  # until they have imported numpy
            beside[name] = [cell() for _ in range(n_cells)]
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
    typical = analysis.typical([speed for each in quiet for speed in each.speeds])

    def flagged(cells: Sequence[Between]) -> str:
        return f"{sum(analysis.why_slower(each.speeds, typical) is not None for each in cells)} of {len(cells)}"

    began = time.perf_counter()
    engine.unload()
    cost_s = descriptive.percentile([each.yardsticks_s for each in quiet], 50) + time.perf_counter() - began
    (run,) = measure_cell(make_cell(**DEFAULT_CELL), Supervision()).runs
    # Without the start, which is much shorter in a run of Snakemake.
    cell_s = run.load_s + sum(map(sum, (run.warmup_s, run.samples_s, run.first_token_s)))
    return (
        f"yardstick: machine-slower on a quiet machine {flagged(quiet)} cells, wanted: at most 5 %; "
        + "".join(f"beside {name} {flagged(phase)}, wanted: at least 95 %; " for name, phase in beside.items())
        + f"both yardsticks of a cell and freeing the model take {cost_s:.3f} s, {cost_s / cell_s:.1%} of the "
        f"{cell_s:.1f} s of a default cell after its start, wanted: less than 1 %"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["parent", "yardstick", "sampling", "planted", "drift", "same", "paired", "beside"]
    parser.add_argument("what", nargs="*", default=names, help="all by default")
    parser.add_argument("--rounds", type=int, default=8, help="of each cell; twice for paired, three times for beside")
    parser.add_argument("--cells", type=int, default=20, help="cells of the planted experiments and yardsticks")
    parser.add_argument("--seconds", type=float, default=60, help="of parent; sampling takes twice as long")
    parser.add_argument("--records", type=Path, metavar="FOLDER", help="where those of beside are kept, and looked for")
    arguments = parser.parse_args()
    experiments = {
        "same": lambda: same(arguments.rounds),
        "planted": lambda: planted(arguments.cells, arguments.rounds),
        "drift": lambda: drift(arguments.cells, arguments.rounds),
        "paired": lambda: paired(2 * arguments.rounds),
        "beside": lambda: beside(3 * arguments.rounds, arguments.records),
        "yardstick": lambda: yardstick(arguments.cells),
        "sampling": lambda: sampling(2 * arguments.seconds),
        "parent": lambda: parent(arguments.seconds),
    }
    for name in arguments.what:
        print(f"- {experiments[name]()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
