"""What has to be on the machine to compile a model or kernels: compilers, and the header files of Python."""

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
    headers = Path(sysconfig.get_path("include", "posix_prefix"))
    lacking = _missing_compiler(device, environ)
    if not (headers / "Python.h").exists():
        lacking[f"Python.h in {headers}"] = "python3-dev"
    return _in_words(lacking)


def missing_to_build(environ: Mapping[str, str] = os.environ) -> str | None:
    """What pip needs to compile a package in C++ and is not installed, and what to install; None if it has all."""
    return _in_words(_missing_compiler("cpu", environ))


def _missing_compiler(device: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The compiler for a device with the package that has it; nothing if it is installed."""
    name, variable, commands, package = _COMPILERS[device]
    description = " or ".join(commands)
    if variable in environ:
        commands, description = (environ[variable],), f"{variable}={environ[variable]}"
    is_there = any(shutil.which(command, path=environ.get("PATH")) for command in commands)
    return {} if is_there else {f"{name} ({description})": package}


def _in_words(lacking: Mapping[str, str]) -> str | None:
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


def missing_to_build_llama_cpp(environ: Mapping[str, str] = os.environ) -> str | None:
    """Why pip would not build llama-cpp-python for CUDA here, and what to do; None if it would."""
    if "GGML_CUDA" not in environ.get("CMAKE_ARGS", ""):
        return "pip builds llama-cpp-python without CUDA; set CMAKE_ARGS=-DGGML_CUDA=on"
    return missing_nvcc(environ)
