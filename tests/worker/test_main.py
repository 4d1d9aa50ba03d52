"""The worker process."""

from __future__ import annotations

from inference_benchmark.worker import __main__ as worker


def test_what_cuda_reports_of_a_gpu_is_no_fault_of_the_cell():
    """Torch's own class, by whose name it is known; a wrong shape is a plain RuntimeError."""
    import torch

    assert worker.of_the_machine(torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"))
    assert not worker.of_the_machine(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
