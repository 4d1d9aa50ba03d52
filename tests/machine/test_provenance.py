"""Environment variables in the record."""

from __future__ import annotations

from inference_benchmark.machine import provenance


def test_only_variables_that_change_speed_are_kept_and_no_secrets():
    environ = {
        "OMP_PROC_BIND": "true", "PYTORCH_CUDA_ALLOC_CONF": "x", "NVIDIA_TF32_OVERRIDE": "1", "LD_PRELOAD": "jemalloc.so",
        "CUDA_VISIBLE_DEVICES": "3", "CUDA_HOME": "/usr", "TORCH_HOME": "/t", "CUDA_VERSION": "13", "HF_TOKEN": "hush",
        "TRANSFORMERS_API_KEY": "hush", "HOME": "/root", "NVIDIA_VISIBLE_DEVICES": "all",
    }  # fmt: skip
    assert set(provenance.environment(environ)) == {
        "OMP_PROC_BIND", "PYTORCH_CUDA_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE", "LD_PRELOAD",
    }  # fmt: skip
