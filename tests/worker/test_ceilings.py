"""Ceilings of this machine, measured."""

from __future__ import annotations

import os
import time

from running import run_study

from inference_benchmark.analysis import ceilings
from inference_benchmark.experiment.studies import CeilingsStudy


def test_ceilings_of_this_machine(tmp_path):
    began = time.monotonic()
    record = run_study(CeilingsStudy("box", "cpu", None), tmp_path / "ceilings.json")
    assert time.monotonic() - began < 60
    kinds = {(r["kind"], r.get("kernel") or r["dtype"]) for r in record.results}
    assert {("bandwidth", "copy"), ("bandwidth", "sum"), ("bandwidth", "matrix-vector")} <= kinds
    assert {("matmul", "float32"), ("matmul", "bfloat16"), ("matmul", "float16")} <= kinds
    assert min(len(r["samples_s"]) for r in record.results) >= 7
    sizes = {r["working_set_bytes"] for r in record.results if r["kind"] == "bandwidth"}
    assert max(sizes) >= 2**28, "larger than a cache"
    peaks = ceilings.peaks(record.results)
    assert 10**9 < peaks.bandwidth[-1][1] < 10**12
    assert 10**9 < peaks.flop_per_s["float32"] < 10**14
    assert record.conditions["n_samples"] > 0
    assert record.device["kind"] == "cpu"
    assert record.model["threads"] == len(os.sched_getaffinity(0))
