"""Messages by which libraries report that memory ran out, where the class of the exception does not show it."""

import re
from collections.abc import Iterator

#: Messages of allocators, MKL, the CUDA runtime and driver, CUDA's libraries, Triton, OpenVINO, bitsandbytes and
#: llama.cpp.
_ALLOCATION_FAILED = (
    "can(no|')t allocate memory",
    r"failed to allocate (memory|graph|.*(bytes|\bmi?b|buffers?)\b)",
    r"unable to allocate \S+ buffer",
    "(not enough|insufficient) memory",
    "std::bad_alloc",
    "mkl_malloc",
    "cuda out of memory",
    "cuda (driver )?error: out of memory",
    "cuda failed with error out of memory",
    "cuda_error_out_of_memory",
    "cudaerrormemoryallocation",
    "cudamalloc failed: out of memory",
    r"triton error \[cuda\]: out of memory",
    "error out of memory at line",  # bitsandbytes, which then ends the process with status 1
    "(cublas|cudnn|cusolver|cusparse)_status_alloc_failed",
    r"nvml_success ==.*cudacachingallocator\.cpp",  # torch's allocator, out of memory and unable to ask NVML who has it
)
#: Messages about a thread whose stack could not be allocated. There are other causes, such as a limit on the number of
#: threads, so these count only under a limit on the host's memory.
_NO_THREAD = (
    "can't start new thread",
    "thread creation failed",
    "pthread_create failed",
    "unable to (create|start) thread",
    "system error #11",  # Intel OpenMP: EAGAIN
    "^resource temporarily unavailable$",  # std::thread, as in gloo
)
#: Messages of CUDA's libraries that lack memory for a handle, a workspace or a kernel. There are many other causes, so
#: these count only if almost no memory is free on the device.
_LIBRARY_FAILED = (
    "(cublas|cudnn|cusolver|cusparse)_status_(not_initialized|internal_error|execution_failed)",
    "cublaslt ran into an error",  # bitsandbytes
)
#: Almost no free device memory is less than this: kernels that cuBLAS loads and its workspace need more.
ALMOST_NOTHING_BYTES = 2**28


def line_about_memory(text: str, limited: bool) -> str | None:
    """The first line of a text that reports that memory ran out; None if there is none.
    limited: whether the host's memory was limited, so that a thread that cannot start counts too."""
    return _first_line(text, (*_ALLOCATION_FAILED, *_NO_THREAD) if limited else _ALLOCATION_FAILED)


def line_about_library(text: str) -> str | None:
    """The first line of a text in which a library of CUDA fails as it does without memory; None if there is none."""
    return _first_line(text, _LIBRARY_FAILED)


def _first_line(text: str, patterns: tuple[str, ...]) -> str | None:
    pattern = re.compile("|".join(patterns), re.IGNORECASE)
    return next((line.strip() for line in text.splitlines() if pattern.search(line)), None)


def exceptions(error: BaseException) -> Iterator[BaseException]:
    """An exception and those behind it, from the last raised to the first.
    A context counts although it is suppressed: torch.compile raises its own exceptions ``from None``."""
    seen, each = set(), error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__
