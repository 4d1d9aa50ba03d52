"""The fake pynvml behaves like the real one."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_machine import FAKE, load_fake
from running import REPO


def test_the_fake_has_the_names_and_values_of_the_real_pynvml():
    real, fake = importlib.import_module("pynvml"), load_fake()
    assert Path(real.__file__) != FAKE
    for name, value in vars(fake).items():
        if name.startswith(("NVML_", "nvmlClocks")):
            assert getattr(real, name) == value, name
        elif name.startswith("nvml"):
            assert list(inspect.signature(getattr(real, name)).parameters) == list(
                inspect.signature(value).parameters
            ), name
        elif name.startswith("NVMLError_"):
            assert issubclass(getattr(real, name), real.NVMLError)
    for code in fake._MESSAGES:
        assert type(real.NVMLError(code)).__name__ == type(fake.NVMLError(code)).__name__
        assert str(real.NVMLError(code)) == str(fake.NVMLError(code))


@pytest.mark.parametrize(("environ", "uuid"), [({"FAKE_NVML": '{"gpus": [{"uuid": "GPU-a"}]}'}, "GPU-a"), ({}, "none")])
def test_a_subprocess_lists_the_fake_gpus_and_imports_no_torch(environ, uuid):
    code = (
        "import sys; from inference_benchmark.machine import conditions, energy, hardware\n"
        "gpus = hardware.gpus()\n"
        "print(gpus[0].uuid if gpus else 'none', hardware.driver_version(), 'torch' in sys.modules)"
    )
    path = os.pathsep.join([str(FAKE.parent), str(REPO / "scripts")])
    inherited = {name: value for name, value in os.environ.items() if name != "FAKE_NVML"}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**inherited, "PYTHONPATH": path, **environ}
    )
    assert process.stdout == f"{uuid} 570.00 False\n", process.stderr
