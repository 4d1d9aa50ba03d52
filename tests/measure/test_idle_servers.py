"""Servers of workers that hold memory while they wait: when they end for a cell or study."""

from __future__ import annotations

from typing import Any

import pytest
from made_up import make_cell

from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.measure import held_device
from inference_benchmark.measure.held_device import HeldDevice
from inference_benchmark.measure.warm_start import ForkServer
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.records.parts import Reason

SERVER = ForkServer("hf", "weights", 1)
SMALL, AMPLE = ({"name": "/cg/memory.max", "bytes": n_bytes} for n_bytes in (900_000_000, 64 * 10**9))
GB = 10**9


def reason(limit: dict[str, Any], exception_type: str = "RuntimeError") -> Reason:
    return Reason("load", exception_type, "m", limit, {})


OF_HOST = reason({"name": "host memory", "bytes": 4 * GB})


@pytest.fixture
def device(monkeypatch):
    """A device of which it is noted which servers ended and with which server each worker ran. Its workers run out of
    memory beside a server."""

    def make(limit: dict[str, Any] | None, why: Reason = OF_HOST, any_idle: bool = True) -> tuple[HeldDevice, list]:
        noted: list[Any] = []

        def end_servers(python, variables, but=None):
            noted.append(("end", but))
            return any_idle

        def run(self, task, inputs, on_result, server):
            noted.append(("run", server))
            return (WorkerReport(), "oom", why) if server else (WorkerReport(), "ok", None)

        monkeypatch.setattr(held_device, "end_servers", end_servers)
        monkeypatch.setattr(HeldDevice, "_run", run)
        origin = {"host": {"memory_limit": limit}}
        return HeldDevice(make_cell(), Supervision(), (), None, "python", {}, origin, "now"), noted

    return make


@pytest.mark.parametrize(("limit", "ended"), [(SMALL, [("end", SERVER)]), (AMPLE, []), (None, [])])
def test_servers_of_other_engines_end_before_a_cell_where_memory_is_scarce(device, limit, ended):
    held, noted = device(limit, any_idle=False)
    held.run_worker("timed_calls", {}, server=SERVER)
    assert noted[: len(ended) + 1] == [*ended, ("run", SERVER)]


def test_all_end_before_a_worker_that_needs_none(device):
    """Ceilings and searches take what there is."""
    held, noted = device(None)
    held.run_worker("ceilings", {})
    assert noted == [("end", None), ("run", None)]


def test_a_worker_that_ran_out_of_memory_beside_a_server_has_another_try_without(device, capsys):
    held, noted = device(None)
    assert held.run_worker("timed_calls", {}, server=SERVER)[1] == "ok"
    assert noted == [("run", SERVER), ("end", None), ("run", None)]
    assert "out of memory during load beside idle servers of workers: once more" in capsys.readouterr().err


def test_without_an_idle_server_it_counts(device):
    held, noted = device(None, any_idle=False)
    assert held.run_worker("timed_calls", {}, server=SERVER)[1] == "oom"
    assert noted == [("run", SERVER), ("end", None)]


@pytest.mark.parametrize("name", ["memory_limit", "device memory"])
def test_a_limit_that_servers_have_no_part_in_counts_at_once(device, name):
    held, noted = device(None, reason({"name": name, "bytes": GB}))
    assert held.run_worker("timed_calls", {}, server=SERVER)[1] == "oom"
    assert noted == [("run", SERVER)]


def test_a_kill_by_the_kernel_is_of_the_host_whatever_limit_the_cell_has(device):
    held, _ = device(None, reason({"name": "memory_limit", "bytes": GB}, "SIGKILL"))
    assert held.run_worker("timed_calls", {}, server=SERVER)[1] == "ok"
