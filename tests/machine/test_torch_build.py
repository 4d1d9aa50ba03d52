"""Whether torch and the driver fit each other; torch's real files, a made-up driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import REPO

from inference_benchmark.machine import torch_build
from inference_benchmark.machine.torch_build import TorchBuild


@pytest.mark.parametrize(
    ("driver", "index", "status"),
    [("550.54.15", "", 1), ("550.54.15", "https://x", 0), ("580.65.06", "", 0), ("Failed to initialize NVML", "", 0)],
)
def test_make_says_which_torch_an_old_driver_can_use_before_it_installs(tmp_path, driver, index, status):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{driver}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PIP_EXTRA_INDEX_URL": index}
    command = ["make", f"VENV={tmp_path}/.venv", "PYTHON=true", "--dry-run", "setup"]
    planned = subprocess.run(command, cwd=REPO, env=environ, capture_output=True, text=True).stdout
    assert planned.index("sh envs/check-driver.sh") < planned.index("pip install")
    done = subprocess.run(["sh", "envs/check-driver.sh"], cwd=REPO, env=environ, capture_output=True, text=True)
    assert done.returncode == status
    assert ("export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu126" in done.stderr) == bool(status)


def installed(folder: Path, monkeypatch, text: str) -> None:
    """A torch that cannot be imported, with this version.py."""
    (folder / "torch").mkdir()
    (folder / "torch/__init__.py").write_text("raise ImportError('must not be imported')")
    (folder / "torch/version.py").write_text(text)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(folder)


def version_py(cuda: str) -> str:
    return f"from typing import Optional\n\n__version__ = '2.13.0'\ndebug = False\ncuda: Optional[str] = {cuda}\n"


def test_the_build_of_the_installed_torch_is_read_without_importing_it():
    cuda = tuple(map(int, torch.version.cuda.split(".")[:2])) if torch.version.cuda else None
    assert torch_build.torch_build() == TorchBuild(torch.__version__, cuda)
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from inference_benchmark.machine import torch_build; torch_build.torch_build()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize(
    ("cuda", "driver", "said"),
    [
        ("'12.8'", 12080, None),
        ("'12.8'", 12020, None),  # minor versions are compatible
        ("'12.8'", 13000, None),
        ("'12.8'", 11040, "the driver 470.57 knows CUDA up to 11.4, and torch 2.13.0 is built with CUDA 12.8; update the driver"),
        (
            "'13.0'", 12090,
            "; update the driver, or pip install torch==2.13.0+cu126 --extra-index-url https://download.pytorch.org/whl/cu126",
        ),
        ("None", 12080, "torch 2.13.0 is built without CUDA"),
    ],
)  # fmt: skip
def test_a_driver_older_than_torchs_cuda_is_one_line(tmp_path, monkeypatch, nvml, cuda, driver, said):
    installed(tmp_path, monkeypatch, version_py(cuda))
    nvml.show(cuda_driver_version=driver, driver="470.57")
    problem = torch_build.problem(torch_build.torch_build())
    assert (problem is None) == (said is None)
    if said:
        assert said in problem
        assert "\n" not in problem


@pytest.mark.parametrize("text", ["", "__version__ = 3\n"])
def test_a_torch_that_does_not_tell_is_no_problem(tmp_path, monkeypatch, nvml, text):
    installed(tmp_path, monkeypatch, text)
    assert torch_build.problem(torch_build.torch_build()) is None


def test_a_driver_that_does_not_tell_is_no_problem(tmp_path, monkeypatch, nvml):
    installed(tmp_path, monkeypatch, version_py("'12.8'"))
    nvml.show(init_fails=True)
    assert torch_build.problem(torch_build.torch_build()) is None
