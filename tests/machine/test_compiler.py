"""What torch needs to compile is looked for as torch and Triton look for it."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from inference_benchmark.machine.compiler import (
    missing,
    missing_nvcc,
    missing_to_build,
    missing_to_build_llama_cpp,
)


@pytest.fixture
def command(tmp_path):
    """Makes an executable file of a name in an empty folder, and returns the folder."""

    def make(*names: str) -> str:
        for name in names:
            (tmp_path / name).touch(mode=0o755)
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    ("device", "installed", "variables", "lacking"),
    [
        ("cuda", ["gcc"], {}, None),
        ("cuda", ["clang"], {}, None),
        ("cuda", ["g++"], {}, "there is no C compiler (gcc or clang); install gcc"),
        ("cuda", ["gcc"], {"CC": "icc"}, "there is no C compiler (CC=icc); install gcc"),
        ("cuda", ["icc"], {"CC": "icc"}, None),
        ("cpu", ["g++"], {}, None),
        ("cpu", ["gcc"], {"CC": "gcc"}, "there is no C++ compiler (g++); install g++"),
        ("cpu", ["icpx"], {"CXX": "icpx"}, None),
    ],
)
def test_the_compiler(command, device, installed, variables, lacking):
    assert missing(device, {"PATH": command(*installed), **variables}) == lacking


@pytest.mark.parametrize(
    ("installed", "lacking"),
    [
        (["gcc"], "there is no Python.h in {headers}; install python3-dev"),
        ([], "there is no C compiler (gcc or clang) and no Python.h in {headers}; install gcc and python3-dev"),
    ],
)
def test_the_headers_of_python(monkeypatch, tmp_path, command, installed, lacking):
    assert (Path(sysconfig.get_path("include", "posix_prefix")) / "Python.h").exists()
    headers = tmp_path / "include"
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme: str(headers))
    assert missing("cuda", {"PATH": command(*installed)}) == lacking.format(headers=headers)


@pytest.mark.parametrize(
    ("installed", "variables", "lacking"),
    [
        (["nvcc"], {}, None),
        (["bin/nvcc"], {"CUDA_HOME": "{here}"}, None),
        (["bin/nvcc"], {"CUDA_PATH": "{here}"}, None),
        ([], {}, "there is no nvcc; install the CUDA toolkit of torch's version of CUDA"),
        (
            ["nvcc"],
            {"CUDA_HOME": "/x"},
            "there is no nvcc in /x/bin; install the CUDA toolkit of torch's version of CUDA",
        ),
    ],
)
def test_nvcc(tmp_path, command, installed, variables, lacking):
    (tmp_path / "bin").mkdir()
    here = command(*installed)
    environ = {name: value.format(here=here) for name, value in variables.items()}
    if not environ and lacking and Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("this machine has a CUDA toolkit where it is looked for at last")
    assert missing_nvcc({"PATH": here, **environ}) == lacking


def test_what_pip_compiles_takes_a_compiler_and_for_cuda_nvcc_and_a_setting(command):
    assert missing_to_build({"PATH": command()}) == "there is no C++ compiler (g++); install g++"
    assert missing_to_build({"PATH": command("g++")}) is None
    for_cuda = {"PATH": command("nvcc"), "CMAKE_ARGS": "-DGGML_CUDA=on"}
    assert missing_to_build_llama_cpp(for_cuda) is None
    assert missing_to_build_llama_cpp(for_cuda | {"CUDA_HOME": "/x"}) == missing_nvcc({"CUDA_HOME": "/x"})
    without = "pip builds llama-cpp-python without CUDA; set CMAKE_ARGS=-DGGML_CUDA=on"
    assert missing_to_build_llama_cpp(for_cuda | {"CMAKE_ARGS": "-DGGML_NATIVE=off"}) == without
