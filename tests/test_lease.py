"""Several measurements at once on one machine: each has a device of its own. Made-up devices, real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from conftest import FAKE_GRID, Workspace, fake_gpus, make_cell, measure_cli
from inference_benchmark.machine import gpu_lock
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.records import record

GPUS = [Gpu(i, f"GPU-{i:04d}", "NVIDIA Fake A", 80 * 10**9) for i in range(3)]


@pytest.fixture(autouse=True)
def _locks_of_our_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_locks_of_somebody_else_are_not_touched(tmp_path, monkeypatch):
    """The folder's name can be foreseen, and anybody can make it first."""
    monkeypatch.setattr("os.getuid", lambda: os.geteuid() + 1)
    gpu_lock.folder().mkdir()
    with pytest.raises(PermissionError, match="belongs to another user"), gpu_lock.hold(GPUS):
        pass
    assert not list(gpu_lock.folder().iterdir())


def on_each_device(records: list[dict]) -> dict[str, list[tuple[str, str]]]:
    """When each device was measured on, in order."""
    spans: dict[str, list[tuple[str, str]]] = {}
    for found in records:
        spans.setdefault(found["device"]["uuid"], []).append((found["started_at"], found["ended_at"]))
    return {uuid: sorted(times) for uuid, times in spans.items()}


def overlap(spans: list[tuple[str, str]]) -> bool:
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def test_jobs_side_by_side_never_share_a_device(tmp_path):
    environ = {**fake_gpus(tmp_path, 3), "FAKE_ENGINE": json.dumps({"sleep_s": 0.1})}

    def job(n: int) -> dict:
        done = measure_cli(make_cell(device="cuda", batch_size=n + 1), tmp_path / f"{n}.json", **environ)
        assert done.returncode == 0, done.stderr
        return record.load(tmp_path / f"{n}.json")

    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(job, range(8)))
    spans = on_each_device(records)
    assert set(spans) == {gpu.uuid for gpu in GPUS}, "all devices have work"
    assert not any(map(overlap, spans.values())), spans


def test_snakemake_gives_each_of_its_jobs_a_device(tmp_path):
    grid = json.loads(json.dumps(FAKE_GRID)) | {"batch_sizes": [1, 2, 4, 8]}
    (tmp_path / "w").mkdir()
    workspace = Workspace.make(tmp_path / "w", grid)
    workspace.config["device"] = "cuda"
    workspace.save()
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "gpu=2"]
    environ = {**os.environ, **fake_gpus(tmp_path, 2), "FAKE_ENGINE": json.dumps({"sleep_s": 0.1})}
    done = subprocess.run(command, cwd=workspace.folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spans = on_each_device([json.loads(p.read_text()) for p in (tmp_path / "w/results").rglob("batch-*.json")])
    assert {uuid: len(times) > 0 for uuid, times in spans.items()} == {"GPU-0000": True, "GPU-0001": True}
    assert sum(map(len, spans.values())) == 8
    assert not any(map(overlap, spans.values())), spans


@pytest.mark.parametrize(
    ("assigned", "taken"), [("2", "GPU-0002"), ("GPU-0001", "GPU-0001"), ("1,0", "GPU-0001"), (None, "GPU-0000")]
)
def test_what_a_scheduler_assigned_is_honoured(tmp_path, assigned, taken):
    environ = fake_gpus(tmp_path, 3) | ({"CUDA_VISIBLE_DEVICES": assigned} if assigned else {})
    assert measure_cli(make_cell(device="cuda"), tmp_path / "r.json", **environ).returncode == 0
    assert record.load(tmp_path / "r.json")["device"]["uuid"] == taken


def test_a_lease_is_waited_for_and_told_once(capsys):
    with gpu_lock.hold(GPUS[:1]) as held:
        got = []

        def wait() -> None:
            with gpu_lock.hold(GPUS[:1]) as gpu:
                got.append((gpu, time.monotonic()))

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.7)
        assert not got
        released = time.monotonic()
    thread.join(timeout=10)
    assert got[0][0] == held
    assert got[0][1] >= released
    assert capsys.readouterr().err == "all of GPU-0000 are in use; waiting for one\n"


def test_a_holder_that_is_killed_gives_its_device_back(tmp_path):
    code = (
        "import sys, time\nfrom inference_benchmark.machine import gpu_lock\nfrom inference_benchmark.machine.hardware import Gpu\n"
        "with gpu_lock.hold([Gpu(0, 'GPU-0000', 'x', 1)]):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    environ = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(gpu_lock.__file__).parents[2])}
    holder = subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with gpu_lock.hold(GPUS[:2]) as gpu:
        assert gpu.uuid == "GPU-0001", "the first is taken"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with gpu_lock.hold(GPUS[:1]) as gpu:
        assert gpu.uuid == "GPU-0000"
