#!/usr/bin/env python3
"""Whether everything works on a new GPU, in its first minutes: python benchmarks/gpu_check.py > check.json

weights      weights are drawn: of BLOOM 1.3B, and of a probe, which is as wide and has few layers
engine       an engine of an optional package finds its libraries and generates
cells        each engine and precision at batch 1 and 128: tok/s, and what the wall time of the cell consists of
answers      the fp32 tokens of each engine are those of hf
recordings   hf-static compiled, on CUDA recorded CUDA graphs and gave up none; nothing of it happened in timed calls
forked       a worker that is forked, as in a run of Snakemake, gives the tokens of one that starts cold
memory       allocated <= reserved <= what the device has
tf32         products of fp32 matrices did not run in TF32
conditions   which gauges and counters can be read
energy       the energy counter against power x time
rows         rows of so large a batch that rows x heads exceed 65,535 give the same fp32 tokens in a small batch
oom          a cell that does not fit into memory_limit is oom, in words about memory, and the limit is named
caches       hf-static holds one static cache after several calls, and none after its release
ceilings     memory bandwidth and arithmetic against the data sheet
timeline     the steps of a call add up to it, its parts too, and most kernels are of a kind that is known
search       the largest batch under a memory_limit is found

Each check runs in processes of its own: one that crashes or hangs is failed, and the others run. A line for each goes
to stderr, one JSON document to stdout. The exit status is 1 if a check failed. What has not begun when the time is up
is skipped; the precisions that are not in the default grid come last.

On a CPU the model is tiny, the batch is 4, two checks run at a time, and the figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import filelock

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "scripts")]

from check_runner import Check, NothingToCheckError, Verdict, chosen, first_line, ok_if, run_checks, skipped
from data_sheets import DATA_SHEETS

from inference_benchmark import engines
from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.ceilings import peaks
from inference_benchmark.analysis.divergence import REFERENCE
from inference_benchmark.analysis.max_batch import batch_limit
from inference_benchmark.analysis.roofline import Peaks
from inference_benchmark.analysis.statistics import mean
from inference_benchmark.analysis.timeline import Timeline
from inference_benchmark.cli import fail, printable
from inference_benchmark.engines import ENGINES, PRECISIONS
from inference_benchmark.experiment.as_json import CellError
from inference_benchmark.experiment.cells import Cell, Measurement, Workload
from inference_benchmark.experiment.studies import CeilingsStudy, ColumnStudy, Study, Subject, TimelineStudy
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import conditions, hardware, provenance
from inference_benchmark.machine.out_of_memory import line_about_memory
from inference_benchmark.measure import warm_start
from inference_benchmark.measure.held_device import hold_device
from inference_benchmark.measure.run import measure_cell, run_study
from inference_benchmark.models import checkpoint
from inference_benchmark.records import answers, record_file
from inference_benchmark.records.record import AnyRecord, Record, StudyRecord
from inference_benchmark.render.one_line import cell_text, study_text
from inference_benchmark.units import format_bytes, format_number
from inference_benchmark.worker.engine_session import draw_prompts, timed_call

BLOOM_1B3 = {"model_type": "bloom", "hidden_size": 2048, "n_head": 16, "n_layer": 24, "vocab_size": 50258}
TINY_BLOOM = {"model_type": "bloom", "hidden_size": 64, "n_head": 16, "n_layer": 2, "vocab_size": 1000}
HF, STATIC = REFERENCE[0], "hf-static"
#: The engines that run on a GPU.
CHECKED = {name: entry for name, entry in ENGINES.items() if entry.needs_weights and "cuda" in entry.devices}
#: Kernels of CUDA take at most so many matrices per launch (the y and z dimensions of a grid).
MOST_MATRICES = 65_535
#: Logits that differ by less, as a part of their norm, differ by the rounding of fp32. That is a few 1e-6.
ROUNDING = 1e-4
#: Logits of two tokens that are less apart, in standard deviations of all logits, are a near-tie.
NEAR_TIE = 1e-3
#: Counted energy may differ from power x time by this part. NVML's power is a mean of up to a second, and the window of
#: the energy ends with an idle update interval.
ENERGY_TOLERANCE = 0.15
#: Which part of a data sheet's figure is plausible. A clock can be a little faster than that of the data sheet.
LEAST_SHARE, MOST_SHARE = 0.50, 1.05
#: What graphs and libraries may hold besides a cache of 1.1 GB.
BESIDES_CACHE_BYTES = 2**28
#: The steps of a call take at least this part of it. The rest is the copy of its tokens.
STEPS_SHARE = 0.8


@dataclass(frozen=True)
class Setup:
    """What the checks use on a device.

    model, probe: sizes. precision: of the checks of a single one. steady: prompt tokens, batch size and seconds of the
    calls whose power is measured. crowded: prompt tokens, batch size and memory limit of a cell that does not fit.
    searched: prompt tokens and memory limit of searches; with long prompts few rows fit, and few tries find out.
    cached: batch size and prompt tokens of calls with a static cache. threads: of each worker. folder: for all records.
    """

    device: str
    model: Mapping[str, Any]
    probe: Mapping[str, Any]
    precisions: tuple[str, ...]
    precision: str
    batch_sizes: tuple[int, ...]
    new_tokens: int
    steady: tuple[int, int, float]
    crowded: tuple[int, int, int]
    searched: tuple[int, int]
    cached: tuple[int, int]
    threads: int | None = None
    folder: str = ""

    def cell(self, engine: str, precision: str, batch_size: int) -> Cell:
        """A cell of the model with as few calls as there can be: two warm-up calls that compile nothing, two timed."""
        return Cell(
            machine="gpu-check",
            device=self.device,
            model={"name": "model", "architecture": self.model, "seed": 0},
            workload=Workload(9, self.new_tokens),
            engine=engine,
            precision=precision,
            batch_size=batch_size,
            memory_limit_bytes=None,
            measurement=Measurement(
                warmup_tolerance_percent=100,
                max_warmup_calls=5,
                min_cycles=2,
                min_seconds=0,
                target_half_width_percent=1,
                max_seconds=0,
                seed=0,
                threads=self.threads,
            ),
        )

    def probe_cell(self, engine: str, precision: str, batch_size: int = 1, **changes: Any) -> Cell:
        """A cell of the probe. changes replace fields."""
        model = {"name": "probe", "architecture": self.probe, "seed": 0}
        return replace(self.cell(engine, precision, batch_size), model=model, **changes)


SETUPS = {
    "cuda": Setup(
        device="cuda",
        model=BLOOM_1B3,
        probe={**BLOOM_1B3, "n_layer": 4},
        precisions=(
            *("fp32", "bf16", "int8"),  # of the default grid
            *("fp16", "int8-threshold-0", "nf4", "int8-weight-only", "int4-weight-only"),
        ),
        precision="bf16",
        batch_sizes=(1, 128),
        new_tokens=16,
        steady=(128, 128, 6),
        crowded=(512, 512, 3 * 10**9),
        searched=(2048, 3 * 10**9),
        cached=(128, 256),
    ),
    "cpu": Setup(
        device="cpu",
        model=TINY_BLOOM,
        probe=TINY_BLOOM,
        precisions=("fp32", "int8"),
        precision="fp32",
        batch_sizes=(4,),
        new_tokens=8,
        steady=(9, 4, 1),
        crowded=(256, 64, 300 * 10**6),
        searched=(1024, 400 * 10**6),
        cached=(4, 32),
    ),
}


def checks(setup: Setup) -> list[Check]:
    """All checks, in an order that has the most worth knowing first."""
    unless_cuda = None if setup.device == "cuda" else "CUDA only"

    def check(kind: str, run: Callable[..., Verdict], limit_s: float, needs=("weights",), skip=None) -> Check:
        return Check(kind, partial(run, setup), limit_s, needs, skip)

    def of_engine(kind: str, run: Callable[..., Verdict], limit_s: float, engine: str, *more: str, skip=None) -> Check:
        needs = ("weights", f"engine/{engine}") if ENGINES[engine].package and kind != "engine" else ("weights",)
        if package := engines.missing_package(engine, *more):
            skip = f"the package {package} is not installed"
        return Check("/".join((kind, engine, *more)), partial(run, setup, engine, *more), limit_s, needs, skip)

    def of_each(kind: str, run: Callable[..., Verdict], limit_s: float) -> list[Check]:
        # Every shape that hf-static meets is compiled. On a CPU that would take longer than all other checks.
        skips = {STATIC: unless_cuda}
        return [of_engine(kind, run, limit_s, engine, skip=skips.get(engine)) for engine in CHECKED]

    def cells(precisions: Sequence[str]) -> list[Check]:
        pairs = [(engine, precision) for precision in precisions for engine in CHECKED]
        known = [(engine, precision) for engine, precision in pairs if precision in ENGINES[engine].precisions]
        return [of_engine("cells", check_cells, 180, *pair) for pair in known]

    return [
        check("weights", check_weights, 180, needs=()),
        *(of_engine("engine", check_engine, 120, engine) for engine in CHECKED if ENGINES[engine].package),
        *cells(setup.precisions[:3]),
        *(of_engine("answers", check_answers, 120, engine) for engine in CHECKED if engine != HF),
        check("recordings", check_recordings, 120),
        *(of_engine("forked", check_forked, 120, engine) for engine in CHECKED),
        check("memory", check_memory, 120),
        check("tf32", check_tf32, 120, skip=unless_cuda),
        check("conditions", check_conditions, 60),
        check("energy", check_energy, 60),
        *of_each("rows", check_rows, 90),
        *of_each("oom", check_oom, 60),
        check("caches", check_caches, 90),
        check("ceilings", check_ceilings, 90, needs=()),
        of_engine("timeline", check_timeline, 90, HF),
        of_engine("timeline", check_timeline, 90, STATIC, skip=unless_cuda),
        *of_each("search", check_search, 120),
        *cells(setup.precisions[3:]),
    ]


# -- the checks ------------------------------------------------------------------------------------------


def check_weights(setup: Setup) -> Verdict:
    models = {"model": setup.cell(HF, "fp32", 1).model, "probe": setup.probe_cell(HF, "fp32").model}
    folders = {name: checkpoint.ensure(model) for name, model in models.items()}
    sizes = {
        name: sum(path.stat().st_size for path in checkpoint.weights_files(folder)) for name, folder in folders.items()
    }
    shown = ", ".join(f"{name} {format_bytes(n_bytes)}" for name, n_bytes in sizes.items())
    return ok_if(all(sizes.values()), f"{shown} on disk", {f"{name}_bytes": n for name, n in sizes.items()})


def check_engine(setup: Setup, engine: str) -> Verdict:
    return ok_if(True, cell_text(figures(setup, setup.probe_cell(engine, "fp32"))))


def check_cells(setup: Setup, engine: str, precision: str) -> Verdict:
    lines, facts, is_finite = [], {}, True
    for batch_size in setup.batch_sizes:
        cell_record = measured(setup, setup.cell(engine, precision, batch_size))
        if cell_record.outcome == "unsupported":
            return ok_if(True, f"n/a: {cell_record.reason.message}")
        taken_s = wall_split_s(_with_outcome_ok(cell_record))
        tok_per_s = metrics.throughput_tok_per_s(cell_record.measured()).value
        parts = " + ".join(f"{name} {format_number(seconds, 2)}" for name, seconds in taken_s.items())
        flags = f" ({', '.join(cell_record.flag_names)})" if cell_record.flags else ""
        lines.append(f"batch {batch_size}: {tok_per_s:,.1f} tok/s{flags}, {sum(taken_s.values()):.1f} s: {parts}")
        facts[f"batch {batch_size}"] = {"throughput_tok_per_s": tok_per_s, "seconds": taken_s}
        is_finite = is_finite and "non-finite-logits" not in cell_record.flag_names
    return ok_if(is_finite, "; ".join(lines), facts)


def wall_split_s(cell_record: Record) -> dict[str, float]:
    """What the seconds of a cell of one process consist of. start: imports and device, and the end of the process."""
    run = cell_record.runs[0]
    began, ended = map(datetime.fromisoformat, (cell_record.started_at, cell_record.ended_at))
    parts = {"load": run.load_s, "warm-up": sum(run.warmup_s), "timed": sum(run.samples_s) + sum(run.first_token_s)}
    return {"start": (ended - began).total_seconds() - sum(parts.values()), **parts}


def check_answers(setup: Setup, engine: str) -> Verdict:
    """By the digests of cells. Where they differ, a comparison of answers tells a near-tie from another function."""
    cells = [setup.cell(name, "fp32", batch_size) for batch_size in setup.batch_sizes for name in (HF, engine)]
    differing = answers.differing([figures(setup, cell) for cell in cells], {})
    if not differing:
        return ok_if(
            True, f"batch {' and '.join(map(str, setup.batch_sizes))}: the digests of all tokens are those of hf"
        )
    comparison = studied(setup, ColumnStudy.of("divergence", setup.cell(engine, "fp32", 1)))
    verdict = compared_answers(comparison.results[0])
    return verdict._replace(evidence=f"{verdict.evidence}; {'; '.join(differing.values())}")


def compared_answers(result: Mapping[str, Any]) -> Verdict:
    """result: of a divergence study in fp32."""
    n_tokens, error = result["rows"] * result["steps"], result["logits_error"]["max"]
    n_differing = round((1 - result["token_agreement"]) * n_tokens)
    shown = "that are not finite" if error is None else f"that differ by up to {error:.1g} of their norm"
    return ok_if(
        error is not None and error < ROUNDING,
        f"{n_differing} of {n_tokens} tokens differ from hf's, with logits {shown}; rounding is below {ROUNDING:g}",
        result,
    )


def check_recordings(setup: Setup) -> Verdict:
    verdicts = {}
    for batch_size in setup.batch_sizes:
        cell_record = figures(setup, setup.cell(STATIC, setup.precision, batch_size))
        verdicts[f"batch {batch_size}"] = recordings(cell_record.model, setup.device)
    return _all_of(verdicts)


def recordings(model: Mapping[str, Any], device: str) -> Verdict:
    """model: what ran in a cell of hf-static, as its record has it."""
    compilation = model["compilation"]
    if why_not := compilation.get("why_not"):
        return skipped(why_not) if device == "cpu" else ok_if(False, f"not compiled: {why_not}")
    done = {"graphs": compilation["graphs"]}
    if device == "cuda":
        done["cuda_graphs_recorded"] = compilation["cuda_graphs_recorded"]
    undesired = {name: count for name, count in model.items() if name.endswith("_while_timed")}
    if device == "cuda":
        undesired["cuda_graphs_skipped"] = compilation["cuda_graphs_skipped"]
    counts = {**done, **undesired}
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return ok_if(
        all(done.values()) and not any(undesired.values()),
        f"{listed}; {compilation['seconds']:.1f} s of compilation",
        counts,
    )


def check_forked(setup: Setup, engine: str) -> Verdict:
    cell = setup.probe_cell(engine, setup.precision)
    cold = figures(setup, cell)
    os.environ[warm_start.OWNER] = str(os.getpid())
    forked = figures(setup, replace(cell, round=2))
    starts = [each.model["start"] for each in (cold, forked)]
    seconds = [wall_split_s(each)["start"] for each in (cold, forked)]
    same = cold.runs[0].tokens_sha256 == forked.runs[0].tokens_sha256
    ratio = metrics.throughput_tok_per_s(forked.measured()).value / metrics.throughput_tok_per_s(cold.measured()).value
    return ok_if(
        starts == ["cold", "forked"] and same,
        f"{starts[0]} {seconds[0]:.1f} s, {starts[1]} {seconds[1]:.1f} s with its server to start; "
        f"{'the same' if same else 'other'} tokens, {ratio:.2f} times the throughput",
        {"throughput_ratio": ratio},
    )


def check_memory(setup: Setup) -> Verdict:
    return _all_of({name: memory_order(cell_record) for name, cell_record in _largest_fp32_cells(setup).items()})


def memory_order(cell_record: Record) -> Verdict:
    """Each of these amounts contains the one before it."""
    amounts = {**cell_record.runs[0].memory, "host_memory_bytes": cell_record.host["memory_bytes"]}
    of_device = ("loaded_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "device_total_bytes")
    names = of_device if "device_total_bytes" in amounts else ("peak_rss_bytes", "host_memory_bytes")
    held = {name: amounts[name] for name in names if name in amounts}
    shown = " <= ".join(f"{name.removesuffix('_bytes')} {format_bytes(n_bytes)}" for name, n_bytes in held.items())
    return ok_if(list(held.values()) == sorted(held.values()), shown, held)


def check_tf32(setup: Setup) -> Verdict:
    return _all_of({name: tf32_is_off(cell_record) for name, cell_record in _largest_fp32_cells(setup).items()})


def tf32_is_off(cell_record: Record) -> Verdict:
    settings = {name: cell_record.model[name] for name in ("tf32", "float32_matmul_precision")}
    shown = ", ".join(f"{name} {value}" for name, value in settings.items())
    return ok_if(settings == {"tf32": False, "float32_matmul_precision": "highest"}, shown, settings)


def check_conditions(setup: Setup) -> Verdict:
    found = _steady(setup).runs[0].conditions
    shown = {name: format_number(values["median"]) for name, values in found["gauges"].items()}
    if setup.device == "cuda":
        wanted = [*conditions.GPU_GAUGES, "gpu_throttle_reasons", "other_gpu_processes"]
        shown |= {name: found[name] or "none" for name in wanted if name in found}
    else:
        wanted = ["worker_cpu_s", "other_cpu_s"]
        shown |= {name: format_number(value) for name, value in found["counters"].items()}
    missing = [name for name in wanted if name not in shown]
    listed = ", ".join(f"{name} {value}" for name, value in shown.items())
    return ok_if(
        # What a device or the permissions do not allow is left out of records, so it is named; but not all of it.
        len(missing) < len(wanted) and not found["errors"],
        "; ".join(
            (
                f"{found['n_samples']} samples in {found['seconds']:.1f} s: {listed}",
                f"cannot be read: {', '.join(missing) or 'none'}",
                *found["errors"],
            )
        ),
        found,
    )


def check_energy(setup: Setup) -> Verdict:
    cell_record = _steady(setup)
    energy, power = cell_record.runs[0].energy, cell_record.runs[0].conditions["gauges"].get("gpu_power_w")
    if error := next((flag.message for flag in cell_record.flags if flag.name == "energy-unknown"), None):
        return ok_if(False, error)
    if energy is None:
        return skipped("no energy counter of NVML" if setup.device == "cuda" else "no energy counter (RAPL)")
    return compared_energy(energy["joules"], energy["seconds"], power["median"] if power else None)


def compared_energy(joules: float, seconds: float, power_w: float | None) -> Verdict:
    """Counted energy against power x time. power_w: None where no gauge tells it."""
    facts = {"joules": joules, "seconds": seconds, "power_w": power_w}
    counted = f"{format_number(joules)} J in {seconds:.1f} s are {format_number(joules / seconds)} W"
    if power_w is None:
        return ok_if(True, f"{counted}; no gauge of power to compare it with", facts)
    difference = joules / (power_w * seconds) - 1
    return ok_if(
        abs(difference) <= ENERGY_TOLERANCE,
        f"{counted}, {difference:+.1%} from the gauge's median of {format_number(power_w)} W; "
        f"allowed: {ENERGY_TOLERANCE:.0%}",
        {**facts, "difference": difference},
    )


def check_rows(setup: Setup, engine_name: str) -> Verdict:
    """A batch of another size may add in another order, and so a token may differ at a near-tie, but nowhere else."""
    heads = setup.probe["n_head"]
    n_rows = MOST_MATRICES // heads + 2  # the last row is beyond with all of its heads
    compared = sorted({*range(32), *range(0, n_rows, n_rows // 64), *range(n_rows - 32, n_rows)})
    with _loaded(setup, engine_name, "fp32") as engine:
        prompts = draw_prompts(n_rows, 9, 0, engine.vocab_size)
        try:
            large = timed_call(engine, engine.generate, prompts, 4)[1][compared]
        except Exception as error:
            if engine.is_out_of_memory(error):
                return skipped(f"{n_rows:,} rows do not fit: {first_line(str(error))}")
            raise
        engine.release()
        prompts = prompts[compared]
        small = timed_call(engine, engine.generate, prompts, 4)[1]
        differing = (large != small).any(axis=1)
        gaps = []
        if differing.any():
            logits = engine.next_token_logits(prompts[differing], small[differing])
            gaps = token_gaps(large[differing], small[differing], logits)
    text = f"{n_rows:,} rows x {heads} heads = {n_rows * heads:,}: of {len(compared)} rows {len(gaps)} differ"
    if gaps:
        text += f", where logits are up to {max(gaps):.1g} standard deviations apart; a near-tie is below {NEAR_TIE:g}"
    return ok_if(all(gap < NEAR_TIE for gap in gaps), text, {"rows": n_rows, "compared": len(compared), "gaps": gaps})


def token_gaps(tokens, wanted, logits) -> list[float]:
    """How far apart the logits of both tokens are where each row first differs, in standard deviations of all logits.

    tokens, wanted: int64 (rows, steps), with a difference in each row. logits: float32 (rows, steps, vocabulary), each
    given the wanted tokens before it.
    """
    gaps = []
    for found_row, wanted_row, steps in zip(tokens, wanted, logits, strict=True):
        step = int((found_row != wanted_row).argmax())
        choices = steps[step].astype(float)
        gaps.append(float(abs(choices[found_row[step]] - choices[wanted_row[step]]) / choices.std()))
    return gaps


def check_oom(setup: Setup, engine: str) -> Verdict:
    prompt_tokens, batch_size, limit_bytes = setup.crowded
    workload = Workload(prompt_tokens, setup.new_tokens)
    cell = setup.probe_cell(engine, setup.precision, batch_size, workload=workload, memory_limit_bytes=limit_bytes)
    cell_record = measured(setup, cell)
    if cell_record.outcome == "unsupported":
        return ok_if(True, f"n/a: {cell_record.reason.message}")
    if cell_record.outcome == "ok":
        return ok_if(False, f"{batch_size} prompts of {prompt_tokens} tokens fit into {format_bytes(limit_bytes)}")
    reason = cell_record.reason
    words = line_about_memory(reason.message, limited=setup.device == "cpu")
    return ok_if(
        words and reason.limit == {"name": "memory_limit", "bytes": limit_bytes},
        f"oom during {reason.phase}, limit {reason.limit['name']} {format_bytes(reason.limit['bytes'])}, "
        f"{reason.exception_type}: {words or 'no words about memory: ' + first_line(reason.message)}",
        asdict(reason),
    )


def check_caches(setup: Setup) -> Verdict:
    rows, prompt_tokens = setup.cached
    with _loaded(setup, STATIC, setup.precision) as engine:
        import torch
        from transformers import StaticCache

        on_cuda = setup.device == "cuda"
        before_bytes = torch.cuda.memory_allocated() if on_cuda else 0

        def live() -> list[StaticCache]:
            return [value for value in gc.get_objects() if type(value) is StaticCache]

        def held_bytes() -> int:
            return torch.cuda.memory_allocated() - before_bytes if on_cuda else 0

        prompts = draw_prompts(rows, prompt_tokens, 0, engine.vocab_size)
        counts, held = [], []
        for call in (engine.observe, *[engine.generate] * 4):
            call(prompts, setup.new_tokens)
            engine.synchronize()
            counts.append(len(live()))
            held.append(held_bytes())
        cache_bytes = sum(
            part.nbytes for cache in live() for layer in cache.layers for part in (layer.keys, layer.values)
        )
        engine.release()
        counts.append(len(live()))
        held.append(held_bytes())
    return caches(counts, cache_bytes, held if on_cuda else None)


def caches(counts: Sequence[int], cache_bytes: int, held_bytes: Sequence[int] | None) -> Verdict:
    """counts: of live caches after each call and after the release. held_bytes: allocated then, without the model; None
    where nothing tells. The first call is not looked at, as recording CUDA graphs takes the second."""
    facts = {"live": counts, "cache_bytes": cache_bytes, "held_bytes": held_bytes}
    is_ok = set(counts[:-1]) == {1} and counts[-1] == 0
    shown = f"live caches after each call: {', '.join(map(str, counts[:-1]))}; after their release: {counts[-1]}"
    if held_bytes is not None:
        most_bytes = max(held_bytes[1:-1])
        is_ok = is_ok and cache_bytes <= most_bytes < cache_bytes + BESIDES_CACHE_BYTES
        is_ok = is_ok and held_bytes[-1] < BESIDES_CACHE_BYTES
        shown += (
            f"; of {format_bytes(cache_bytes)}; allocated besides the model: {', '.join(map(format_bytes, held_bytes))}"
        )
    return ok_if(is_ok, shown, facts)


def check_ceilings(setup: Setup) -> Verdict:
    found = studied(setup, CeilingsStudy("gpu-check", setup.device, setup.threads))
    verdict = against_data_sheet(found.device["name"], peaks(found.results))
    return verdict._replace(evidence=f"{study_text(found)}; {verdict.evidence}")


def against_data_sheet(name: str, measured_peaks: Peaks) -> Verdict:
    """Which part of its data sheet's figures a device of this name reaches."""
    speeds = {"bandwidth": measured_peaks.bandwidth[-1][1], **measured_peaks.flop_per_s}
    sheet = DATA_SHEETS.get(name)
    if sheet is None:
        return ok_if(
            all(speed > 0 for speed in speeds.values()), f"no data sheet figures for {name}", {"speeds": speeds}
        )
    shares = {what: speeds.get(what, 0) / figure for what, figure in sheet.items()}
    odd = [what for what, share in shares.items() if not LEAST_SHARE <= share <= MOST_SHARE]
    text = f"of the data sheet: {', '.join(f'{what} {share:.0%}' for what, share in shares.items())}"
    if odd:
        text += f"; not within {LEAST_SHARE:.0%} and {MOST_SHARE:.0%}: {', '.join(odd)}"
    return ok_if(not odd, text, {"speeds": speeds, "shares": shares})


