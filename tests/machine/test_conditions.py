"""Condition of the device and the machine during timed calls."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest
from fake_machine import GPU, WORKER

from inference_benchmark.machine import conditions
from inference_benchmark.machine.conditions import Sampler

QUIET = {
    "n_samples": 20,
    "seconds": 10.0,
    "usable_cpus": 2,
    "gauges": {},
    "counters": {"other_cpu_s": 1.0, "steal_cpu_s": 0.2, "cgroup_throttled_s": 0.01, "memory_pressure_s": 0.1},
    "gpu_throttle_reasons": {},
    "other_gpu_processes": [],
    "errors": [],
}

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def gpu_window(worker_pid: int = WORKER, during=lambda: None) -> dict:
    """The summary of a window of three samples on the fake GPU."""
    with Sampler([GPU], worker_pid) as sampler:
        sampler.open()
        during()
        sampler.sample()
        sampler.close()
        return sampler.summary()


def names(flags: list[dict[str, str]]) -> list[str]:
    return [flag["name"] for flag in flags]


@on_linux
def test_cpu_time_of_the_worker_and_of_others_is_separate(children):
    worker, _ = children
    sampler = Sampler((), worker.process.pid)
    sampler.open()
    for child in children:
        child.begin(0.4)
    sampler.sample()
    for child in children:
        child.finish()
    sampler.close()
    summary = sampler.summary()
    assert summary == json.loads(json.dumps(summary))
    assert (summary["n_samples"], summary["errors"]) == (3, [])
    assert 0.3 < summary["counters"]["worker_cpu_s"] < min(0.5, summary["seconds"] + 0.1)
    assert summary["counters"]["other_cpu_s"] > 0.1
    assert not {"gpu_throttle_reasons", "other_gpu_processes"} & set(summary)


@on_linux
def test_a_worker_that_waits_uses_no_cpu_time(children):
    worker, other = children
    sampler = Sampler((), worker.process.pid)
    sampler.open()
    other.begin(0.4)
    other.finish()
    sampler.close()
    counters = sampler.summary()["counters"]
    assert counters["worker_cpu_s"] < 0.1
    assert counters["other_cpu_s"] > 0.1


@on_linux
def test_a_worker_that_has_ended_keeps_its_last_cpu_time(children):
    worker, _ = children
    sampler = Sampler((), worker.process.pid)
    sampler.open()
    worker.begin(0.2)
    worker.finish()
    sampler.sample()
    worker.process.kill()
    worker.process.wait()
    sampler.sample()
    sampler.close()
    assert 0.1 < sampler.summary()["counters"]["worker_cpu_s"] < 0.4


@on_linux
def test_a_worker_that_has_ended_before_has_no_cpu_time(children):
    worker, _ = children
    worker.process.kill()
    worker.process.wait()
    sampler = Sampler((), worker.process.pid)
    sampler.open()
    sampler.close()
    assert not {"worker_cpu_s", "other_cpu_s"} & set(sampler.summary()["counters"])


@on_linux
def test_a_sample_is_cheap():
    sampler = Sampler((), os.getpid())
    sampler.open()
    spent_s = []
    for _ in range(50):
        began_s = time.thread_time()
        sampler.sample()
        spent_s.append(time.thread_time() - began_s)
    assert min(spent_s) < 0.002


def test_only_samples_between_open_and_close_count():
    sampler = Sampler((), os.getpid())
    sampler.sample()
    sampler.close()
    assert (sampler.summary()["n_samples"], sampler.summary()["seconds"]) == (0, 0.0)
    assert sampler.summary()["counters"] == {}
    sampler.open()
    sampler.sample()
    sampler.close()
    sampler.sample()
    sampler.close()
    assert sampler.summary()["n_samples"] == 3
    sampler.open()
    sampler.close()
    assert sampler.summary()["n_samples"] == 2


def test_gpu_gauges_are_in_base_units(nvml):
    state = {"power_w": 650.5, "sm_clock_hz": 1.5e9, "memory_clock_hz": 3.2e9, "temperature_c": 71}
    nvml.show({**state, "utilisation": 98, "memory_used_bytes": 123})
    summary = gpu_window(during=lambda: nvml.show({**state, "temperature_c": 80, "power_w": 100}))
    gauges = {name: gauge for name, gauge in summary["gauges"].items() if name.startswith("gpu_")}
    assert gauges == {
        "gpu_sm_clock_hz": {"min": 1.5e9, "median": 1.5e9, "max": 1.5e9},
        "gpu_memory_clock_hz": {"min": 3.2e9, "median": 3.2e9, "max": 3.2e9},
        "gpu_temperature_c": {"min": 71, "median": 80, "max": 80},
        "gpu_power_w": {"min": 100.0, "median": 100.0, "max": 650.5},
        "gpu_utilisation_percent": {"min": 0, "median": 0, "max": 98},
        "gpu_memory_used_bytes": {"min": 0, "median": 0, "max": 123},
    }
    assert summary["errors"] == []
    assert summary == json.loads(json.dumps(summary))
    assert nvml.module._n_inits == 0


@pytest.mark.parametrize("old_driver", [False, True])
def test_throttle_reasons_are_counted_in_samples_without_idling(nvml, old_driver):
    nvml.show(
        {"throttle": ["gpu_idle", "sync_boost", "applications_clocks_setting", "sw_power_cap"]}, old_driver=old_driver
    )
    all_reasons = [
        "sw_power_cap",
        "hw_slowdown",
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
    ]
    summary = gpu_window(during=lambda: nvml.show({"throttle": all_reasons}, old_driver=old_driver))
    assert summary["gpu_throttle_reasons"] == {**dict.fromkeys(all_reasons, 2), "sw_power_cap": 3}


def test_an_undisturbed_gpu_has_empty_lists(nvml):
    nvml.show({"processes": [[WORKER, 10]]})
    summary = gpu_window()
    assert (summary["gpu_throttle_reasons"], summary["other_gpu_processes"]) == ({}, [])
    assert names(conditions.flags({**summary, "counters": {}}, "cuda")) == []


@pytest.mark.parametrize(
    ("first", "then", "others"),
    [
        ([], [], []),
        ([[WORKER, 10]], [[WORKER, 10], [8, 5]], [(8, 5)]),
        ([[9, None], [WORKER, 10]], [[WORKER, 10]], [(9, None)]),
        # Pids of the host, where the worker has another pid.
        ([[70001, 10]], [[70001, 12]], []),
        ([[70001, 10], [70002, 20]], [[70002, 30], [70003, 40]], [(70002, 30), (70003, 40)]),
    ],
)
def test_other_processes_on_the_gpu_exclude_the_worker(nvml, first, then, others):
    nvml.show({"processes": first})
    summary = gpu_window(during=lambda: nvml.show({"processes": then}))
    assert [(other["pid"], other["memory_bytes"]) for other in summary["other_gpu_processes"]] == others
    assert ("gpu-shared" in names(conditions.flags(summary, "cuda"))) == bool(others)


@pytest.mark.parametrize(
    ("unsupported", "missing"),
    [
        ("sm_clock", "gpu_sm_clock_hz"),
        ("memory_clock", "gpu_memory_clock_hz"),
        ("temperature", "gpu_temperature_c"),
        ("power", "gpu_power_w"),
        ("utilisation", "gpu_utilisation_percent"),
        ("memory", "gpu_memory_used_bytes"),
        ("throttle", "gpu_throttle_reasons"),
        ("processes", "other_gpu_processes"),
    ],
)
def test_only_the_unsupported_value_is_left_out(nvml, unsupported, missing):
    all_names = {*gpu_window(), *gpu_window()["gauges"]}
    nvml.show(unsupported=[unsupported])
    summary = gpu_window()
    assert all_names - {*summary, *summary["gauges"]} == {missing}
    assert summary["errors"] == []


def test_a_query_that_is_forbidden_switches_off_its_value_only(nvml):
    allowed = gpu_window()
    nvml.show(forbidden=["power", "processes"])
    summary = gpu_window()
    assert summary["errors"] == []
    assert allowed["gauges"].keys() - summary["gauges"].keys() == {"gpu_power_w"}
    assert "other_gpu_processes" not in summary
    assert conditions.busy(GPU) is None


def test_after_an_nvml_error_only_the_cpu_is_sampled(nvml):
    nvml.show(fail_after=2 * 7 + 3)  # a sample makes seven counted queries; memory is not counted
    with Sampler([GPU], os.getpid()) as sampler:
        sampler.open()
        for _ in range(5):
            sampler.sample()
        sampler.close()
        summary = sampler.summary()
        assert summary["errors"] == ["NVML: Unknown Error after 2 samples"]
        assert summary["n_samples"] == 7
        assert "gpu_power_w" in summary["gauges"]
        assert nvml.module._n_queries == 2 * 7 + 4
        assert nvml.module._n_inits == 0
        sampler.open()
        sampler.close()
        next_summary = sampler.summary()
    assert next_summary["errors"] == ["NVML: Unknown Error after 2 samples"]
    assert not any(name.startswith("gpu_") for name in [*next_summary, *next_summary["gauges"]])
    assert names(conditions.flags({**summary, "counters": {}}, "cuda")) == ["conditions-unknown"]


@pytest.mark.parametrize(
    ("settings", "error"), [({"init_fails": True}, "Driver Not Loaded"), ({"gpus": [{"uuid": "GPU-b"}]}, "Not Found")]
)
def test_a_gpu_that_cannot_be_opened_is_reported_not_raised(nvml, settings, error):
    nvml.show(**settings)
    summary = gpu_window()
    assert summary["errors"] == [f"NVML: {error} at start"]
    assert summary["n_samples"] == 3
    assert nvml.module._n_inits == 0


def test_on_the_cpu_nvml_is_not_used(nvml):
    nvml.show(init_fails=True)
    with Sampler((), WORKER) as sampler:
        sampler.open()
        sampler.close()
        assert sampler.summary()["errors"] == []


@pytest.mark.parametrize(
    ("state", "settings", "message"),
    [
        ({}, {}, None),
        ({"utilisation": 5}, {}, None),
        ({"utilisation": 6}, {}, "utilisation 6 %"),
        ({"processes": [[1, 10**9], [2, 2_100_000_000]], "utilisation": 97}, {}, "2 processes hold 3.1 GB, utilisation 97 %"),
        ({"processes": [[1, 10**9]]}, {}, "1 process holds 1 GB, utilisation 0 %"),
        ({"processes": [[1, None]]}, {"unsupported": ["utilisation"]}, "1 process holds an unknown amount"),
        ({"utilisation": 97}, {"unsupported": ["processes"]}, "utilisation 97 %"),
        ({"utilisation": 97}, {"fail_after": 0}, None),
        ({"utilisation": 97}, {"init_fails": True}, None),
    ],
)  # fmt: skip
def test_busy_describes_who_uses_a_gpu(nvml, state, settings, message):
    nvml.show(state, **settings)
    assert conditions.busy(GPU) == message


def test_utilisation_left_over_from_the_last_cell_is_not_busy(nvml, monkeypatch):
    nvml.show({"utilisation": 90})
    waited_s = []

    def wait(seconds: float) -> None:
        waited_s.append(seconds)
        nvml.show({"utilisation": 0})

    monkeypatch.setattr(conditions.time, "sleep", wait)
    assert conditions.busy(GPU) is None
    assert waited_s == [conditions._UTILISATION_WINDOW_S]
    assert nvml.module._n_inits == 0


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_quiet_machine_and_missing_facts_raise_no_flag(device):
    assert conditions.flags(QUIET, device) == []
    assert conditions.flags({}, device) == []
    assert conditions.flags({"counters": {"other_cpu_s": 5.0}}, device) == []


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({"gpu_throttle_reasons": {"sw_thermal_slowdown": 3}}, "gpu-throttled-thermal", "sw_thermal_slowdown in 3 of 20 samples"),
        ({"gpu_throttle_reasons": {"hw_thermal_slowdown": 2, "hw_slowdown": 2}}, "gpu-throttled-thermal", "hw_thermal_slowdown in 2 of 20 samples"),
        ({"gpu_throttle_reasons": {"sw_power_cap": 19}}, "gpu-throttled-power", "sw_power_cap in 19 of 20 samples"),
        ({"gpu_throttle_reasons": {"hw_power_brake_slowdown": 1}}, "gpu-throttled-power", "hw_power_brake_slowdown in 1 of 20 samples"),
        ({"gpu_throttle_reasons": {"hw_slowdown": 4}}, "gpu-throttled-power", "hw_slowdown in 4 of 20 samples"),
        ({"other_gpu_processes": [{"pid": 8, "memory_bytes": 10**9}]}, "gpu-shared", "besides the worker 1 process holds 1 GB of the GPU's memory"),
        ({"counters": {"other_cpu_s": 1.1}}, "cpu-contended", "other processes used the CPUs for 1.1 s of 20 s of 2 CPUs (5.5%)"),
        ({"counters": {"steal_cpu_s": 0.5}}, "cpu-stolen", "the hypervisor withheld the CPUs for 0.5 s of 20 s of 2 CPUs (2.5%)"),
        ({"counters": {"cgroup_throttled_s": 0.03}}, "cpu-throttled", "a cgroup's CPU quota held threads back for 0.03 s of 20 s of 2 CPUs (0.1%)"),
        ({"counters": {"cpu_thermal_throttle_events": 7}}, "cpu-thermal", "the CPUs were slowed for heat 7 times"),
        ({"counters": {"memory_pressure_s": 0.2}}, "memory-pressure", "threads waited for memory for 0.2 s of 10 s (2.0%)"),
        ({"errors": ["NVML: Unknown Error after 3 samples"]}, "conditions-unknown", "NVML: Unknown Error after 3 samples"),
    ],
)  # fmt: skip
def test_each_disturbance_raises_its_own_flag(changes, name, message):
    assert conditions.flags({**QUIET, **changes}, "cuda") == [{"name": name, "message": message}]
    on_cpu = [] if name.startswith("gpu-") else [name]
    assert names(conditions.flags({**QUIET, **changes}, "cpu")) == on_cpu


def test_a_few_ticks_in_a_short_window_are_no_contention():
    counters = {"other_cpu_s": 0.03, "steal_cpu_s": 0.03}
    assert conditions.flags({**QUIET, "seconds": 0.1, "counters": counters}, "cpu") == []
