"""One GPU to each measurement: the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from inference_benchmark.machine import gpu_lock
from inference_benchmark.machine.hardware import Gpu

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