def check_timeline(setup: Setup, engine: str) -> Verdict:
    found = studied(setup, TimelineStudy(setup.cell(engine, setup.precision, setup.batch_sizes[0]), trace=False))
    timeline = Timeline.of(found.results)
    steps_share = timeline.call_s / mean(timeline.observed_s)
    shares = timeline.shares
    others = ", ".join(each["name"] for each in timeline.profile["longest"] if each["kind"] == "other")
    return ok_if(
        STEPS_SHARE < steps_share <= 1 and shares["products"] > 0 and shares["outside"] < 1,
        f"{study_text(found)}; the steps are {steps_share:.1%} of their calls; timing them costs "
        f"{timeline.observing_cost:+.1%}, profiling {timeline.profiling_cost:+.0%}; other kernels: {others}",
        {"shares": shares, "growth": timeline.growth, "longest": timeline.profile["longest"]},
    )


def check_search(setup: Setup, engine: str) -> Verdict:
    prompt_tokens, limit_bytes = setup.searched
    workload = Workload(prompt_tokens, setup.new_tokens)
    cell = setup.probe_cell(engine, setup.precision, workload=workload, memory_limit_bytes=limit_bytes)
    found = studied(setup, ColumnStudy.of("max-batch", cell, tolerance_percent=2))
    fits, fails = batch_limit(found.results)
    tried = [each["batch_size"] for each in found.results]
    return ok_if(
        fits > 0 and fails is not None,
        f"{study_text(found)} under {format_bytes(limit_bytes)}: {', '.join(map(str, tried))}",
        {"fits": fits, "fails": fails, "tried": tried},
    )


