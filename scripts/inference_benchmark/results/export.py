"""Cell results in the formats of other tools, for cells that were measured."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import yaml

from inference_benchmark.analysis.figures import PERFORMANCE, Figure
from inference_benchmark.engines import PACKAGES
from inference_benchmark.results.cell_result import CellResult

#: What a Benchmark Report calls this project.
TOOL = "inference-benchmark"
#: What its standardized part of an engine cannot say; in the native part.
NAMES = ("engine", "precision", "environment")
#: Where a Benchmark Report has our figures: a part of its aggregates, a metric and its unit, and our figure for each of
#: its statistics. All rows of a call end together, so the latency of a request is that of its call.
OF_REPORT = {
    ("latency", "request_latency", "s"): {
        "mean": "latency_s", "stddev": "latency_sd_s", "min": "latency_min_s", "p50": "latency_median_s",
        "p95": "latency_p95_s", "max": "latency_max_s",
    },
    ("latency", "time_to_first_token", "s"): {"mean": "first_token_s"},
    ("latency", "time_per_output_token", "s/token"): {"mean": "time_per_output_token_s"},
    ("throughput", "output_token_rate", "tokens/s"): {"mean": "throughput_tok_per_s"},
}  # fmt: skip


def to_bmf(results: Iterable[CellResult], figures: Sequence[Figure] = PERFORMANCE) -> str:
    """Bencher Metric Format: a benchmark for each cell, with the figures as its measures and their intervals as the
    lower and upper values. The unit of a value is in the name of its measure: Bencher's own measures ``latency`` and
    ``throughput`` have others."""
    ends = ("value", "lower_value", "upper_value")
    benchmarks = {}
    for result in results:
        for name in (figure.name for figure in figures if figure.name in result.figures):
            values = zip(ends, result.figures[name], strict=True)
            benchmarks.setdefault(result.label, {})[name] = {end: value for end, value in values if value is not None}
    return _json(benchmarks)


def to_github_action_benchmark(
    results: Sequence[CellResult], figures: Sequence[Figure] = PERFORMANCE
) -> Mapping[str, str]:
    """The files for github-action-benchmark by name: one for each of its tools that it has figures for."""
    files = {
        f"custom{tool}IsBetter.json": [
            _entry(result, figure)
            for result in results
            for figure in figures
            if figure.better == better and figure.name in result.figures
        ]
        for tool, better in (("Bigger", "higher"), ("Smaller", "lower"))
    }
    return {name: _json(entries) for name, entries in files.items() if entries}


def _entry(result: CellResult, figure: Figure) -> dict[str, Any]:
    value, low, high = result.figures[figure.name]
    return {
        "name": f"{result.label}: {figure.title}",
        "unit": figure.unit,
        "value": figure.in_unit(value),
        **({} if low is None else {"range": f"{figure.text(low)} to {figure.text(high)}"}),
        "extra": ", ".join((result.machine, *result.warnings)),
    }


def to_benchmark_reports(
    results: Iterable[CellResult], facts_of: Callable[[CellResult], Mapping[str, Sequence[Any]]]
) -> Mapping[str, str]:
    """The Benchmark Reports v0.2 of llm-d as YAML, one for each cell, by the names of their files. facts_of: what a
    cell was measured on and with, as in ResultSet.facts. The format has no place for an interval."""
    reports = {}
    for result in results:
        name = f"benchmark_report_v0.2,_{result.column.path.replace('/', '-')}-batch-{result.batch_size}.yaml"
        reports[name] = yaml.safe_dump(_report(result, facts_of(result)), sort_keys=False, allow_unicode=True)
    return reports


def _report(result: CellResult, facts: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    column, rows = result.column, result.batch_size
    software = [f"{name} {version}" for name in PACKAGES for version in facts.get(name, ())]
    device = ", ".join(map(str, facts.get("device", ()))) or result.device
    engine = {
        "kind": "inference_engine",
        "tool": column.base_engine or column.engine,
        "tool_version": ", ".join(software) or "unknown",
        "role": "replica",
        "replicas": 1,
        "model": {"name": column.model},
        "accelerator": {"model": device, "count": int(result.device == "cuda"), "parallelism": {}},
    }
    named = {name: getattr(column, name) for name in NAMES}
    native = {"args": {**dict(column.options), **named}}
    lengths = {"input": column.prompt_tokens, "output": column.new_tokens}
    load = {
        "tool": TOOL,
        "tool_version": ", ".join(map(str, facts.get("commit", ()))) or "unknown",
        "source": "sampled" if column.prompts else "random",
        **{f"{name}_seq_len": {"distribution": "fixed", "value": tokens} for name, tokens in lengths.items()},
        "concurrency": rows,
    }
    requests = {
        "total": rows * int(result.value("cycles")),
        "failures": 0,
        **{f"{name}_length": {"units": "count", "mean": float(tokens)} for name, tokens in lengths.items()},
    }
    aggregate: dict[str, Any] = {"requests": requests}
    for (part, metric, unit), statistics in OF_REPORT.items():
        found = {each: float(result.value(name)) for each, name in statistics.items() if name in result.figures}
        if "mean" in found:
            aggregate.setdefault(part, {})[metric] = {"units": unit, **found}
    about_load = f"one generate call for a static batch of {rows} rows, not requests to a server"
    return {
        "version": "0.2",
        "run": {
            "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{result.machine} {result.label} {result.started_at}")),
            "eid": result.machine,
            "time": {"start": result.started_at, "end": result.ended_at},
            "description": result.label,
            "keywords": list(result.warnings),
        },
        "scenario": {
            "stack": [
                {
                    "metadata": {"label": column.name, "cfg_id": _digest([engine, native])},
                    "standardized": engine,
                    "native": native,
                }
            ],
            "load": {
                "metadata": {"cfg_id": _digest(load), "description": about_load},
                "standardized": load,
                "native": {},
            },
        },
        "results": {"request_performance": {"aggregate": aggregate}},
    }


def _digest(document: Any) -> str:
    return hashlib.sha256(_json(document).encode()).hexdigest()[:32]


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
