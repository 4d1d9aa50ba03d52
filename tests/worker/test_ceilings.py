"""Ceilings of this machine, measured; and the time of kernels on a made-up GPU."""

from __future__ import annotations

import os

import pytest
import torch

from inference_benchmark.analysis import ceilings
from inference_benchmark.experiment.studies import CeilingsStudy
from inference_benchmark.records.record_file import load_for
from inference_benchmark.records.study_results import check_results
from inference_benchmark.worker import ceilings as worker


def test_ceilings_of_this_machine(ceilings_once):
    record = load_for(CeilingsStudy("box", "cpu", None), ceilings_once)
    assert len(record.results) <= 80, "they take about a second each, and a faster machine has more of them"
    kernels = {(r.get("dtype"), r["kernel"]) for r in record.results}
    assert {(None, "copy"), (None, "sum"), (None, "matrix-vector")} <= kernels
    for dtype in ("float32", "bfloat16", "float16", "int8"):
        assert {(dtype, kernel) for kernel in worker.product_kernels("cpu", dtype)} <= kernels
        assert sum(kernel[0] == dtype for kernel in kernels) >= 2
    assert any("quantized" in kernel for dtype, kernel in kernels if dtype == "int8")
    assert not any("calls_per_sample" in r for r in record.results)
    for result in record.results:
        assert len(result["samples_s"]) >= 2 or sum(result["samples_s"]) >= 0.1
    sizes = {r["working_set_bytes"] for r in record.results if r["kind"] == "bandwidth"}
    assert max(sizes) >= 2**28, "larger than a cache"
    peaks = ceilings.peaks(record.results)
    assert 10**9 < peaks.bandwidth[-1][1] < 10**12
    assert 10**9 < peaks.flop_per_s["float32"] < 10**14
    assert min(peaks.flop_per_s.values()) == peaks.flop_per_s["float32"]
    assert record.conditions["n_samples"] > 0
    assert record.device["kind"] == "cpu"
    assert record.model["threads"] == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_every_kernel_multiplies_all_rows_by_all_weights(dtype):
    rows, side = 24, 64
    activations, weights = (worker._random(torch.device("cpu"), dtype, n, side) for n in (rows, side))
    wanted = {of: activations.double() @ each.double() for of, each in (("mm", weights), ("linear", weights.t()))}
    for name, make in worker.product_kernels("cpu", dtype).items():
        product = make(activations, weights)().to_dense()
        assert product.shape == (rows, side)
        if "quantized" not in name:  # whose sums are rounded to 8 bits
            which = "linear" if "linear" in name or "transposed" in name else "mm"
            error = product.double() - wanted[which]
            assert error.norm() <= 0.01 * wanted[which].norm()


def test_a_product_that_the_library_does_not_have_is_left_out(monkeypatch):
    def refuse(activations, weights):
        raise RuntimeError("no such product")

    def missing(activations, weights):
        return torch.ops.quantized.no_such_linear

    kernels = {"refused": refuse, "missing": missing, "torch.mm": lambda a, w: lambda: torch.mm(a, w)}
    monkeypatch.setattr(worker, "product_kernels", lambda device, dtype: kernels)
    monkeypatch.setattr(worker, "_ROWS", {"cpu": (16,)})
    results = list(worker._products(torch.device("cpu"), "float32", worker.CpuTimer))
    assert [(result["kernel"], result["rows"]) for result in results] == [("torch.mm", 16)]