# -- what the checks look at -----------------------------------------------------------------------------


def measured(setup: Setup, cell: Cell, watch: Supervision | None = None) -> Record:
    """The record of a cell, measured once for all checks. watch: None is the default."""
    return _made_once(setup, cell, lambda path: measure_cell(cell, watch or Supervision()))


def figures(setup: Setup, cell: Cell, watch: Supervision | None = None) -> Record:
    """The same of a cell with the outcome ok. Raises NothingToCheckError."""
    return _with_outcome_ok(measured(setup, cell, watch))


def studied(setup: Setup, study: Study) -> StudyRecord:
    """The record of a study with the outcome ok. Raises NothingToCheckError."""
    return _with_outcome_ok(_made_once(setup, study, lambda path: run_study(study, Supervision(), path)))


def _made_once(setup: Setup, subject: Subject, make: Callable[[Path], AnyRecord]) -> AnyRecord:
    path = Path(setup.folder, subject.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):  # of two checks at a time the second waits for the record
        if not path.exists():
            record_file.write(make(path), path)
    return record_file.load_for(subject, path)


def _with_outcome_ok(made: AnyRecord) -> AnyRecord:
    if made.outcome == "ok":
        return made
    text = f"{made.subject.label}: {made.outcome} during {made.reason.phase}: {made.reason.message}"
    raise NothingToCheckError(skipped(f"n/a: {text}") if made.outcome == "unsupported" else ok_if(False, text))


