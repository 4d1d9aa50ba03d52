"""The comparison with optimum-benchmark: what it is asked to do."""

from __future__ import annotations

import json
import sys

import others
import pytest
import ratios


def test_optimum_benchmark_calls_the_model_as_often_as_the_bare_script(tmp_path, monkeypatch):
    monkeypatch.setattr(ratios.checkpoint, "ensure", lambda model: tmp_path)
    cell = ratios.make_cell(ratios.SMALL, "fp32", 1, 8, 5)
    scenario = others.settings(cell)["scenario"]
    long_calls = int(ratios.bare_command(cell)[-2])
    assert 2 + scenario["iterations"] == long_calls
    assert scenario["warmup_runs"] == long_calls - 1


def test_latencies_are_read_without_warm_up_and_first_tokens(tmp_path):
    cell = ratios.make_cell(ratios.SMALL, "fp32", 1, 8, 5)
    assert ratios.bare_s(cell, json.dumps([9, 9, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0])) == 3
    report = {"first_generate": {"latency": {"values": [9.0]}}, "generate": {"latency": {"values": [1.0, 3.0, 2.0]}}}
    (tmp_path / "benchmark_report.json").write_text(json.dumps(report))
    assert others.optimum_s(tmp_path / "benchmark_report.json") == 2


def test_a_command_that_fails_ends_with_its_own_words():
    with pytest.raises(SystemExit, match=r"(?s)no such thing.*failed with status 3"):
        ratios.timed([sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"])
