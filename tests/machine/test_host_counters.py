"""Kernel counters, read from fake /proc and /sys trees."""

from __future__ import annotations

import os

import pytest
from fake_machine import WORKER, proc_stat, process_stat

from inference_benchmark.machine import cgroups, conditions
from inference_benchmark.machine.conditions import Sampler


def test_cpu_time_of_others_excludes_the_worker_and_this_process(machine):
    before = {
        "proc/stat": proc_stat((10, 1, 2, 50, 1, 1, 1, 3), (10, 1, 2, 50, 1, 1, 1, 3), (0,) * 8),
        f"proc/{WORKER}/stat": process_stat(5, 1, name="odd) R 1 (name"),
        "proc/self/stat": process_stat(1, 1),
    }
    after = {
        # CPU 0: 4 s user, 1 system. CPU 1: 1 nice, 1 irq, 1 softirq, 2 steal; idle and iowait are not busy.
        "proc/stat": proc_stat((14, 1, 3, 55, 9, 1, 1, 3), (10, 2, 2, 57, 1, 2, 2, 5), (99,) * 8),
        f"proc/{WORKER}/stat": process_stat(7, 2, name="odd) R 1 (name"),
        "proc/self/stat": process_stat(1.5, 1),
    }
    counters = machine.window_counters(before, after)
    assert counters == {"worker_cpu_s": 3.0, "steal_cpu_s": 2.0, "other_cpu_s": 4.5}
    # The processes that a worker starts are a part of it.
    before |= {f"proc/{WORKER}/task/{WORKER}/children": "4712 4713 ", "proc/4712/task/4712/children": "4714 "}
    before |= {f"proc/{pid}/stat": process_stat(1, 1) for pid in (4712, 4713, 4714)}
    after |= {"proc/4712/stat": process_stat(2, 1), "proc/4714/stat": process_stat(1, 1.5)}
    counters = machine.window_counters(before, after)
    assert counters == {"worker_cpu_s": 4.5, "steal_cpu_s": 2.0, "other_cpu_s": 3.0}


def test_cpu_time_of_others_is_never_below_zero(machine):
    before = {"proc/stat": proc_stat((0,) * 8), f"proc/{WORKER}/stat": process_stat(0, 0)}
    before |= {"proc/self/stat": process_stat(0, 0)}
    assert machine.window_counters(before, {f"proc/{WORKER}/stat": process_stat(2, 0)})["other_cpu_s"] == 0.0


def test_throttling_by_cgroup_v2_is_the_largest_increase_of_a_group(machine):
    group = "sys/fs/cgroup/jobs/ours"
    before = {
        "proc/self/cgroup": "0::/jobs/ours",
        f"{group}/cpu.stat": "usage_usec 9\nthrottled_usec 5000000",
        "sys/fs/cgroup/jobs/cpu.stat": "usage_usec 9\nthrottled_usec 1000000",
        "sys/fs/cgroup/jobs/other/cpu.stat": "throttled_usec 0",
        "sys/fs/cgroup/cpu.stat": "usage_usec 9",
    }
    after = {
        f"{group}/cpu.stat": "usage_usec 9\nthrottled_usec 5100000",
        "sys/fs/cgroup/jobs/cpu.stat": "usage_usec 9\nthrottled_usec 1250000",
        "sys/fs/cgroup/jobs/other/cpu.stat": "throttled_usec 9000000",
    }
    assert machine.window_counters(before, after) == {"cgroup_throttled_s": 0.25}


def test_throttling_by_cgroup_v1_is_counted_in_nanoseconds(machine):
    stat = "sys/fs/cgroup/cpu/jobs/cpu.stat"
    before = {
        "proc/self/cgroup": "5:memory:/elsewhere\n4:cpu,cpuacct:/jobs\n0::/",
        stat: "nr_periods 1\nnr_throttled 1\nthrottled_time 1000000000",
        "sys/fs/cgroup/cpu/elsewhere/cpu.stat": "throttled_time 0",
        "sys/fs/cgroup/unified/io.pressure": "some total=0",
    }
    after = {
        stat: "nr_periods 2\nnr_throttled 2\nthrottled_time 1500000000",
        "sys/fs/cgroup/cpu/elsewhere/cpu.stat": "throttled_time 9000000000",
        "sys/fs/cgroup/unified/io.pressure": "some total=2000000",
    }
    assert machine.window_counters(before, after) == {"cgroup_throttled_s": 0.5, "io_pressure_s": 2.0}


