"""Exceptions by which a library shows that it cannot do what is asked of it. Imports no library."""

from __future__ import annotations

#: What the code of a library raises for a model, precision or cache that it was not written for.
_KINDS = (AttributeError, TypeError, ValueError, KeyError, NotImplementedError, AssertionError, RuntimeError)
#: Words of exceptions of these kinds that are about the GPU, the compiler on this machine, or the checkpoint's files.
_OF_SOMETHING_ELSE = (
    "CUDA error",
    "CUDA failed",
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
    "CppCompileError",
    "InvalidCxxCompiler",
    "ignore_mismatched_sizes",
)
_OURS = __name__.partition(".")[0]


class UnsupportedError(Exception):
    """A library cannot do what is asked of it; the message is in its words."""


def is_refusal(error: BaseException) -> bool:
    """Whether a library raised an exception because it cannot do what is asked of it.

    It was raised in code of the library, not of this program, and its kind is that of a fault in code. Files, network,
    missing packages and the GPU have other kinds.
    """
    if isinstance(error, UnsupportedError):
        return True
    if not isinstance(error, _KINDS) or any(words in str(error) for words in _OF_SOMETHING_ELSE):
        return False
    traceback, module = error.__traceback__, _OURS
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__") or ""
        traceback = traceback.tb_next
    return module.partition(".")[0] not in (_OURS, "__main__")


def words_of(error: BaseException) -> str:
    """An exception in one line, as the library words it."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UnsupportedError) else f"{type(error).__name__}: {text}"
