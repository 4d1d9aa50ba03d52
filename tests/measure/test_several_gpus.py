"""Several measurements at once on one machine; made-up devices, real processes."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from subprocess import CompletedProcess

import pytest
from made_up import make_cell, measurement
from running import (
    PROGRAMS,
    SNAKEMAKE,
    Workspace,
    fake_gpus,
    fake_grid,
    fault,
    flag_names,
    measure_cli,
    read_record,
)


def on_each_device(records: list[dict]) -> dict[str, list[tuple[str, str]]]:
    """When each device was measured on, in order."""
    spans: dict[str, list[tuple[str, str]]] = {}
    for found in records:
        for each in found["device"].get("devices", [found["device"]]):
            spans.setdefault(each["uuid"], []).append((found["started_at"], found["ended_at"]))
    return {uuid: sorted(times) for uuid, times in spans.items()}


def on_several(n: int) -> dict:
    """What a cell of the fake engine has that is measured on n devices."""
    return {"engine": "pair", "options": {"engine": "fake", "placement": "layers", "gpus": n}}


def overlap(spans: list[tuple[str, str]]) -> bool:
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def test_jobs_side_by_side_never_share_a_device(tmp_path):
    environ = {**fake_gpus(tmp_path, n=3), "FAKE_ENGINE": json.dumps({"sleep_s": 0.1})}

    def job(n: int) -> dict:
        placed = on_several(2) if n % 3 == 0 else {}
        done = measure_cli(make_cell(device="cuda", batch_size=n + 1, **placed), tmp_path / f"{n}.json", **environ)
        assert done.returncode == 0, done.stderr
        return read_record(tmp_path / f"{n}.json")

    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(job, range(8)))
    spans = on_each_device(records)
    assert set(spans) == {"GPU-0000", "GPU-0001", "GPU-0002"}, "all devices have work"
    assert sum(map(len, spans.values())) == 8 + 3, "three of the jobs have two"
    assert not any(map(overlap, spans.values())), spans


def test_snakemake_gives_each_of_its_jobs_a_device(tmp_path):
    grid = fake_grid(engines=["fake", "pair"], batch_sizes=[1, 2])
    (tmp_path / "w").mkdir()
    workspace = Workspace.make(tmp_path / "w", grid)
    workspace.config |= {"device": "cuda", "engines": {"pair": on_several(2)["options"]}}
    workspace.config["grid"] = {"cuda": grid, "cpu": fake_grid()}
    workspace.save()
    gpus = {**fake_gpus(tmp_path, 2), "FAKE_ENGINE": json.dumps({"sleep_s": 0.1})}
    environ = {**os.environ, **PROGRAMS.for_shells(), **gpus}

    def run(slots: int) -> CompletedProcess:
        command = [workspace.command()[0], "--until", "measure", "--cores", "2", "--resources", f"gpu={slots}"]
        return SNAKEMAKE.run(command, workspace.folder, environ)

    done = run(1)
    assert done.returncode != 0
    assert "cells are measured on 2 GPUs, and jobs may use 1; run with --resources gpu=2" in done.stdout + done.stderr
    assert not (tmp_path / "w/results").exists()
    done = run(2)
    assert done.returncode == 0, done.stderr
    spans = on_each_device([json.loads(p.read_text()) for p in (tmp_path / "w/results").rglob("batch-*.json")])
    assert {uuid: len(times) > 0 for uuid, times in spans.items()} == {"GPU-0000": True, "GPU-0001": True}
    assert sum(map(len, spans.values())) == 4 + 2 * 4
    assert not any(map(overlap, spans.values())), spans


@pytest.mark.parametrize(
    ("assigned", "taken"), [("2", "GPU-0002"), ("GPU-0001", "GPU-0001"), ("1,0", "GPU-0001"), (None, "GPU-0000")]
)
def test_what_a_scheduler_assigned_is_honoured(tmp_path, assigned, taken):
    environ = fake_gpus(tmp_path, 3) | ({"CUDA_VISIBLE_DEVICES": assigned} if assigned else {})
    assert measure_cli(make_cell(device="cuda"), tmp_path / "r.json", **environ).returncode == 0
    assert read_record(tmp_path / "r.json")["device"]["uuid"] == taken


@pytest.mark.parametrize(
    ("n", "ways", "links"), [(2, {}, ["NVLink"]), (4, {"GPU-0001 GPU-0003": 50}, ["NVLink", "SYS"])]
)
def test_a_record_has_every_device_and_what_all_of_them_took(tmp_path, n, ways, links):
    environ = fake_gpus(tmp_path, 4, power_w=300) | {"FAKE_ENGINE": fault(sleep_s=0.05, real_clock=True)}
    environ["FAKE_NVML"] = json.dumps(json.loads(environ["FAKE_NVML"]) | {"ways": ways})
    half_a_second = measurement(min_seconds=0.5, max_seconds=0.5)
    cell = make_cell(device="cuda", measurement=half_a_second, **on_several(n))
    assert measure_cli(cell, tmp_path / "r.json", **environ).returncode == 0
    record = read_record(tmp_path / "r.json", cell)
    device = record["device"]
    assert [each["uuid"] for each in device["devices"]] == [f"GPU-{k:04d}" for k in range(n)]
    assert {(each["name"], each["memory_bytes"]) for each in device["devices"]} == {("NVIDIA Fake A", 80 * 10**9)}
    assert (device["uuid"], device["name"], device["links"]) == ("GPU-0000", "NVIDIA Fake A", links)
    (run,) = record["runs"]
    assert {"gpu_power_w", *(f"gpu_power_w_{k}" for k in range(1, n))} <= set(run["conditions"]["gauges"])
    energy = run["energy"]
    assert energy["scope"] == f"{n} GPU boards"
    assert energy["joules"] == pytest.approx(n * 300 * energy["seconds"], abs=2 * energy["resolution_j"])


def test_a_cell_that_needs_more_devices_than_there_are_is_one_line(tmp_path):
    environ = fake_gpus(tmp_path, 4) | {"CUDA_VISIBLE_DEVICES": "0,1"}
    done = measure_cli(make_cell(device="cuda", **on_several(4)), tmp_path / "r.json", **environ)
    assert (done.returncode, done.stderr) == (
        1,
        "measure.py: the cell asks for 4 GPUs and only 2 are visible here (NVML lists 4, CUDA_VISIBLE_DEVICES is 0,1)\n",
    )


def test_others_on_any_of_the_devices_are_told(tmp_path):
    environ = fake_gpus(tmp_path, 2)
    nvml = json.loads(environ["FAKE_NVML"])
    nvml["gpus"][1] |= {"processes": [[1, 10**9], [2, 2 * 10**9]], "throttle": ["hw_thermal_slowdown"]}
    environ["FAKE_NVML"] = json.dumps(nvml)
    done = measure_cli(make_cell(device="cuda", **on_several(2)), tmp_path / "r.json", **environ)
    assert done.returncode == 0, done.stderr
    assert "GPU GPU-0001 is in use: 2 processes hold 3 GB" in done.stderr
    assert flag_names(read_record(tmp_path / "r.json")) == {"gpu-busy-at-start", "gpu-shared", "gpu-throttled-thermal"}