def _largest_fp32_cells(setup: Setup) -> dict[str, Record]:
    """By engine, without those that the check of the engine has not found to work."""
    cells = {}
    for name, entry in CHECKED.items():
        if not entry.package or Path(setup.folder, setup.probe_cell(name, "fp32").path).exists():
            cells[name] = figures(setup, setup.cell(name, "fp32", setup.batch_sizes[-1]))
    return cells


def _steady(setup: Setup) -> Record:
    """Prefill alone for some seconds: with a second phase of timed calls, energy and power are not of the same work."""
    prompt_tokens, batch_size, seconds = setup.steady
    cell = setup.cell(HF, setup.precision, batch_size)
    lasting = replace(cell.measurement, min_seconds=seconds, max_seconds=seconds)
    cell = replace(cell, workload=Workload(prompt_tokens, 1), measurement=lasting)
    return figures(setup, cell, Supervision(sample_hz=10))


@contextmanager
def _loaded(setup: Setup, engine_name: str, precision: str) -> Iterator[engines.Engine]:
    """An engine with the probe loaded, in this process. Raises NothingToCheckError where it lacks the precision."""
    cell = setup.probe_cell(engine_name, precision)
    folder = checkpoint.ensure(cell.model)
    with hold_device(cell, Supervision()):
        engine = engines.create(engine_name)
        engine.start(setup.device, setup.threads or hardware.default_threads(), folder)
        if reason := engine.unsupported(precision):
            raise NothingToCheckError(skipped(f"n/a: {reason}"))
        engine.load(folder, precision)
        yield engine


