"""Whether the installed torch can use the driver of this machine, from torch's files. Imports no torch."""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from inference_benchmark.machine import hardware


class TorchBuild(NamedTuple):
    """cuda: the version of CUDA that torch was built with, as (major, minor); None for a build without CUDA."""

    version: str
    cuda: tuple[int, int] | None


def torch_build() -> TorchBuild | None:
    """The installed torch; None without one."""
    spec = importlib.util.find_spec("torch")  # finds, and does not import
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8") if spec and spec.origin else ""
    except OSError:
        return None
    version, cuda = (re.search(rf"^{name}\b[^=]*= '([^']+)'", text, re.MULTILINE) for name in ("__version__", "cuda"))
    if version is None:
        return None
    numbers = re.match(r"(\d+)\.(\d+)", cuda[1]) if cuda else None
    return TorchBuild(version[1], (int(numbers[1]), int(numbers[2])) if numbers else None)


def problem(build: TorchBuild | None) -> str | None:
    """Why a build of torch cannot use the GPUs of this machine; None if nothing speaks against it. A driver runs
    programs of its own major version of CUDA or an older one (CUDA Compatibility, "Minor Version Compatibility")."""
    driver_cuda = hardware.driver_cuda_version()
    if build is None:  # what measures is not installed here, or says so itself
        return None
    if build.cuda is None:
        return f"torch {build.version} is built without CUDA; install a build with CUDA, or set device to cpu"
    if driver_cuda is None or driver_cuda[0] >= build.cuda[0]:
        return None
    knows = f"the driver {hardware.driver_version()} knows CUDA up to {driver_cuda[0]}.{driver_cuda[1]}"
    needs = f"torch {build.version} is built with CUDA {build.cuda[0]}.{build.cuda[1]}"
    index, release = "https://download.pytorch.org/whl/cu126", build.version.partition("+")[0]
    fitting = f", or pip install torch=={release}+cu126 --extra-index-url {index}" if driver_cuda[0] == 12 else ""
    return f"{knows}, and {needs}; update the driver{fitting}"
