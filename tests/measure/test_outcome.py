"""How a worker ended."""

from __future__ import annotations

import signal

import pytest
from made_up import make_cell
from running import fault, measure_cli, read_record

from inference_benchmark.machine.out_of_memory import line_about_library, line_about_memory
from inference_benchmark.measure.outcome import MeasurementError, classify
from inference_benchmark.measure.worker_process import WorkerReport

ORIGIN = {"host": {"memory_limit": None, "memory_bytes": 10**9}, "device": {"memory_bytes": 8 * 10**10}}


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        *(
            (f"CUDA error: CUBLAS_STATUS_{status} when calling `cublasGemmEx(...)`", True)
            for status in ("NOT_INITIALIZED", "INTERNAL_ERROR", "EXECUTION_FAILED")
        ),
        ("cuBLAS failed with status CUBLAS_STATUS_NOT_INITIALIZED", True),
        ("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", True),
        ("cublasLt ran into an error!\n\tshapeA=torch.Size([1, 2])", True),
        ("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasGemmEx(...)`", False),
        ("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx(...)`", False),
        ("CUDA error: CUBLAS_STATUS_ARCH_MISMATCH when calling `cublasGemmEx(...)`", False),
        ("CUDA error: device-side assert triggered", False),
        ("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)", False),
    ],
)
def test_what_libraries_of_cuda_say_without_memory(text, counts):
    assert (line_about_library(text) == text.splitlines()[0]) == counts


def test_only_the_kernels_count_makes_a_kill_an_oom():
    killed = WorkerReport(phase="warm-up", returncode=-signal.SIGKILL)
    outcome, reason = classify(killed, make_cell(), ORIGIN, {"/cg": 1}, {"/cg": 2})
    assert (outcome, reason.phase, reason.exception_type) == ("oom", "warm-up", "SIGKILL")
    assert reason.evidence == {"oom_kill_before": {"/cg": 1}, "oom_kill_after": {"/cg": 2}}
    for before, after in (({"/cg": 1}, {"/cg": 1}), ({}, {}), ({}, {"/cg": 5})):
        with pytest.raises(MeasurementError, match="killed by SIGKILL"):
            classify(killed, make_cell(), ORIGIN, before, after)
    with pytest.raises(MeasurementError, match="SIGSEGV"):
        classify(WorkerReport(returncode=-signal.SIGSEGV), make_cell(), ORIGIN, {"/cg": 1}, {"/cg": 2})
    with pytest.raises(MeasurementError, match="exit status 3"):
        classify(WorkerReport(returncode=3), make_cell(), ORIGIN, {}, {})


@pytest.mark.parametrize(
    ("text", "counts", "counts_under_a_limit"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc", True, True),
        ("Intel MKL FATAL ERROR: mkl_malloc failed", True, True),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory", True, True),
        ("cpu_memory.cpp:257:\nFailed to allocate 16777216 bytes of memory", True, True),
        ("Failed to allocate a stream", False, False),
        ("CUDA failed with error out of memory", True, True),
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB", True, True),
        ("CUDA error: out of memory", True, True),
        ("RuntimeError: CUDA driver error: out of memory", True, True),
        ("RuntimeError: Triton Error [CUDA]: out of memory", True, True),
        ("CUDA_ERROR_OUT_OF_MEMORY: out of memory", True, True),
        ("Error out of memory at line 82 in file /src/csrc/ops.cu", True, True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True, True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True, True),
        ('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/c10/cuda/CUDACachingAllocator.cpp":995', True, True),
        ('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/c10/cuda/driver_api.cpp":12', False, False),
        ('!block->expandable INTERNAL ASSERT FAILED at "/c10/cuda/CUDACachingAllocator.cpp":995', False, False),
        ("Triton Error [CUDA]: out of resource: shared memory, Required: 147456, Hardware limit: 101376", False, False),
        ("CUDA error: an illegal memory access was encountered", False, False),
        (
            "Error no kernel image is available for execution on the device at line 82 in file /src/csrc/ops.cu",
            False,
            False,
        ),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", False, False),
        ("PYTORCH_ALLOC_CONF=expandable_segments:True avoids running out of memory", False, False),
        ("libgomp: Thread creation failed: Resource temporarily unavailable", False, True),
        ("OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 2: Resource temporarily un", False, True),
        ("RuntimeError: can't start new thread", False, True),
        ("Resource temporarily unavailable", False, True),
        ("double free or corruption (!prev)", False, False),
        ("terminate called after throwing an instance of 'std::runtime_error'", False, False),
        ("memory_limit: 300 MB", False, False),
        ("", False, False),
    ],
)
def test_what_libraries_say_of_memory(text, counts, counts_under_a_limit):
    for limited, expected in ((False, counts), (True, counts_under_a_limit)):
        assert (line_about_memory(f"loading\n{text}\nAborted", limited) in text.splitlines()) == expected


@pytest.mark.parametrize(
    ("kind", "limit_bytes", "exception_type", "message"),
    [
        ("abort", None, "SIGABRT", "terminate called after throwing an instance of 'std::bad_alloc'"),
        ("no-thread", 10**9, "exit status 1", "libgomp: Thread creation failed: Resource temporarily unavailable"),
        ("bitsandbytes", None, "exit status 1", "Error out of memory at line 82 in file /src/csrc/ops.cu"),
    ],
)
def test_a_library_that_ends_the_worker_for_memory_is_out_of_memory(
    tmp_path, kind, limit_bytes, exception_type, message
):
    cell = make_cell(memory_limit_bytes=limit_bytes)
    done = measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=fault(fault=kind, after=2))
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert record["outcome"] == "oom"
    assert record["reason"]["phase"] == "measure"
    assert (record["reason"]["exception_type"], record["reason"]["message"]) == (exception_type, message)
    assert message in record["reason"]["evidence"]["last_output"]
    assert message in done.stderr


@pytest.mark.parametrize(("kind", "ending"), [("abort-silently", "SIGABRT"), ("no-thread", "exit status 1")])
def test_a_library_that_ends_the_worker_otherwise_is_a_failure(tmp_path, kind, ending):
    done = measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(fault=kind, after=2))
    assert done.returncode == 1
    assert ending in done.stderr.splitlines()[-1]
    assert not (tmp_path / "r.json").exists()