def _all_of(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict from several: the first that is not ok."""
    words = [each.verdict for each in verdicts.values()]
    return Verdict(
        next((word for word in words if word != "ok"), "ok"),
        "; ".join(f"{name}: {each.evidence}" for name, each in verdicts.items()),
        {name: each.facts for name, each in verdicts.items()},
    )


# -- the command -----------------------------------------------------------------------------------------


def find_device(wanted: str | None) -> tuple[str, hardware.Gpu | None]:
    """(device, its GPU). Raises LookupError and hardware.GpuError where there is none that can be used."""
    device = wanted or hardware.detect_device()
    if device == "cpu":
        return device, None
    gpus = hardware.visible(hardware.gpus(), os.environ)
    if not gpus:
        raise LookupError("no GPU is visible here")
    return device, gpus[0]


def run(planned: Sequence[Check], budget_s: float, at_a_time: int, logs: Path) -> list[dict[str, Any]]:
    """Run the checks, print a line for each, and return what the JSON document has of them, in their order."""
    results = {}
    for check, verdict, seconds in run_checks(planned, budget_s, at_a_time, logs):
        text = printable(" ".join(verdict.evidence.split()))
        print(f"{check.name:<28} {verdict.verdict:<8}{seconds:6.1f} s  {text}", file=sys.stderr, flush=True)
        results[check.name] = {"name": check.name, **verdict._asdict(), "seconds": round(seconds, 1)}
        if verdict.verdict == "failed" and check.log(logs).exists():
            results[check.name]["output"] = check.log(logs).read_text(errors="replace").splitlines()[-40:]
    return [results[check.name] for check in planned]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(SETUPS), help="default: cuda if a GPU is visible, else cpu")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="checks or kinds of checks, such as cells/hf or rows")
    parser.add_argument("--minutes", type=float, default=8, help="time for all checks; default: 8")
    parser.add_argument("--model", type=json.loads, metavar="JSON", help="sizes of the model, as an architecture")
    parser.add_argument("--batch", type=int, nargs="+", metavar="N", help="batch sizes of the cells")
    parser.add_argument("--precisions", choices=PRECISIONS, nargs="+", metavar="NAME", help="precisions of the cells")
    parser.add_argument("--folder", type=Path, help="where to keep records and logs; default: nowhere")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="gpu-check-"))
    try:
        device, gpu = find_device(arguments.device)
        (folder / "logs").mkdir(parents=True)  # records of an earlier check would not be measured again
        at_a_time = 1 if gpu else min(2, hardware.default_threads())
        setup = replace(
            SETUPS[device],
            **{
                name: value
                for name, value in (
                    ("model", arguments.model),
                    ("batch_sizes", arguments.batch and tuple(arguments.batch)),
                    ("precisions", arguments.precisions and tuple(arguments.precisions)),
                )
                if value
            },
            threads=hardware.default_threads() // at_a_time,
            folder=str(folder),
        )
        planned = checks(setup)
        if arguments.only:
            planned = chosen(planned, arguments.only)
        if gpu:  # all checks are of this one
            os.environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu.uuid}
        began, began_s = datetime.now(UTC), time.monotonic()
        results = run(planned, arguments.minutes * 60, at_a_time, folder / "logs")
    except FileExistsError as error:
        return fail(f"{error.filename} exists; name a new folder")
    except (LookupError, hardware.GpuError, CellError) as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    document = {
        "device": provenance.device(gpu),
        "host": provenance.host(),
        "software": provenance.software(),
        "git": provenance.git(),
        "started_at": began.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began_s, 1),
        "setup": asdict(setup),
        "checks": results,
    }
    print(json.dumps(document, indent=1))
    words = [each["verdict"] for each in results]
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("ok", "failed", "skipped"))
    print(f"{document['device']['name']}: {counts}, {document['seconds']:.0f} s", file=sys.stderr)
    return 1 if "failed" in words else 0


if __name__ == "__main__":
    sys.exit(main())
