"""libcublas.so.12, which CTranslate2 opens by this name; torch with CUDA 13 brings another. Imports no torch."""

import ctypes
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from inference_benchmark.machine.torch_build import torch_build

_NAME, _PACKAGE, _LOCK = "libcublas.so.12", "nvidia-cublas-cu12", "envs/ctranslate2-cuda.lock"


def load() -> None:
    """Load the library of the package, if there is one: the loader does not look into packages, but a library that is
    loaded already is found by its name. That of CUDA 13 may be in the same process: all symbols have versions."""
    if path := _in_package():
        ctypes.CDLL(str(path))


def missing() -> str | None:
    """Why CTranslate2 would not find the library here, and what to install; None if it would."""
    build = torch_build()
    if _in_package() or (build and build.cuda and build.cuda[0] == 12):
        return None
    try:
        ctypes.CDLL(_NAME)
    except OSError:
        return f"there is no {_NAME}; pip install -r {_LOCK}"
    return None


def _in_package() -> Path | None:
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files(_PACKAGE) or ():
            if file.name == _NAME:
                return Path(file.locate())
    return None
