"""Which exceptions mean out of memory; torch's own, with made-up free memory of a GPU."""

from __future__ import annotations

import errno

import pytest
import torch
from made_up import make_cell
from running import fake_gpus, fault, measure_cli, read_record
from safetensors import SafetensorError

from inference_benchmark.engines.hf import HfEngine
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.worker import engine_session

GPU = Gpu(0, "GPU-a", "NVIDIA Fake A", 80 * 10**9)
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`")
ALLOCATOR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def raised(error: BaseException, behind: BaseException, how: str) -> BaseException:
    """An exception with another one behind it, as each kind of raise leaves it."""
    try:
        try:
            raise behind
        except BaseException as cause:
            if how == "from":
                raise error from cause
            if how == "from None":
                raise error from None
            raise error  # noqa: B904  the case
    except BaseException as found:
        return found


def compiling_fails(error: BaseException) -> BaseException:
    """What torch.compile raises if its compiler raises this."""

    def backend(*_):
        raise error

    try:
        torch.compile(lambda x: x + 1, backend=backend)(torch.ones(1))
    except Exception as found:
        return found
    raise AssertionError("nothing was raised")


def engine() -> HfEngine:
    return HfEngine()


#: Lines of llama.cpp's log.
LLAMA_CPP = (
    "ggml_aligned_malloc: insufficient memory (attempted to allocate 256.00 MB)",
    "ggml_malloc: failed to allocate  12.00 MB",
    "llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers",
    "llama_model_load: error loading model: unable to allocate CPU buffer",
    "process_ubatch: failed to allocate graph",
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9.00 MiB on device 0: cudaMalloc failed: out of memory",
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ALLOCATOR, "CUDA out of memory"),
        (MemoryError("no memory"), "no memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
        (SafetensorError("I/O error: Cannot allocate memory (os error 12)"), "Cannot allocate memory"),
        (torch.AcceleratorError("CUDA error: out of memory"), "CUDA error: out of memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "Triton Error"),
        (RuntimeError("CUDA driver error: out of memory"), "CUDA driver error"),
        *((raised(ValueError("wrapped"), ALLOCATOR, how), "CUDA out of memory") for how in ("from", "from None", "")),
        (raised(KeyError("a"), raised(ValueError("b"), ALLOCATOR, "from None"), "from"), "CUDA out of memory"),
        (compiling_fails(torch.OutOfMemoryError("CUDA out of memory, compiling")), "CUDA out of memory, compiling"),
        *((RuntimeError(said), said) for said in LLAMA_CPP),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (ValueError("CUDA error: out of memory"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (RuntimeError("Triton Error [CUDA]: out of resource: shared memory, Required: 9, Hardware limit: 1"), None),
        (raised(ValueError("wrapped"), KeyError("a"), "from"), None),
        (compiling_fails(RuntimeError("no compiler")), None),
    ],
)
def test_exceptions_that_mean_out_of_memory(error, said):
    found = engine_session.out_of_memory(engine(), error, ())
    assert (found is None) == (said is None)
    if found:
        assert said in found.message
        assert found.evidence == {}


@pytest.mark.parametrize("error", [CUBLAS, raised(ValueError("wrapped"), CUBLAS, "from")], ids=["bare", "wrapped"])
@pytest.mark.parametrize(
    ("free_bytes", "counts"), [(0, True), (2**28 - 1, True), (2**28, False), (2**36, False), (None, False)]
)
def test_a_library_that_fails_counts_only_where_next_to_nothing_is_free(monkeypatch, error, free_bytes, counts):
    monkeypatch.setattr(engine_session, "free_memory_bytes", lambda gpu: free_bytes)
    found = engine_session.out_of_memory(engine(), error, [GPU])
    assert (found and found.evidence) == ({"device_free_bytes": free_bytes} if counts else None)
    assert engine_session.out_of_memory(engine(), error, ()) is None


def test_exceptions_that_lead_back_to_themselves_end():
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    assert engine_session.out_of_memory(engine(), first, ()) is None


@pytest.mark.parametrize(("free_bytes", "outcome"), [(10**8, "oom"), (10**9, None)])
def test_a_cell_whose_library_fails_is_out_of_memory_on_a_full_gpu_only(tmp_path, free_bytes, outcome):
    cell = make_cell(device="cuda")
    environ = fake_gpus(tmp_path, memory_used_bytes=80 * 10**9 - free_bytes)
    done = measure_cli(cell, tmp_path / "r.json", **environ, FAKE_ENGINE=fault(fault="cublas"))
    if outcome is None:
        assert (done.returncode, "CUBLAS_STATUS_NOT_INITIALIZED" in done.stderr) == (1, True)
        return
    reason = read_record(tmp_path / "r.json", cell)["reason"]
    assert (reason["exception_type"], reason["phase"]) == ("RuntimeError", "warm-up")
    assert reason["evidence"] == {"device_free_bytes": free_bytes}


def test_a_cell_whose_compiler_runs_out_of_memory_names_what_was_behind_it(tmp_path):
    done = measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(fault="compile"))
    assert done.returncode == 0, done.stderr
    reason = read_record(tmp_path / "r.json")["reason"]
    assert reason["exception_type"] == "inference_benchmark.engines.fake.FakeMemoryError"


@pytest.mark.parametrize("error", [MemoryError(), None])
def test_a_yardstick_without_memory_for_it_is_left_out(error, monkeypatch):
    def yardstick(self):
        if error:
            raise error
        return {"flop": 1}

    monkeypatch.setattr(HfEngine, "yardstick", yardstick)
    sent = []
    session = engine_session.EngineSession(lambda **facts: sent.append(facts), ())
    session.engine = engine()
    session.time_yardstick("after")
    assert sent == ([] if error else [{"yardstick": {"after": {"flop": 1}}}])


def test_a_yardstick_that_fails_for_another_reason_fails_the_cell(monkeypatch):
    monkeypatch.setattr(HfEngine, "yardstick", lambda self: 1 / 0)
    session = engine_session.EngineSession(lambda **_: None, ())
    session.engine = engine()
    with pytest.raises(ZeroDivisionError):
        session.time_yardstick("after")
