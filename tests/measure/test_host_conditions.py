"""CPUs and memory that others use or a cgroup limits."""

from __future__ import annotations

import os
import subprocess
import sys

from made_up import make_cell, measurement
from running import fault, flag_names, measure_cli, read_record


def test_cpus_that_others_use_are_flagged(tmp_path):
    n_hogs = max(1, len(os.sched_getaffinity(0)) // 4)
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_hogs)]
    try:
        cell = make_cell(measurement=measurement(min_seconds=1, max_seconds=1))
        done = measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=fault(sleep_s=0.1, real_clock=True))
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert done.returncode == 0, done.stderr
    assert "cpu-contended" in flag_names(read_record(tmp_path / "r.json"), ("cpu",))


def test_a_real_cpu_quota_is_seen_and_flagged_and_threads_are_by_default_no_more_than_it_allows(tmp_path, cpu_cgroup):
    cell = make_cell(engine="hf", measurement=measurement(min_seconds=1, max_seconds=1))
    warm = measure_cli(cell, tmp_path / "warm.json")  # weights are drawn before the brake is on
    assert warm.returncode == 0, warm.stderr
    done = measure_cli(cell, tmp_path / "r.json", cgroup=cpu_cgroup)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json")
    assert "cpu-throttled" in flag_names(record, ("cpu",))
    assert (record["host"]["cpu_limit"], record["model"]["threads"]) == (0.5, 1)
    assert record["environment"]["OMP_NUM_THREADS"] == "1"


def test_a_kill_by_the_kernel_for_memory_is_an_oom_with_its_evidence(tmp_path, memory_cgroup):
    done = measure_cli(make_cell(), tmp_path / "r.json", cgroup=memory_cgroup, FAKE_ENGINE=fault(fault="hog"))
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json")
    assert (record["outcome"], record["reason"]["exception_type"]) == ("oom", "SIGKILL")
    before, after = record["reason"]["evidence"]["oom_kill_before"], record["reason"]["evidence"]["oom_kill_after"]
    assert after[str(memory_cgroup)] == before[str(memory_cgroup)] + 1
    assert record["reason"]["limit"]["bytes"] <= 200_000_000
