"""libcublas.so.12 is loaded from its package; a made-up library of that name, and the real loader."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import REPO

from inference_benchmark.machine import cublas
from inference_benchmark.machine.torch_build import TorchBuild


@pytest.fixture
def package(tmp_path) -> Path:
    """A folder with a package nvidia-cublas-cu12, to be put on the path."""
    if not (compiler := shutil.which("gcc") or shutil.which("clang")):
        pytest.skip("no C compiler")
    library = tmp_path / "nvidia/cublas/lib/libcublas.so.12"
    library.parent.mkdir(parents=True)
    (tmp_path / "empty.c").write_text("int none;\n")
    subprocess.run(
        [compiler, "-shared", "-Wl,-soname,libcublas.so.12", "-o", library, tmp_path / "empty.c"], check=True
    )
    described = tmp_path / "nvidia_cublas_cu12-12.9.3.13.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-cublas-cu12\nVersion: 12.9.3.13\n")
    (described / "RECORD").write_text("nvidia/cublas/lib/libcublas.so.12,,\n")
    return tmp_path


def test_ctranslate2_finds_the_library_of_the_package_by_its_name(package):
    code = (
        "import ctypes, sys\n"
        "from inference_benchmark.machine import cublas\n"
        "try: ctypes.CDLL('libcublas.so.12'); sys.exit('found before')\n"
        "except OSError: pass\n"
        "cublas.load()\n"
        "ctypes.CDLL('libcublas.so.12').none\n"
    )
    path = f"{package}:{REPO / 'scripts'}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True)
    if "found before" in done.stderr:
        pytest.skip("the loader knows a libcublas.so.12 of this machine")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cuda", [None, (12, 6), (13, 0)])
def test_a_library_that_would_not_be_found_is_missing_with_the_command_that_installs_it(monkeypatch, package, cuda):
    monkeypatch.setattr(cublas, "torch_build", lambda: TorchBuild("2.13.0", cuda))
    monkeypatch.setattr(cublas, "_NAME", "libcublas.so.12.none")
    told = "there is no libcublas.so.12.none; pip install -r envs/ctranslate2-cuda.lock"
    assert cublas.missing() == (None if cuda == (12, 6) else told)
    monkeypatch.undo()
    monkeypatch.syspath_prepend(package)
    assert cublas.missing() is None
