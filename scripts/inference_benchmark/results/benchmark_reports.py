"""Benchmark Reports of llm-d, in which serving harnesses say what they measured, as results to compare with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from inference_benchmark import files
from inference_benchmark.analysis import metrics
from inference_benchmark.cli import ProblemsError
from inference_benchmark.results.cell_result import KEYS, CellResult
from inference_benchmark.results.column import TEXT
from inference_benchmark.results.export import NAMES, OF_REPORT, TOOL

_ENDINGS = (".yaml", ".yml", ".json")
#: What turns a value in a unit of a report into one of ours.
_FACTORS = {"ms": 1e-3, "s": 1, "ms/token": 1e-3, "s/token": 1, "tokens/s": 1}


class Reports(NamedTuple):
    """cells: those that can be compared. notes: what they were measured with, and why others cannot. devices: names.
    measured_from: the earliest start, as an ISO date; None where none is known."""

    cells: list[CellResult]
    notes: list[str]
    devices: list[str]
    measured_from: str | None


def paths(path: Path) -> list[Path]:
    """The reports at a path: itself, or those below a folder, which are called benchmark_report..."""
    found = sorted(path.rglob("benchmark_report*")) if path.is_dir() else [path]
    return [each for each in found if each.suffix in _ENDINGS]


def read(path: Path) -> Reports:
    """The reports at a path. Those of others do not tell engine and precision by our names: their cells have neither,
    and match cells of any. Raises ProblemsError naming all that cannot be used, or where none can be compared, and
    OSError."""
    try:
        models = import_module("llmd_benchmark_report")
    except ModuleNotFoundError:
        missing = "is a Benchmark Report, and what reads it is missing; run: pip install 'llmd-benchmark-report<0.3'"
        raise ProblemsError(f"{path}: {missing}") from None
    problems, reasons, others, devices, starts = [], [], [], [], []
    cells: dict[tuple[Any, ...], tuple[CellResult, Path]] = {}
    for file in paths(path):
        try:
            report = models.load_benchmark_report(yaml.load(files.read(file), yaml.CSafeLoader))
        except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
            problems.append(f"{file}: is not a Benchmark Report ({' '.join(str(error).split())[:200]})")
            continue
        if reason := next(_not_comparable(report), None):
            reasons.append(f"{file}: not compared: {reason}.")
            continue
        cell, engine = _cell(report), _engines(report)[0].standardized
        if known := cells.get(key := cell.key_in(KEYS)):
            problems.append(f"{file}: the same cell as in {known[1]}; keep one")
        cells[key] = cell, file
        if not cell.column.engine:
            others.append(f"{engine.tool} {engine.tool_version}")
        devices.append(engine.accelerator.model)
        starts += [report.run.time.start] if report.run.time and report.run.time.start else []
    if problems or not cells:
        raise ProblemsError(*(problems or reasons))
    engines = ", ".join(dict.fromkeys(others))
    notes = [f"{path}: of {engines}; compared with every engine and precision of the same model."] if engines else []
    start = min(starts, key=datetime.timestamp, default=None)
    found = [cell for cell, _ in cells.values()]
    return Reports(found, [*notes, *reasons], list(dict.fromkeys(devices)), start and start.isoformat())


def _engines(report: Any) -> list[Any]:
    return [each for each in report.scenario.stack or () if each.standardized.kind == "inference_engine"]


def _not_comparable(report: Any) -> Iterator[str]:
    """Why what a report is of cannot be the same as a static batch of rows of equal lengths."""
    if not report.version.startswith("0.2"):
        yield f"its version is {report.version}, not 0.2"
        return
    if not report.scenario or not report.scenario.load or not _engines(report):
        yield "it does not say the workload and the engine (scenario.load, an inference_engine in scenario.stack)"
        return
    load = report.scenario.load.standardized
    if not report.results.request_performance or not (aggregate := report.results.request_performance.aggregate):
        yield "it has no figures (results.request_performance.aggregate)"
        return
    requests = aggregate.requests
    for name, length in (("prompts", load.input_seq_len), ("answers", load.output_seq_len)):
        if length is None or length.distribution != "fixed":
            yield f"its {name} have no fixed length"
    if load.prefix or (load.multi_turn and load.multi_turn.enabled):
        yield "its prompts share prefixes or have several turns"
    if load.rate_qps and load.rate_qps < math.inf:
        yield f"requests came at a rate of {load.rate_qps:g} per second"
    if not load.concurrency or load.concurrency == math.inf:
        yield "it had no fixed concurrency"
    elif load.tool != TOOL and load.concurrency > 1 and not (requests and requests.total == load.concurrency):
        yield f"serving at a concurrency of {load.concurrency} is not a batch: requests come and go one by one"
    if requests and (requests.failures or requests.incomplete):
        yield f"{(requests.failures or 0) + (requests.incomplete or 0)} of its {requests.total} requests failed"


def _cell(report: Any) -> CellResult:
    load, engine = report.scenario.load.standardized, _engines(report)[0]
    key = {
        "model": engine.standardized.model.name,
        "prompt_tokens": int(load.input_seq_len.value),
        "new_tokens": int(load.output_seq_len.value),
        "batch_size": load.concurrency,
        "prompts": TEXT if load.tool == TOOL and load.source == "sampled" else "",
        **{name: engine.native.args[name] for name in NAMES if load.tool == TOOL},
    }
    figures = {}
    for (part, metric, _), statistics in OF_REPORT.items():
        measured = getattr(getattr(report.results.request_performance.aggregate, part), metric, None)
        if measured and measured.mean > 0:
            figures[statistics["mean"]] = measured.mean * _FACTORS[measured.units]
    if throughput := figures.get("throughput_tok_per_s"):
        figures["ms_per_token"] = metrics.ms_per_token(throughput)
    return CellResult.of_key(key, "ok", figures)
