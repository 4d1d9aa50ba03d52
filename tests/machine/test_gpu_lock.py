"""The lock that gives each measurement its own GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import pytest
from preloaded import HANGS_S
from running import wait_for

from inference_benchmark.machine import gpu_lock
from inference_benchmark.machine.hardware import Gpu

GPUS = [Gpu(i, f"GPU-{i:04d}", "NVIDIA Fake A", 80 * 10**9) for i in range(3)]


@pytest.fixture(autouse=True)
def _own_lock_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_lock_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    """The folder's name is predictable, so another user can create it first."""
    monkeypatch.setattr("os.getuid", lambda: os.geteuid() + 1)
    folder = tmp_path / f"inference-benchmark-{os.getuid()}"
    folder.mkdir()
    with pytest.raises(PermissionError, match="belongs to another user"), gpu_lock.hold(GPUS):
        pass
    assert not list(folder.iterdir())


def test_hold_waits_for_a_gpu_and_reports_it_once(capsys):
    with gpu_lock.hold(GPUS[:1]) as held_gpu:
        acquired = []

        def wait() -> None:
            with gpu_lock.hold(GPUS[:1]) as gpu:
                acquired.append((gpu, time.monotonic()))

        thread = threading.Thread(target=wait)
        thread.start()
        said = wait_for(lambda: capsys.readouterr().err)
        time.sleep(0.7)  # in which it looks again
        assert not acquired
        released_at = time.monotonic()
    thread.join(timeout=HANGS_S)
    assert acquired[0][0] == held_gpu
    assert acquired[0][1] >= released_at
    assert said + capsys.readouterr().err == "all of GPU-0000 are in use; waiting for one\n"


def test_the_lock_of_a_killed_holder_is_released(tmp_path):
    code = (
        "import sys, time\nfrom inference_benchmark.machine import gpu_lock\nfrom inference_benchmark.machine.hardware import Gpu\n"
        "with gpu_lock.hold([Gpu(0, 'GPU-0000', 'x', 1)]):\n    print('held', flush=True)\n    time.sleep(1000)\n"
    )
    environ = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(gpu_lock.__file__).parents[2])}
    holder = subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with gpu_lock.hold(GPUS[:2]) as gpu:
        assert gpu == [GPUS[1]], "the first GPU is locked"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with gpu_lock.hold(GPUS[:1]) as gpu:
        assert gpu == [GPUS[0]]


def is_locked(gpu: Gpu, folder: Path) -> bool:
    """Whether somebody holds this GPU."""
    try:
        with filelock.FileLock(folder / f"{gpu.uuid}.lock", timeout=0):
            return False
    except filelock.Timeout:
        return True


def test_several_are_held_at_once_in_their_order_and_who_waits_for_them_keeps_what_is_free(tmp_path):
    """Else one that needs few could take them again and again, or two that need several wait for each other."""
    taken: list[list[Gpu]] = []

    def take(count: int) -> None:
        with gpu_lock.hold(GPUS, count) as held:
            taken.append(held)

    def start(count: int) -> threading.Thread:
        (thread := threading.Thread(target=take, args=(count,))).start()
        return thread

    with gpu_lock.hold(GPUS[1:2]):
        threads = [start(3)]
        folder = wait_for(lambda: next(tmp_path.glob("inference-benchmark-*"), None))
        wait_for(lambda: is_locked(GPUS[0], folder) and is_locked(GPUS[2], folder))
        threads += [start(2), start(1)]
        assert taken == []
    for thread in threads:
        thread.join(timeout=HANGS_S)
    assert sorted(map(len, taken)) == [1, 2, 3]
    assert all(held == sorted(held, key=lambda gpu: gpu.index) for held in taken)
