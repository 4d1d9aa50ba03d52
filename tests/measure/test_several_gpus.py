"""Several measurements at once on one machine; made-up devices, real processes."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from made_up import make_cell
from running import PROGRAMS, SNAKEMAKE, Workspace, fake_gpus, fake_grid, measure_cli, read_record


def on_each_device(records: list[dict]) -> dict[str, list[tuple[str, str]]]:
    """When each device was measured on, in order."""
    spans: dict[str, list[tuple[str, str]]] = {}
    for found in records:
        spans.setdefault(found["device"]["uuid"], []).append((found["started_at"], found["ended_at"]))
    return {uuid: sorted(times) for uuid, times in spans.items()}


def overlap(spans: list[tuple[str, str]]) -> bool:
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def test_jobs_side_by_side_never_share_a_device(tmp_path):
    environ = {**fake_gpus(tmp_path, n=3), "FAKE_ENGINE": json.dumps({"sleep_s": 0.1})}

    def job(n: int) -> dict:
        done = measure_cli(make_cell(device="cuda", batch_size=n + 1), tmp_path / f"{n}.json", **environ)
        assert done.returncode == 0, done.stderr
        return read_record(tmp_path / f"{n}.json")

    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(job, range(8)))
    spans = on_each_device(records)
    assert set(spans) == {"GPU-0000", "GPU-0001", "GPU-0002"}, "all devices have work"
    assert not any(map(overlap, spans.values())), spans


def test_snakemake_gives_each_of_its_jobs_a_device(tmp_path):
    grid = fake_grid(batch_sizes=[1, 2, 4])
    (tmp_path / "w").mkdir()
    workspace = Workspace.make(tmp_path / "w", grid)
    workspace.config["device"] = "cuda"
    workspace.save()
    command = [workspace.command()[0], "--until", "measure", "--cores", "2", "--resources", "gpu=2"]
    gpus = {**fake_gpus(tmp_path, 2), "FAKE_ENGINE": json.dumps({"sleep_s": 0.1})}
    done = SNAKEMAKE.run(command, workspace.folder, {**os.environ, **PROGRAMS.for_shells(), **gpus})
    assert done.returncode == 0, done.stderr
    spans = on_each_device([json.loads(p.read_text()) for p in (tmp_path / "w/results").rglob("batch-*.json")])
    assert {uuid: len(times) > 0 for uuid, times in spans.items()} == {"GPU-0000": True, "GPU-0001": True}
    assert sum(map(len, spans.values())) == 6
    assert not any(map(overlap, spans.values())), spans


@pytest.mark.parametrize(
    ("assigned", "taken"), [("2", "GPU-0002"), ("GPU-0001", "GPU-0001"), ("1,0", "GPU-0001"), (None, "GPU-0000")]
)
def test_what_a_scheduler_assigned_is_honoured(tmp_path, assigned, taken):
    environ = fake_gpus(tmp_path, 3) | ({"CUDA_VISIBLE_DEVICES": assigned} if assigned else {})
    assert measure_cli(make_cell(device="cuda"), tmp_path / "r.json", **environ).returncode == 0
    assert read_record(tmp_path / "r.json")["device"]["uuid"] == taken
