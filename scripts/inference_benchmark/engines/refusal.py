"""Exceptions that mean that a library cannot do what is asked of it. Imports no library."""

#: What libraries raise for a model, precision or cache that they were not written for.
_KINDS = (AttributeError, TypeError, ValueError, KeyError, NotImplementedError, AssertionError, RuntimeError)
#: In messages of such exceptions about the GPU or the compiler on this machine.
_OTHER_CAUSES = ("CUDA error", "CUDA failed", "CUBLAS_STATUS", "CUDNN_STATUS", "CppCompileError", "InvalidCxxCompiler")
_OURS = __name__.partition(".")[0]


class UnsupportedError(Exception):
    """A library cannot do what is asked of it; the message is in its words."""


def is_refusal(error: BaseException) -> bool:
    """Whether an exception means that a library cannot do what is asked of it: it was raised by the library's own code,
    and is not about files, network, missing packages or the GPU."""
    if isinstance(error, UnsupportedError):
        return True
    if not isinstance(error, _KINDS) or any(words in str(error) for words in _OTHER_CAUSES):
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
