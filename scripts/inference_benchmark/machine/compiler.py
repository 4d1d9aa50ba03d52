"""What has to be on the machine to compile a model or kernels: compilers, and the header files of Python."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

#: Per device: name of the compiler, variable that names another one, its commands, and the package that has it. On CUDA
#: Triton compiles its access to the driver (triton/runtime/build.py), on the CPU torch compiles the graphs themselves
#: (torch/_inductor/cpp_builder.py).
_COMPILERS = {
    "cuda": ("C compiler", "CC", ("gcc", "clang"), "gcc"),
    "cpu": ("C++ compiler", "CXX", ("clang++",) if sys.platform == "darwin" else ("g++",), "g++"),
}


def missing(device: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """What torch needs to compile for a device and is not installed, and what to install; None if it has all."""
    name, variable, commands, package = _COMPILERS[device]
    description = " or ".join(commands)
    if variable in environ:
        commands, description = (environ[variable],), f"{variable}={environ[variable]}"
    headers = Path(sysconfig.get_path("include", "posix_prefix"))
    lacking = {}
    if not any(shutil.which(command, path=environ.get("PATH")) for command in commands):
        lacking[f"{name} ({description})"] = package
    if not (headers / "Python.h").exists():
        lacking[f"Python.h in {headers}"] = "python3-dev"
    if not lacking:
        return None
    return f"there is no {' and no '.join(lacking)}; install {' and '.join(lacking.values())}"


def missing_nvcc(environ: Mapping[str, str] = os.environ) -> str | None:
    """Why torch cannot build the CUDA kernels of a package here, and what to install; None if it can. It looks for nvcc
    as torch/utils/cpp_extension.py does."""
    home = environ.get("CUDA_HOME") or environ.get("CUDA_PATH")
    folders = (f"{home}/bin",) if home else (environ.get("PATH", os.defpath), "/usr/local/cuda/bin")
    if shutil.which("nvcc", path=os.pathsep.join(folders)):
        return None
    where = f" in {home}/bin" if home else ""
    return f"there is no nvcc{where}; install the CUDA toolkit of torch's version of CUDA"
