"""Checks that look at the records of cells."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gpu_checks.runner import Verdict, first_line, ok_if, skipped
from gpu_checks.setup import CHECKED, HF, STATIC, Setup, all_of, figures, measured, studied, with_outcome_ok
from inference_benchmark.analysis import metrics, yardstick
from inference_benchmark.analysis.yardstick import Speed
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import conditions
from inference_benchmark.machine.out_of_memory import line_about_memory
from inference_benchmark.measure import warm_start
from inference_benchmark.models import checkpoint
from inference_benchmark.records import answers
from inference_benchmark.records.record import Record
from inference_benchmark.render.one_line import cell_text
from inference_benchmark.units import format_bytes, format_number

#: Logits that differ by less, as a part of their norm, differ by the rounding of fp32. That is a few 1e-6.
ROUNDING = 1e-4
#: Counted energy may differ from power x time by this part. NVML's power is a mean of up to a second, and the window of
#: the energy ends with an idle update interval.
ENERGY_TOLERANCE = 0.15


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
        taken_s = wall_split_s(with_outcome_ok(cell_record))
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


def check_placement(setup: Setup, placement: str) -> Verdict:
    """The tokens of a model are those that it has on one device, wherever its weights are."""
    options: dict[str, Any] = {"engine": HF, "placement": placement}
    cell = setup.probe_cell(HF, "fp32")
    if placement == "tensor":  # bloom cannot be split
        cell = replace(cell, model={"name": "llama", "architecture": setup.llama, "seed": 0})
    whole = figures(setup, cell)
    if placement in ("layers", "tensor"):
        if setup.pair:  # on a CPU two processes
            os.environ["CUDA_VISIBLE_DEVICES"] = setup.pair
        placed = replace(cell, engine=placement, options={**options, "gpus": 2})
    else:
        placed = replace(cell, engine=placement, options=options, memory_limit_bytes=setup.tight_bytes)
    return compared_placement(figures(setup, placed), whole)


def compared_placement(placed: Record, whole: Record) -> Verdict:
    """placed: a cell of a variant with a placement. whole: the same cell on one device."""
    where = placed.model["placement"]
    shown = ", ".join(f"{format_bytes(here['bytes'])} on {place}" for place, here in where.items())
    times = [record.measured().latency_s.value for record in (placed, whole)]
    same = placed.runs[0].tokens_sha256 == whole.runs[0].tokens_sha256
    text = f"{shown}; {'the same' if same else 'other'} tokens in {times[0] / times[1]:.2f} of the time"
    links = placed.device.get("links")
    return ok_if(same and len(where) > 1, f"{text}; links: {', '.join(links)}" if links else text, {"places": where})


def check_recordings(setup: Setup) -> Verdict:
    verdicts = {}
    for batch_size in setup.batch_sizes:
        cell_record = figures(setup, setup.cell(STATIC, setup.precision, batch_size))
        verdicts[f"batch {batch_size}"] = recordings(cell_record.model, setup.device)
    return all_of(verdicts)


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
    cell = setup.probe_cell(engine, setup.precision, setup.batch_sizes[0])
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
    return all_of({name: memory_order(cell_record) for name, cell_record in _largest_fp32_cells(setup).items()})


def memory_order(cell_record: Record) -> Verdict:
    """Each of these amounts contains the one before it."""
    amounts = {**cell_record.runs[0].memory, "host_memory_bytes": cell_record.host["memory_bytes"]}
    of_device = ("loaded_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "device_total_bytes")
    names = of_device if "device_total_bytes" in amounts else ("peak_rss_bytes", "host_memory_bytes")
    held = {name: amounts[name] for name in names if name in amounts}
    shown = " <= ".join(f"{name.removesuffix('_bytes')} {format_bytes(n_bytes)}" for name, n_bytes in held.items())
    return ok_if(list(held.values()) == sorted(held.values()), shown, held)


def check_tf32(setup: Setup) -> Verdict:
    return all_of({name: tf32_is_off(cell_record) for name, cell_record in _largest_fp32_cells(setup).items()})


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


def check_yardstick(setup: Setup) -> Verdict:
    return yardsticks(_steady(setup).runs[0].yardstick)


def yardsticks(times: Mapping[str, Any]) -> Verdict:
    """Whether a device that its own cell has made hot would count as slower. times: as in the record of a run."""
    before, after = (Speed.of(times[when]) for when in ("before", "after"))
    shares = dict(zip(yardstick.NAMES, after.over(before), strict=True))
    shown = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    why_slower = yardstick.why_slower([before, after], before)
    return ok_if(not why_slower, f"right after the cell, of the speed before it: {shown}", shares)


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
