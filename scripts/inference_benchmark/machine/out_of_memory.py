"""How libraries say that memory ran out, where no exception class of Python's says so."""

from __future__ import annotations

from collections.abc import Iterator

#: Parts of messages of allocators, MKL, the CUDA runtime and driver, CUDA's libraries, Triton and bitsandbytes.
_ALLOCATION_FAILED = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "mkl_malloc",
    "cuda out of memory",
    "cuda error: out of memory",
    "cuda driver error: out of memory",
    "cuda failed with error out of memory",
    "cuda_error_out_of_memory",
    "cudaerrormemoryallocation",
    "triton error [cuda]: out of memory",
    "error out of memory at line",  # bitsandbytes, which then ends the process with status 1
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "cusparse_status_alloc_failed",
)
#: Parts that stand in one such message: of OpenVINO, with the number of bytes between them, and of torch's allocator
#: where it runs out of memory and then cannot ask NVML who has it.
_TOGETHER = (("failed to allocate", "bytes of memory"), ("nvml_success ==", "cudacachingallocator.cpp"))
#: Parts of messages about a thread whose stack could not be allocated. There are other causes, such as a limit on the
#: number of threads, so these count only under a limit on the host's memory.
_NO_THREAD = (
    "can't start new thread",
    "thread creation failed",
    "pthread_create failed",
    "unable to create thread",
    "unable to start thread",
    "system error #11",  # Intel OpenMP: EAGAIN
)
#: Parts of messages of CUDA's libraries that lack memory for a handle, a workspace or a kernel. There are many other
#: causes, so these count only where next to nothing is free on the device.
_LIBRARY_FAILED = (
    *(
        f"{library}_status_{status}"
        for library in ("cublas", "cudnn", "cusolver", "cusparse")
        for status in ("not_initialized", "internal_error", "execution_failed")
    ),
    "cublaslt ran into an error",  # bitsandbytes
)
#: Less free device memory than this is next to nothing: kernels that cuBLAS loads and its workspace need more.
NEXT_TO_NOTHING_BYTES = 2**28


def line_about_memory(text: str, limited: bool) -> str | None:
    """The first line of a text that says that memory ran out; None if none does.

    limited: whether a limit on the host's memory held, so that a thread which cannot start counts too.
    """
    parts = (*_ALLOCATION_FAILED, *_NO_THREAD) if limited else _ALLOCATION_FAILED
    return next((line for line in _lines(text) if _has(line, parts) or _has_together(line)), None)


def line_about_library(text: str) -> str | None:
    """The first line of a text in which a library of CUDA fails as it does without memory; None if none does.

    It counts only where fewer than NEXT_TO_NOTHING_BYTES are free on the device.
    """
    return next((line for line in _lines(text) if _has(line, _LIBRARY_FAILED)), None)


def exceptions(error: BaseException) -> Iterator[BaseException]:
    """An exception and those behind it, from the last raised to the first.

    A context counts although it is suppressed: torch.compile raises its own exceptions ``from None``.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines())


def _has(line: str, parts: tuple[str, ...]) -> bool:
    return any(part in line.lower() for part in parts)


def _has_together(line: str) -> bool:
    return any(all(part in line.lower() for part in parts) for parts in _TOGETHER)