def test_the_link_from_disk_to_host_is_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("INFERENCE_BENCHMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(worker, "_LINK_BYTES", 2**20)
    results = [{"kind": "link", **each} for each in worker._links(torch.device("cpu"), worker.CpuTimer)]
    assert [(each["link"], each["kernel"], each["moved_bytes"]) for each in results] == [
        ("disk", "read", 2**20), ("disk", "mapped", 2**20),
    ]  # fmt: skip
    check_results("ceilings", results)
    assert 10**6 < ceilings.peaks(results).link_bytes_per_s["disk"] < 10**13
    assert list((tmp_path / "cache").iterdir()) == []


class FakeStream:
    """A GPU of made-up speed: what is launched waits in a queue until the kernels before it have ended.

    launch_s: time of the host to launch a kernel. The clock of the GPU has 2 GHz.
    """

    def __init__(self, monkeypatch, launch_s: float) -> None:
        self.launch_s, self.host_s, self.idle_from_s = launch_s, 0.0, 0.0
        monkeypatch.setattr(worker.torch.cuda, "Event", lambda enable_timing: FakeEvent(self))
        monkeypatch.setattr(worker.torch.cuda, "_sleep", lambda cycles: self.launch(cycles / 2e9))

    def launch(self, seconds: float) -> None:
        self.host_s += self.launch_s
        self.idle_from_s = max(self.idle_from_s, self.host_s) + seconds


class FakeEvent:
    def __init__(self, stream: FakeStream) -> None:
        self.stream = stream

    def record(self) -> None:
        self.at_s = max(self.stream.idle_from_s, self.stream.host_s)

    def query(self) -> bool:
        return self.at_s <= self.stream.host_s

    def synchronize(self) -> None:
        self.stream.host_s = max(self.stream.host_s, self.at_s)

    def elapsed_time(self, end: FakeEvent) -> float:
        return (end.at_s - self.at_s) * 1000


@pytest.mark.parametrize("launch_s", [4e-6, 10e-6, 100e-6])
@pytest.mark.parametrize(
    ("kernel_s", "calls"), [(2e-6, 100), (7e-6, 100), (50e-6, 20), (700e-6, 1), (0.4, 1)], ids=lambda value: str(value)
)
def test_the_launch_of_a_kernel_is_no_part_of_its_time(monkeypatch, launch_s, kernel_s, calls):
    stream = FakeStream(monkeypatch, launch_s)
    taken = worker.samples(lambda: stream.launch(kernel_s), worker.CudaTimer)
    assert taken["samples_s"] == pytest.approx([kernel_s] * len(taken["samples_s"]), rel=1e-6)
    assert taken.get("calls_per_sample", 1) == calls
    assert (3 if kernel_s == 0.4 else 5) <= len(taken["samples_s"]) <= 1000


def test_a_kernel_that_waits_for_the_gpu_by_itself_is_timed_all_the_same(monkeypatch):
    """Its launches cannot be hidden, however long the GPU is kept busy."""
    stream = FakeStream(monkeypatch, 10e-6)

    def kernel() -> None:
        stream.launch(50e-6)
        stream.host_s = stream.idle_from_s

    taken = worker.samples(kernel, worker.CudaTimer)
    assert taken["samples_s"] == pytest.approx([60e-6] * len(taken["samples_s"]), rel=0.2)


@pytest.mark.parametrize("first_launch_s", [1e-4, 5e-4, 2e-3, 10e-3])
def test_a_slow_first_launch_of_a_kernel_costs_its_own_time_and_no_more(monkeypatch, first_launch_s):
    """Nor does a kernel that waits for the GPU by itself make those after it slower."""

    def took_s(first_launch_s: float) -> float:
        stream = FakeStream(monkeypatch, 5e-6)

        def measure(kernel_s: float, waits: bool = False) -> float:
            def kernel() -> None:
                stream.host_s += once.pop() if once else 0.0
                stream.launch(kernel_s)
                stream.host_s = stream.idle_from_s if waits else stream.host_s

            once, began_s = [first_launch_s], stream.host_s
            worker.samples(kernel, worker.CudaTimer)
            return stream.host_s - began_s

        measure(50e-6, waits=True)
        return sum(measure(kernel_s) for kernel_s in (7e-6, 60e-6, 450e-6, 4.7e-3))

    assert took_s(first_launch_s) == pytest.approx(took_s(0) + 4 * first_launch_s)
    assert took_s(first_launch_s) < 2
