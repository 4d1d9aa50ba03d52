"""Which environment variables a worker has, and which of them its record keeps."""

from __future__ import annotations

import os
import sys

import pytest

from inference_benchmark.machine import interpreter, variables
from inference_benchmark.measure.worker_process import worker_variables

#: Read by libraries, or set by containers and schedulers, and none changes a figure.
HARMLESS = {
    "CUDA_MPS_PIPE_DIRECTORY": "/tmp/mps-1234", "NCCL_SOCKET_IFNAME": "eth0", "TRANSFORMERS_OFFLINE": "1",
    "TORCH_LOGS": "recompiles", "CUDA_VISIBLE_DEVICES": "3", "CUDA_HOME": "/usr", "TORCH_HOME": "/t",
    "CUDA_VERSION": "13", "CT2_VERBOSE": "1", "HF_TOKEN": "hush", "TRANSFORMERS_API_KEY": "hush", "HOME": "/root",
}  # fmt: skip


def test_only_variables_with_a_reason_are_kept_and_no_secrets():
    matter = {
        "OMP_PROC_BIND": "true", "PYTORCH_CUDA_ALLOC_CONF": "x", "LD_PRELOAD": "jemalloc.so", "CT2_FORCE_CPU_ISA": "AVX",
        "CT2_USE_MKL": "0", "MALLOC_ARENA_MAX": "1", "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
    }  # fmt: skip
    assert variables.recorded(matter | HARMLESS) == matter
    assert all(map(variables.must_agree, matter))
    assert not any(map(variables.must_agree, HARMLESS))


def test_each_variable_has_one_reason():
    names = [*variables.FREE, *(name for names in variables.COMPARED.values() for name in names)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", ["", "/checkout/src", f"/checkout/src{os.pathsep}/more"])
def test_folders_of_packages_are_kept_without_that_of_this_program(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", path)
    kept = variables.recorded(interpreter.child_environment())
    assert kept.get("PYTHONPATH", "") == path
    assert not variables.must_agree("PYTHONPATH")


def test_a_container_does_not_make_products_run_in_tf32(monkeypatch):
    for name in ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.setenv(name, "1")
    environ = worker_variables(sys.executable, (), threads=2)
    assert not {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE"} & environ.keys()
    assert environ["OMP_NUM_THREADS"] == "2"
