"""How libraries say that memory ran out, where no exception class of Python's says so."""

from __future__ import annotations

#: Parts of messages of allocators, cuBLAS, MKL and the CUDA runtime.
_ALLOCATION_FAILED = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "mkl_malloc",
    "cuda out of memory",
    "cuda error: out of memory",
    "cuda failed with error out of memory",
    "cublas_status_alloc_failed",
    "cudaerrormemoryallocation",
)
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


def line_about_memory(text: str, limited: bool) -> str | None:
    """The first line of a text that says that memory ran out; None if none does.

    limited: whether a limit on the host's memory held, so that a thread which cannot start counts too.
    """
    parts = (*_ALLOCATION_FAILED, *_NO_THREAD) if limited else _ALLOCATION_FAILED
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if any(part in line.lower() for part in parts)), None)
