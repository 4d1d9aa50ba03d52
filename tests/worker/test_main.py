"""The worker process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from made_up import make_cell
from running import measure_cli, read_record

from inference_benchmark.worker import __main__ as worker

#: Runs a command where /proc is read-only.
READ_ONLY_PROC = ("unshare", "--mount", "sh", "-c", 'mount -o remount,ro,bind /proc && exec "$@"', "sh")


def test_what_cuda_reports_of_a_gpu_is_no_fault_of_the_cell():
    """Torch's class is identified by its name; a wrong shape is a plain RuntimeError."""
    import torch

    assert worker.of_the_machine(torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"))
    assert not worker.of_the_machine(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_read_only_proc_is_no_error(tmp_path):
    writing = "open('/proc/self/oom_score_adj', 'w').write('1000')"
    tried = subprocess.run([*READ_ONLY_PROC, sys.executable, "-c", writing], capture_output=True, text=True)
    if "Read-only file system" not in tried.stderr:
        pytest.skip(f"a read-only /proc needs the right to mount: {tried.stderr.strip()}")
    done = measure_cli(make_cell(), tmp_path / "r.json", READ_ONLY_PROC)
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / "r.json")["outcome"] == "ok"
