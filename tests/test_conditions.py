"""What is noted of the machine while a cell is timed, and the energy counters."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import REPO
from inference_benchmark.machine import conditions, energy, host_counters
from inference_benchmark.machine.conditions import Roots, Sampler
from inference_benchmark.machine.energy import EnergyError
from inference_benchmark.machine.hardware import Gpu

FAKE = REPO / "tests/fake_nvml/pynvml.py"
GPU = Gpu(0, "GPU-a", "NVIDIA Fake A", 80 * 2**30)
WORKER = 4711
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
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


def load_fake():
    spec = importlib.util.spec_from_file_location("pynvml", FAKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nvml(monkeypatch):
    """The fake pynvml; show(...) sets what its one GPU shows and what fails."""
    module = load_fake()
    monkeypatch.setitem(sys.modules, "pynvml", module)

    def show(gpu: dict | None = None, **settings) -> None:
        monkeypatch.setenv("FAKE_NVML", json.dumps({"gpus": [{"uuid": GPU.uuid, **(gpu or {})}], **settings}))

    show()
    return SimpleNamespace(module=module, show=show)


class Child:
    """A process that does nothing until it is told to spend CPU time."""

    CODE = """
import sys, time
for line in sys.stdin:
    end_s = time.process_time() + float(line)
    while time.process_time() < end_s:
        pass
    print(flush=True)
