"""Energy counters of GPUs and CPUs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_machine import GPU

from inference_benchmark.engines.fake import FakeEngine
from inference_benchmark.machine import energy
from inference_benchmark.machine.energy import EnergyError
from inference_benchmark.worker import timed_calls


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


def test_the_energy_of_a_gpu_is_the_increase_of_its_counter(nvml):
    nvml.show({"power_w": 300})
    counter = energy.open_counter([GPU])
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


def test_settle_ends_just_after_an_update_and_returns_the_interval(nvml):
    counter = energy.open_counter([GPU])
    assert counter.settle(max_s=2.0) > 0.002
    # 0.02 on an idle machine; where others use its CPUs too, now and then.
    assert any(counter.settle(max_s=2.0) < 0.04 for _ in range(1000))


def test_settle_returns_max_s_if_the_counter_does_not_change(tmp_path):
    counter = energy.open_counter((), packages(tmp_path, {"intel-rapl:0": 5}))
    assert counter.settle(max_s=0.02) == 0.02


class SlowCounter:
    """A made-up clock, and a counter of a device that draws busy_w until idle_from_s and nothing after it.

    The counter is updated every 0.1 s, at 0.05 s, 0.15 s and so on.
    """

    def __init__(self, monkeypatch, busy_w: float, idle_from_s: float) -> None:
        self.now_s, self.busy_w, self.idle_from_s = 0.0, busy_w, idle_from_s
        clock = SimpleNamespace(monotonic=lambda: self.now_s, perf_counter=lambda: self.now_s, sleep=self.sleep)
        monkeypatch.setattr(energy, "time", clock)
        self.counter = energy.Counter("made up", "nothing", self.read_raw, 1e-3, [None])

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def read_raw(self) -> list[int]:
        updated_s = (self.now_s + 0.05) // 0.1 * 0.1 - 0.05
        return [round(1000 * self.busy_w * max(0.0, min(updated_s, self.idle_from_s)))]


@pytest.mark.parametrize("idle_from_s", [2.26, 2.30, 2.349, 2.351])
def test_settling_at_the_end_counts_the_work_of_the_last_interval(monkeypatch, idle_from_s):
    device = SlowCounter(monkeypatch, busy_w=300, idle_from_s=idle_from_s)
    device.sleep(1.0)
    interval_s = device.counter.settle()
    assert interval_s == pytest.approx(0.1, abs=0.001)
    began_s, began_j = device.now_s, device.counter.read_j()
    device.sleep(idle_from_s - device.now_s)
    missing_j = 300 * (idle_from_s - began_s) - (device.counter.read_j() - began_j)
    device.counter.settle_after(interval_s)
    assert device.counter.read_j() - began_j == pytest.approx(300 * (idle_from_s - began_s), abs=0.1)
    assert missing_j > 0.2, "what a reading at once would lack"
    assert device.now_s - idle_from_s <= interval_s + 0.001


def test_the_energy_of_a_cell_is_all_that_its_calls_took(monkeypatch):
    device = SlowCounter(monkeypatch, busy_w=300, idle_from_s=3.249)
    events = []
    with timed_calls._metered(FakeEngine(), device.counter, lambda **facts: events.append(facts)):
        began_s = device.now_s
        device.sleep(3.249 - began_s)
    (sent,) = events
    assert sent["energy"]["joules"] == pytest.approx(300 * (3.249 - began_s), abs=0.1)
    assert sent["energy"]["seconds"] == pytest.approx(device.now_s - began_s)


def test_a_counter_that_no_longer_changes_is_waited_for_two_intervals(monkeypatch):
    device = SlowCounter(monkeypatch, busy_w=300, idle_from_s=0.0)
    device.counter.settle_after(0.1)
    assert device.now_s == pytest.approx(0.2, abs=0.001)


def test_the_energy_of_a_cpu_is_the_sum_of_its_packages(tmp_path):
    parts = ("intel-rapl:0:0", "intel-rapl:9", "intel-rapl-mmio:0")
    before = {"intel-rapl:0": 1_000_000, "intel-rapl:1": 5_000_000, **dict.fromkeys(parts, 0)}
    counter = energy.open_counter((), packages(tmp_path, before))
    assert (counter.source, counter.scope) == ("rapl", "CPU packages, everything that ran on them")
    assert counter.read_j() == 0.0
    packages(tmp_path, {"intel-rapl:0": 3_000_000, "intel-rapl:1": 5_500_000, **dict.fromkeys(parts, 90_000_000)})
    assert counter.read_j() == pytest.approx(2.5)


def test_a_counter_that_wraps_to_zero_counts_on(tmp_path):
    counter = energy.open_counter((), packages(tmp_path, {"intel-rapl:0": 262_143_000_000}))
    counter.read_j()
    for energy_uj, total_j in ((671_150, 1.0), (1_671_150, 2.0)):
        packages(tmp_path, {"intel-rapl:0": energy_uj})
        assert counter.read_j() == pytest.approx(total_j)


def test_a_counter_that_may_have_wrapped_twice_is_an_energy_error(tmp_path, monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(energy, "time", SimpleNamespace(monotonic=lambda: now_s))
    counter = energy.open_counter((), packages(tmp_path, {"intel-rapl:0": 0}))
    now_s = 1e6  # the time since opening does not matter: the first reading is the start
    counter.read_j()
    now_s += 500
    assert counter.read_j() == 0.0
    now_s += 530
    with pytest.raises(EnergyError, match="wrapped twice in 530 s"):
        counter.read_j()


def test_a_gpu_counter_that_goes_back_is_an_energy_error(nvml):
    nvml.show({"power_w": 300})
    counter = energy.open_counter([GPU])
    counter.read_j()
    nvml.show({"power_w": 30})
    with pytest.raises(EnergyError, match="went back"):
        counter.read_j()


def test_a_reading_that_fails_later_is_an_energy_error(nvml, tmp_path):
    nvml.show(fail_after=1)
    with pytest.raises(EnergyError, match="Unknown Error"):
        energy.open_counter([GPU]).read_j()
    counter = energy.open_counter((), packages(tmp_path, {"intel-rapl:0": 5}))
    (tmp_path / "intel-rapl:0/energy_uj").unlink()
    with pytest.raises(EnergyError, match="rapl"):
        counter.read_j()


@pytest.mark.parametrize(
    "settings", [{"unsupported": ["energy"]}, {"init_fails": True}, {"gpus": []}, {"fail_after": 0}]
)
def test_a_gpu_without_a_counter_has_none(nvml, settings):
    nvml.show(**settings)
    assert energy.open_counter([GPU]) is None


def test_an_environment_without_nvidia_ml_py_has_no_counter_of_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.open_counter([GPU]) is None


def test_a_cpu_without_a_readable_counter_has_none(tmp_path):
    assert energy.open_counter((), tmp_path / "missing") is None
    assert energy.open_counter((), packages(tmp_path, {"intel-rapl:9": 5, "intel-rapl:0:0": 5})) is None
    assert energy.open_counter((), packages(tmp_path, {"intel-rapl:0": 5, "intel-rapl:1": 5})) is not None
    # A counter of only some packages is not the energy of the CPU.
    (tmp_path / "intel-rapl:1/energy_uj").unlink()
    assert energy.open_counter((), tmp_path) is None


def test_a_measured_energy_has_its_resolution(nvml):
    counter = energy.open_counter([GPU])
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
