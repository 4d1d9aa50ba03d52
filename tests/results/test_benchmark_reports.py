"""Benchmark Reports of llm-d as baselines: what can be compared, and what is named instead."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up import SMALL, grid, make_cell, make_record, records_of, write_records
from running import script

from inference_benchmark.cli import ProblemsError
from inference_benchmark.compare import result_set
from inference_benchmark.compare.comparing import compare
from inference_benchmark.experiment import baselines

pytest.importorskip("llmd_benchmark_report")
#: Of a server that had one request after the other.
SERVED: dict[str, Any] = {
    "version": "0.2.1",
    "run": {"uid": "1", "time": {"start": "2026-01-02T03:04:05Z"}},
    "scenario": {
        "stack": [
            {
                "metadata": {"label": "vllm-0", "cfg_id": "1"},
                "standardized": {
                    "kind": "inference_engine",
                    "tool": "vllm",
                    "tool_version": "0.32.0",
                    "role": "replica",
                    "replicas": 1,
                    "model": {"name": "tiny"},
                    "accelerator": {"model": "H200", "count": 1, "parallelism": {"tp": 1}},
                },
                "native": {},
            }
        ],
        "load": {
            "metadata": {},
            "standardized": {
                "tool": "inference-perf",
                "tool_version": "0.3.0",
                "source": "random",
                "input_seq_len": {"distribution": "fixed", "value": 4},
                "output_seq_len": {"distribution": "fixed", "value": 8},
                "concurrency": 1,
            },
            "native": {},
        },
    },
    "results": {
        "request_performance": {
            "aggregate": {
                "requests": {"total": 10, "failures": 0},
                "latency": {
                    "request_latency": {"units": "ms", "mean": 1000},
                    "time_to_first_token": {"units": "s", "mean": 0.2},
                },
                "throughput": {"output_token_rate": {"units": "tokens/s", "mean": 8}},
            }
        }
    },
}


def served(**changes: Any) -> dict[str, Any]:
    """SERVED with other values, by keys of its load, or of its requests."""
    document = deepcopy(SERVED)
    requests = document["results"]["request_performance"]["aggregate"]["requests"]
    for key, value in changes.items():
        (requests if key in ("total", "failures") else document["scenario"]["load"]["standardized"])[key] = value
    return document


def written(path: Path, document: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(document))
    return path


def test_what_was_exported_is_the_same_when_it_is_read_again(tmp_path):
    folder = write_records(tmp_path, records_of(grid(**SMALL), rounds=2))
    done = script("export", folder, "--format", "llm-d", "--output", tmp_path / "reports")
    assert done.returncode == 0, done.stderr
    base, new = result_set.load(tmp_path / "reports"), result_set.load(folder)
    comparison = compare(base, new)
    assert [cell.ratio.value for cell in comparison.cells] == pytest.approx([1] * 14)
    assert [*comparison.only_base, *comparison.only_new] == []
    assert base.facts == {"device": ["Made-up GPU"]}
    assert baselines.check(tmp_path / "reports") == []
    assert len(list(baselines.files([str(tmp_path / "reports")]))) == 14


def test_a_served_request_is_compared_with_batch_1_in_every_precision(tmp_path):
    path = written(tmp_path / "vllm.json", SERVED)
    base = result_set.load(path)
    cells = [make_cell(batch_size=1), make_cell(batch_size=1, precision="bf16"), make_cell(batch_size=2)]
    comparison = compare(base, result_set.of_records([make_record(cell) for cell in cells]))
    # A call of make_record takes half a second on average.
    assert [cell.ratio.value for cell in comparison.cells] == pytest.approx([2, 2])
    assert [cell.new.column.precision for cell in comparison.cells] == ["fp32", "bf16"]
    assert base.cells[0].figures["first_token_s"].value == 0.2
    (note,) = comparison.notes
    assert note == f"{path}: of vllm 0.32.0; compared with every engine and precision of the same model."
    assert base.measured_from == "2026-01-02T03:04:05+00:00"


def test_requests_that_start_together_are_a_batch(tmp_path):
    path = written(tmp_path / "x.yaml", served(concurrency=8, total=8))
    assert [cell.batch_size for cell in result_set.load(path).cells] == [8]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"concurrency": 8}, "serving at a concurrency of 8 is not a batch"),
        ({"concurrency": None}, "it had no fixed concurrency"),
        ({"concurrency": float("inf")}, "it had no fixed concurrency"),
        ({"rate_qps": 2.5}, "requests came at a rate of 2.5 per second"),
        ({"input_seq_len": {"distribution": "gaussian", "value": 4}}, "its prompts have no fixed length"),
        ({"output_seq_len": None}, "its answers have no fixed length"),
        ({"multi_turn": {"enabled": True}}, "its prompts share prefixes or have several turns"),
        ({"failures": 3}, "3 of its 10 requests failed"),
    ],
)
def test_what_is_no_batch_is_named(tmp_path, changes, said):
    folder = tmp_path / "reports"
    path = written(folder / "benchmark_report_a.yaml", served(**changes))
    (problem,) = baselines.check(folder)
    assert problem.startswith(f"{path}: not compared: ")
    assert said in problem
    # Beside one that can be compared it is a remark.
    written(folder / "benchmark_report_b.yaml", SERVED)
    assert baselines.check(folder) == []
    assert result_set.load(folder).notes[1:] == [problem]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "is not a Benchmark Report"),
        ({"version": "9"}, "is not a Benchmark Report (Unsupported schema version: 9)"),
        ({**SERVED, "results": {"speed": 1}}, "is not a Benchmark Report (1 validation error for Benchmark Report v0.2"),
        ({**SERVED, "scenario": None}, "it does not say the workload and the engine"),
        ({**SERVED, "results": {}}, "it has no figures"),
    ],
)  # fmt: skip
def test_what_is_no_report_is_one_line(tmp_path, document, said):
    path = written(tmp_path / "x.yaml", document)
    (problem,) = baselines.check(path)
    assert problem.startswith(f"{path}: ")
    assert said in problem
    assert "\n" not in problem


def test_two_reports_of_one_cell_are_refused(tmp_path):
    paths = [written(tmp_path / f"benchmark_report_{name}.yaml", SERVED) for name in "ab"]
    with pytest.raises(ProblemsError, match=f"{paths[1]}: the same cell as in {paths[0]}; keep one"):
        result_set.load(tmp_path)


def test_without_the_package_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "llmd_benchmark_report", None)
    (problem,) = baselines.check(written(tmp_path / "x.yaml", SERVED))
    assert problem.endswith("run: pip install 'llmd-benchmark-report<0.3'")