def test_in_a_container_the_root_is_its_own_cgroup(machine):
    before = {"proc/self/cgroup": "0::/docker/0123", "sys/fs/cgroup/cpu.stat": "throttled_usec 0"}
    assert machine.window_counters(before, {"sys/fs/cgroup/cpu.stat": "throttled_usec 2000000"}) == {
        "cgroup_throttled_s": 2.0
    }


def test_pressure_is_that_of_the_cgroup_else_of_the_machine(machine):
    def pressure(some_us: int) -> str:
        full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=77"
        return f"some avg10=0.00 avg60=0.00 avg300=0.00 total={some_us}\n{full}"

    before = {
        "proc/self/cgroup": "0::/jobs",
        "sys/fs/cgroup/jobs/memory.pressure": pressure(1_000_000),
        "sys/fs/cgroup/memory.pressure": pressure(0),
        "proc/pressure/memory": pressure(0),
        "proc/pressure/cpu": pressure(0),
    }
    after = {
        "sys/fs/cgroup/jobs/memory.pressure": pressure(1_500_000),
        "sys/fs/cgroup/memory.pressure": pressure(9_000_000),
        "proc/pressure/memory": pressure(9_000_000),
        "proc/pressure/cpu": pressure(3_000_000),
    }
    assert machine.window_counters(before, after) == {"memory_pressure_s": 0.5, "cpu_pressure_s": 3.0}


def test_thermal_events_are_those_of_the_usable_cpus(machine):
    folder = "sys/devices/system/cpu/cpu{}/thermal_throttle/{}_throttle_count".format
    before = {folder(cpu, part): 10 for cpu in (0, 1, 2) for part in ("core", "package")}
    after = {folder(0, "core"): 13, folder(1, "package"): 11, folder(2, "core"): 99}
    assert machine.window_counters(before, after) == {"cpu_thermal_throttle_events": 4}


def test_the_cpu_frequency_is_the_mean_over_the_usable_cpus(machine):
    cpuinfo = "\n\n".join(f"processor\t: {i}\nvendor_id\t: x\ncpu MHz\t\t: {1000 * (i + 1)}.5" for i in range(3))
    assert machine.frequency_hz({}) is None
    assert machine.frequency_hz({"proc/cpuinfo": cpuinfo}) == pytest.approx(1500.5e6)
    files = {f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_cur_freq": 10**6 * (i + 1) for i in range(3)}
    assert machine.frequency_hz(files) == 1.5e9


def test_the_frequency_is_read_from_a_sample_of_many_cpus(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    cpus = []
    monkeypatch.setattr(cgroups, "read", lambda path, *_: cpus.append(path.parts[-3]) or "2000000")
    assert machine.frequency_hz({}) == 2e9
    assert cpus == [f"cpu{i}" for i in range(0, 64, 4)]


def test_without_kernel_counters_everything_is_left_out(machine):
    sampler = Sampler((), WORKER, machine.roots)
    sampler.open()
    sampler.close()
    summary = sampler.summary()
    assert (summary["gauges"], summary["counters"], summary["errors"]) == ({}, {}, [])
    assert (summary["n_samples"], summary["usable_cpus"]) == (2, 2)
    assert conditions.flags(summary, "cpu") == []


@pytest.mark.parametrize("text", ["", "?", "1", "some", "1 (x) R", "cpu0 1 2", "some total=?", "throttled_usec -"])
def test_malformed_kernel_files_are_left_out(machine, text):
    files = ["stat", "cpuinfo", "self/stat", f"{WORKER}/stat", "pressure/cpu"]
    paths = [f"proc/{name}" for name in files] + ["sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu.pressure"]
    paths += ["sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"] if text != "1" else []
    assert machine.window_counters({"proc/self/cgroup": "0::/", **dict.fromkeys(paths, text)}, {}) == {}
