"""How a worker ended."""

from __future__ import annotations

import signal

import pytest
from made_up import make_cell

from inference_benchmark.measure.outcome import MeasurementError, classify
from inference_benchmark.measure.worker_process import WorkerReport

ORIGIN = {"host": {"memory_limit": None, "memory_bytes": 10**9}, "device": {"memory_bytes": 8 * 10**10}}


def test_only_the_kernels_count_makes_a_kill_an_oom():
    killed = WorkerReport(phase="warm-up", returncode=-signal.SIGKILL)
    outcome, reason = classify(killed, make_cell(), ORIGIN, {"/cg": 1}, {"/cg": 2})
    assert (outcome, reason.phase, reason.exception_type) == ("oom", "warm-up", "SIGKILL")
    assert reason.evidence == {"oom_kill_before": {"/cg": 1}, "oom_kill_after": {"/cg": 2}}
    for before, after in (({"/cg": 1}, {"/cg": 1}), ({}, {}), ({}, {"/cg": 5})):
        with pytest.raises(MeasurementError, match="killed by SIGKILL"):
            classify(killed, make_cell(), ORIGIN, before, after)
    with pytest.raises(MeasurementError, match="SIGSEGV"):
        classify(WorkerReport(returncode=-signal.SIGSEGV), make_cell(), ORIGIN, {"/cg": 1}, {"/cg": 2})
    with pytest.raises(MeasurementError, match="exit status 3"):
        classify(WorkerReport(returncode=3), make_cell(), ORIGIN, {}, {})