"""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.begin(0.0)
        self.finish()

    def begin(self, cpu_s: float) -> None:
        self.process.stdin.write(f"{cpu_s}\n")

    def finish(self) -> None:
        """Returns when it is spent, however busy this machine is."""
        self.process.stdout.readline()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def children():
    """Two of them."""
    started = [Child(), Child()]
    yield started
    for child in started:
        child.end()


class FakeMachine:
    """Trees for /proc and /sys; this process may use CPUs 0 and 1 of 3."""

    def __init__(self, folder: Path) -> None:
        self.roots = Roots(folder / "proc", folder / "sys")
        self.roots.proc.mkdir()
        self.roots.sys.mkdir()

    def tell(self, files: dict[str, object]) -> None:
        for name, text in files.items():
            path = self.roots.proc.parent / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    def grown(self, before: dict[str, object], after: dict[str, object]) -> dict[str, float]:
        """The counters of a window that these files changed in."""
        self.tell(before)
        sampler = Sampler(None, WORKER, self.roots)
        sampler.open()
        self.tell(after)
        sampler.close()
        return sampler.summary()["counters"]

    def frequency_hz(self, files: dict[str, object]) -> float | None:
        self.tell(files)
        return conditions.cpu_frequency_hz(self.roots, sorted(os.sched_getaffinity(0)))


@pytest.fixture
def box(tmp_path, monkeypatch) -> FakeMachine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    return FakeMachine(tmp_path)


def process_stat(user_s: float, system_s: float, name: str = "python") -> str:
    return f"1 ({name}) R 1 1 1 0 -1 4194304 10 20 30 40 {user_s * TICKS_PER_S:.0f} {system_s * TICKS_PER_S:.0f} 7 8 20"


def proc_stat(*cpus_s: tuple[float, ...]) -> str:
    """Rows of user, nice, system, idle, iowait, irq, softirq, steal; the kernel adds two for guests."""
    rows = [" ".join(f"{s * TICKS_PER_S:.0f}" for s in (*cpu_s, 0, 0)) for cpu_s in cpus_s]
    return "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *(f"cpu{i} {row}" for i, row in enumerate(rows)), "intr 1 2 3"])


def gpu_window(worker_pid: int = WORKER, during=lambda: None) -> dict:
    """The summary of a window of three samples on the fake GPU."""
    with Sampler(GPU, worker_pid) as sampler:
        sampler.open()
        during()
        sampler.sample()
        sampler.close()
        return sampler.summary()


def names(found: list[dict[str, str]]) -> list[str]:
    return [flag["name"] for flag in found]


# --- this machine ---


@on_linux
def test_the_worker_and_others_are_told_apart(children):
    worker, _ = children
    sampler = Sampler(None, worker.process.pid)
    sampler.open()
    for child in children:
        child.begin(0.4)
    sampler.sample()
    for child in children:
        child.finish()
    sampler.close()
    found = sampler.summary()
    assert found == json.loads(json.dumps(found))
    assert (found["n_samples"], found["errors"]) == (3, [])
    assert 0.3 < found["counters"]["worker_cpu_s"] < min(0.5, found["seconds"] + 0.1)
    assert found["counters"]["other_cpu_s"] > 0.1
    assert not {"gpu_throttle_reasons", "other_gpu_processes"} & set(found)


@on_linux
def test_a_worker_that_waits_uses_no_cpu_time(children):
    worker, other = children
    sampler = Sampler(None, worker.process.pid)
    sampler.open()
    other.begin(0.4)
    other.finish()
    sampler.close()
    counters = sampler.summary()["counters"]
    assert counters["worker_cpu_s"] < 0.1
    assert counters["other_cpu_s"] > 0.1


@on_linux
def test_of_a_worker_that_is_gone_the_last_known_time_stands(children):
    worker, _ = children
    sampler = Sampler(None, worker.process.pid)
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
def test_of_a_worker_that_never_was_nothing_is_told(children):
    gone, _ = children
    gone.process.kill()
    gone.process.wait()
    sampler = Sampler(None, gone.process.pid)
    sampler.open()
    sampler.close()
    assert not {"worker_cpu_s", "other_cpu_s"} & set(sampler.summary()["counters"])


@on_linux
def test_a_sample_is_cheap():
    sampler = Sampler(None, os.getpid())
    sampler.open()
    spent_s = []
    for _ in range(50):
        began_s = time.perf_counter()
        sampler.sample()
        spent_s.append(time.perf_counter() - began_s)
    assert min(spent_s) < 0.002


def test_only_what_lies_between_open_and_close_counts():
    sampler = Sampler(None, os.getpid())
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


# --- machines made of files ---


def test_cpu_time_of_others_is_that_of_our_cpus_less_ours(box):
    before = {
        "proc/stat": proc_stat((10, 1, 2, 50, 1, 1, 1, 3), (10, 1, 2, 50, 1, 1, 1, 3), (0,) * 8),
        f"proc/{WORKER}/stat": process_stat(5, 1, name="odd) R 1 (name"),
        "proc/self/stat": process_stat(1, 1),
    }
    after = {
        # CPU 0: 4 s user, 1 system. CPU 1: 1 nice, 1 irq, 1 softirq, 2 steal; idle and waiting are not busy.
        "proc/stat": proc_stat((14, 1, 3, 55, 9, 1, 1, 3), (10, 2, 2, 57, 1, 2, 2, 5), (99,) * 8),
        f"proc/{WORKER}/stat": process_stat(7, 2, name="odd) R 1 (name"),
        "proc/self/stat": process_stat(1.5, 1),
    }
    found = box.grown(before, after)
    assert found == {"worker_cpu_s": 3.0, "steal_cpu_s": 2.0, "other_cpu_s": 4.5}


def test_cpu_time_of_others_is_never_below_zero(box):
    before = {"proc/stat": proc_stat((0,) * 8), f"proc/{WORKER}/stat": process_stat(0, 0)}
    before |= {"proc/self/stat": process_stat(0, 0)}
    assert box.grown(before, {f"proc/{WORKER}/stat": process_stat(2, 0)})["other_cpu_s"] == 0.0


def test_throttling_by_cgroup_v2_is_that_of_the_group_that_grew_most(box):
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
    assert box.grown(before, after) == {"cgroup_throttled_s": 0.25}


def test_throttling_by_cgroup_v1_is_counted_in_nanoseconds(box):
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
    assert box.grown(before, after) == {"cgroup_throttled_s": 0.5, "io_pressure_s": 2.0}


def test_in_a_container_the_root_seen_is_our_own_cgroup(box):
    before = {"proc/self/cgroup": "0::/docker/0123", "sys/fs/cgroup/cpu.stat": "throttled_usec 0"}
    assert box.grown(before, {"sys/fs/cgroup/cpu.stat": "throttled_usec 2000000"}) == {"cgroup_throttled_s": 2.0}


def test_pressure_is_that_of_the_cgroup_else_of_the_machine(box):
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
    assert box.grown(before, after) == {"memory_pressure_s": 0.5, "cpu_pressure_s": 3.0}


def test_thermal_events_are_those_of_our_cpus(box):
    folder = "sys/devices/system/cpu/cpu{}/thermal_throttle/{}_throttle_count".format
    before = {folder(cpu, part): 10 for cpu in (0, 1, 2) for part in ("core", "package")}
    after = {folder(0, "core"): 13, folder(1, "package"): 11, folder(2, "core"): 99}
    assert box.grown(before, after) == {"cpu_thermal_throttle_events": 4}


def test_the_cpu_frequency_is_the_mean_over_our_cpus(box):
    cpuinfo = "\n\n".join(f"processor\t: {i}\nvendor_id\t: x\ncpu MHz\t\t: {1000 * (i + 1)}.5" for i in range(3))
    assert box.frequency_hz({}) is None
    assert box.frequency_hz({"proc/cpuinfo": cpuinfo}) == pytest.approx(1500.5e6)
    files = {f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_cur_freq": 10**6 * (i + 1) for i in range(3)}
    assert box.frequency_hz(files) == 1.5e9


def test_of_many_cpus_only_some_are_asked_for_their_frequency(box, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    read = []
    monkeypatch.setattr(host_counters, "_read", lambda path, *_: read.append(path.parts[-3]) or "2000000")
    assert box.frequency_hz({}) == 2e9
    assert read == [f"cpu{i}" for i in range(0, 64, 4)]


def test_where_the_kernel_tells_nothing_everything_is_left_out(box):
    sampler = Sampler(None, WORKER, box.roots)
    sampler.open()
    sampler.close()
    found = sampler.summary()
    assert (found["gauges"], found["counters"], found["errors"]) == ({}, {}, [])
    assert (found["n_samples"], found["usable_cpus"]) == (2, 2)
    assert conditions.flags(found, "cpu") == []


@pytest.mark.parametrize("text", ["", "?", "1", "some", "1 (x) R", "cpu0 1 2", "some total=?", "throttled_usec -"])
def test_files_that_make_no_sense_are_left_out(box, text):
    files = ["stat", "cpuinfo", "self/stat", f"{WORKER}/stat", "pressure/cpu"]
    paths = [f"proc/{name}" for name in files] + ["sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu.pressure"]
    paths += ["sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"] if text != "1" else []
    assert box.grown({"proc/self/cgroup": "0::/", **dict.fromkeys(paths, text)}, {}) == {}


# --- the GPU, faked ---


def test_gpu_gauges_are_in_base_units(nvml):
    shown = {"power_w": 650.5, "sm_clock_hz": 1.5e9, "memory_clock_hz": 3.2e9, "temperature_c": 71}
    nvml.show({**shown, "utilisation": 98, "memory_used_bytes": 123})
    found = gpu_window(during=lambda: nvml.show({**shown, "temperature_c": 80, "power_w": 100}))
    gauges = {name: gauge for name, gauge in found["gauges"].items() if name.startswith("gpu_")}
    assert gauges == {
        "gpu_sm_clock_hz": {"min": 1.5e9, "median": 1.5e9, "max": 1.5e9},
        "gpu_memory_clock_hz": {"min": 3.2e9, "median": 3.2e9, "max": 3.2e9},
        "gpu_temperature_c": {"min": 71, "median": 80, "max": 80},
        "gpu_power_w": {"min": 100.0, "median": 100.0, "max": 650.5},
        "gpu_utilisation_percent": {"min": 0, "median": 0, "max": 98},
        "gpu_memory_used_bytes": {"min": 0, "median": 0, "max": 123},
    }
    assert found["errors"] == []
    assert found == json.loads(json.dumps(found))
    assert nvml.module._n_inits == 0


@pytest.mark.parametrize("old_driver", [False, True])
def test_throttle_reasons_are_counted_in_samples_and_idling_is_none(nvml, old_driver):
    nvml.show(
        {"throttle": ["gpu_idle", "sync_boost", "applications_clocks_setting", "sw_power_cap"]}, old_driver=old_driver
    )
    all_of_them = [
        "sw_power_cap",
        "hw_slowdown",
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
    ]
    found = gpu_window(during=lambda: nvml.show({"throttle": all_of_them}, old_driver=old_driver))
    assert found["gpu_throttle_reasons"] == {**dict.fromkeys(all_of_them, 2), "sw_power_cap": 3}


def test_an_undisturbed_gpu_has_empty_lists(nvml):
    nvml.show({"processes": [[WORKER, 10]]})
    found = gpu_window()
    assert (found["gpu_throttle_reasons"], found["other_gpu_processes"]) == ({}, [])
    assert names(conditions.flags({**found, "counters": {}}, "cuda")) == []


@pytest.mark.parametrize(
    ("first", "then", "others"),
    [
        ([], [], []),
        ([[WORKER, 10]], [[WORKER, 10], [8, 5]], [(8, 5)]),
        ([[9, None], [WORKER, 10]], [[WORKER, 10]], [(9, None)]),
        # Pids of the host, the worker among them under one that is not known here.
        ([[70001, 10]], [[70001, 12]], []),
        ([[70001, 10], [70002, 20]], [[70002, 30], [70003, 40]], [(70002, 30), (70003, 40)]),
    ],
)
def test_other_processes_on_the_gpu_are_those_beyond_the_worker(nvml, first, then, others):
    nvml.show({"processes": first})
    found = gpu_window(during=lambda: nvml.show({"processes": then}))
    assert [(other["pid"], other["memory_bytes"]) for other in found["other_gpu_processes"]] == others
    assert ("gpu-shared" in names(conditions.flags(found, "cuda"))) == bool(others)


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
def test_what_a_gpu_cannot_tell_is_left_out_alone(nvml, unsupported, missing):
    facts = {*gpu_window(), *gpu_window()["gauges"]}
    nvml.show(unsupported=[unsupported])
    found = gpu_window()
    assert facts - {*found, *found["gauges"]} == {missing}
    assert found["errors"] == []


def test_after_an_nvml_error_only_the_cpu_is_sampled(nvml):
    nvml.show(fail_after=2 * 7 + 3)  # a sample asks seven times, memory apart
    with Sampler(GPU, os.getpid()) as sampler:
        sampler.open()
        for _ in range(5):
            sampler.sample()
        sampler.close()
        found = sampler.summary()
        assert found["errors"] == ["NVML: Unknown Error after 2 samples"]
        assert found["n_samples"] == 7
        assert "gpu_power_w" in found["gauges"]
        assert nvml.module._n_queries == 2 * 7 + 4
        assert nvml.module._n_inits == 0
        sampler.open()
        sampler.close()
        again = sampler.summary()
    assert again["errors"] == ["NVML: Unknown Error after 2 samples"]
    assert not any(name.startswith("gpu_") for name in [*again, *again["gauges"]])
    assert names(conditions.flags({**found, "counters": {}}, "cuda")) == ["conditions-unknown"]


@pytest.mark.parametrize(
    ("settings", "error"), [({"init_fails": True}, "Driver Not Loaded"), ({"gpus": [{"uuid": "GPU-b"}]}, "Not Found")]
)
def test_a_gpu_that_cannot_be_opened_is_an_error_told_not_raised(nvml, settings, error):
    nvml.show(**settings)
    found = gpu_window()
    assert found["errors"] == [f"NVML: {error} at start"]
    assert found["n_samples"] == 3
    assert nvml.module._n_inits == 0


def test_on_the_cpu_nvml_is_not_asked(nvml):
    nvml.show(init_fails=True)
    with Sampler(None, WORKER) as sampler:
        sampler.open()
        sampler.close()
        assert sampler.summary()["errors"] == []


@pytest.mark.parametrize(
    ("shown", "settings", "words"),
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
def test_who_uses_a_gpu_is_said_in_words(nvml, shown, settings, words):
    nvml.show(shown, **settings)
    assert conditions.busy(GPU) == words


def test_the_utilisation_that_the_last_cell_left_behind_is_nobody(nvml, monkeypatch):
    nvml.show({"utilisation": 90})
    waited_s = []

    def wait(seconds: float) -> None:
        waited_s.append(seconds)
        nvml.show({"utilisation": 0})

    monkeypatch.setattr(conditions.time, "sleep", wait)
    assert conditions.busy(GPU) is None
    assert waited_s == [conditions._UTILISATION_S]
    assert nvml.module._n_inits == 0


# --- flags ---


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
        ({"counters": {"cgroup_throttled_s": 0.02}}, "cpu-throttled", "a cgroup's CPU quota held threads back for 0.02 s of 10 s (0.2%)"),
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


# --- energy ---


def packages(folder: Path, readings_uj: dict[str, int]) -> Path:
    """A powercap tree; zone 9 is the whole platform."""
    for zone, energy_uj in readings_uj.items():
        _, number, *part = zone.split(":")
        files = {
            "name": "core" if part else {"9": "psys"}.get(number, f"package-{number}"),
            "energy_uj": energy_uj,
            "max_energy_range_uj": 262_143_328_850,
        }
        (folder / zone).mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / zone / name).write_text(f"{text}\n")
    return folder


def test_the_energy_of_a_gpu_is_what_its_counter_grew_by(nvml):
    nvml.show({"power_w": 300})
    counter = energy.open_counter(GPU)
    assert (counter.source, counter.scope) == ("nvml", "GPU board")
    assert counter.read_j() == 0.0
    outside_s = time.monotonic()
    began_j = counter.read_j()
    inside_s = time.monotonic()
    time.sleep(0.1)
    inside_s = time.monotonic() - inside_s
    joules = counter.read_j() - began_j
    outside_s = time.monotonic() - outside_s
    assert 300 * (inside_s - 0.021) <= joules <= 300 * (outside_s + 0.021)


def test_settling_ends_just_after_a_change_and_tells_the_interval(nvml):
    counter = energy.open_counter(GPU)
    interval_s = counter.settle(max_s=2.0)
    assert 0.002 < interval_s < 1.0  # 0.02 on a machine that is not busy
    assert sum(counter.settle(max_s=2.0) < 0.04 for _ in range(5)) >= 1


def test_a_counter_that_does_not_change_settles_at_the_longest_wait(tmp_path):
    counter = energy.open_counter(None, packages(tmp_path, {"intel-rapl:0": 5}))
    assert counter.settle(max_s=0.02) == 0.02


def test_the_energy_of_a_cpu_is_the_sum_of_its_packages(tmp_path):
    parts = ("intel-rapl:0:0", "intel-rapl:9", "intel-rapl-mmio:0")
    before = {"intel-rapl:0": 1_000_000, "intel-rapl:1": 5_000_000, **dict.fromkeys(parts, 0)}
    counter = energy.open_counter(None, packages(tmp_path, before))
    assert (counter.source, counter.scope) == ("rapl", "CPU packages, everything that ran on them")
    assert counter.read_j() == 0.0
    packages(tmp_path, {"intel-rapl:0": 3_000_000, "intel-rapl:1": 5_500_000, **dict.fromkeys(parts, 90_000_000)})
    assert counter.read_j() == pytest.approx(2.5)


def test_a_counter_that_starts_again_from_zero_counts_on(tmp_path):
    counter = energy.open_counter(None, packages(tmp_path, {"intel-rapl:0": 262_143_000_000}))
    counter.read_j()
    for energy_uj, total_j in ((671_150, 1.0), (1_671_150, 2.0)):
        packages(tmp_path, {"intel-rapl:0": energy_uj})
        assert counter.read_j() == pytest.approx(total_j)


def test_a_counter_that_may_have_wrapped_twice_is_not_believed(tmp_path, monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(energy, "time", SimpleNamespace(monotonic=lambda: now_s))
    counter = energy.open_counter(None, packages(tmp_path, {"intel-rapl:0": 0}))
    now_s = 1e6  # however long ago it was opened, the first reading is the start
    counter.read_j()
    now_s += 500
    assert counter.read_j() == 0.0
    now_s += 530
    with pytest.raises(EnergyError, match="wrapped twice in 530 s"):
        counter.read_j()


def test_a_gpu_counter_that_goes_back_is_not_believed(nvml):
    nvml.show({"power_w": 300})
    counter = energy.open_counter(GPU)
    counter.read_j()
    nvml.show({"power_w": 30})
    with pytest.raises(EnergyError, match="went back"):
        counter.read_j()


def test_a_reading_that_fails_later_is_an_energy_error(nvml, tmp_path):
    nvml.show(fail_after=1)
    with pytest.raises(EnergyError, match="Unknown Error"):
        energy.open_counter(GPU).read_j()
    counter = energy.open_counter(None, packages(tmp_path, {"intel-rapl:0": 5}))
    (tmp_path / "intel-rapl:0/energy_uj").unlink()
    with pytest.raises(EnergyError, match="rapl"):
        counter.read_j()


@pytest.mark.parametrize(
    "settings", [{"unsupported": ["energy"]}, {"init_fails": True}, {"gpus": []}, {"fail_after": 0}]
)
def test_a_gpu_without_a_counter_has_none(nvml, settings):
    nvml.show(**settings)
    assert energy.open_counter(GPU) is None


def test_a_cpu_without_a_readable_counter_has_none(tmp_path):
    assert energy.open_counter(None, tmp_path / "missing") is None
    assert energy.open_counter(None, packages(tmp_path, {"intel-rapl:9": 5, "intel-rapl:0:0": 5})) is None
    assert energy.open_counter(None, packages(tmp_path, {"intel-rapl:0": 5, "intel-rapl:1": 5})) is not None
    # Half the packages are not the CPU.
    (tmp_path / "intel-rapl:1/energy_uj").unlink()
    assert energy.open_counter(None, tmp_path) is None


def test_a_measured_energy_says_how_finely_it_is_known(nvml):
    counter = energy.open_counter(GPU)
    assert energy.measured(counter, joules=600.0, seconds=2.0, update_interval_s=0.1) == {
        "source": "nvml",
        "scope": "GPU board",
        "joules": 600.0,
        "resolution_j": pytest.approx(30.0),
        "seconds": 2.0,
        "update_interval_s": 0.1,
    }
    for joules, seconds in ((0.0, 2.0), (-1.0, 2.0), (float("nan"), 2.0), (1.0, 0.0)):
        with pytest.raises(EnergyError, match="grew by"):
            energy.measured(counter, joules, seconds, 0.1)


# --- the fake itself ---


def test_the_fake_has_the_names_and_values_of_the_real_pynvml():
    real, fake = importlib.import_module("pynvml"), load_fake()
    assert Path(real.__file__) != FAKE
    for name, value in vars(fake).items():
        if name.startswith(("NVML_", "nvmlClocks")):
            assert getattr(real, name) == value, name
        elif name.startswith("nvml"):
            assert list(inspect.signature(getattr(real, name)).parameters) == list(
                inspect.signature(value).parameters
            ), name
        elif name.startswith("NVMLError_"):
            assert issubclass(getattr(real, name), real.NVMLError)
    for code in fake._WORDS:
        assert type(real.NVMLError(code)).__name__ == type(fake.NVMLError(code)).__name__
        assert str(real.NVMLError(code)) == str(fake.NVMLError(code))


@pytest.mark.parametrize(
    ("environ", "found"), [({"FAKE_NVML": '{"gpus": [{"uuid": "GPU-a"}]}'}, "GPU-a"), ({}, "none")]
)
def test_a_subprocess_is_shown_the_fake_gpus_and_imports_no_torch(environ, found):
    code = (
        "import sys; from inference_benchmark.machine import conditions, energy, hardware\n"
        "gpus = hardware.gpus()\n"
        "print(gpus[0].uuid if gpus else 'none', hardware.driver_version(), 'torch' in sys.modules)"
    )
    path = os.pathsep.join([str(FAKE.parent), str(REPO / "scripts")])
    inherited = {name: value for name, value in os.environ.items() if name != "FAKE_NVML"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**inherited, "PYTHONPATH": path, **environ}
    )
    assert done.stdout == f"{found} 570.00 False\n", done.stderr
