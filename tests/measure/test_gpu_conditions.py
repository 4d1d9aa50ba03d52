"""The GPU is sampled while a cell is measured; made-up devices, real processes."""

from __future__ import annotations

import json

import pytest
from made_up import make_cell, measurement
from running import fake_gpus, fault, flag_names, measure_cli, read_record

from inference_benchmark.experiment.studies import CeilingsStudy


def test_cuda_without_a_gpu_is_one_clear_line(tmp_path):
    hidden = fake_gpus(tmp_path, 2) | {"CUDA_VISIBLE_DEVICES": "7"}
    done = measure_cli(make_cell(device="cuda"), tmp_path / "r.json", **hidden)
    assert (done.returncode, "(NVML lists 2, CUDA_VISIBLE_DEVICES is 7)" in done.stderr) == (1, True)
    missing = fake_gpus(tmp_path, 0) | {"CUDA_VISIBLE_DEVICES": "", "FAKE_NVML": '{"init_fails": true}'}
    done = measure_cli(make_cell(device="cuda"), tmp_path / "r.json", **missing)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "measure.py: the cell asks for cuda and no GPU is visible here (NVML lists 0, CUDA_VISIBLE_DEVICES is empty)"
    )


def measure_on_fake_gpu(tmp_path, options: tuple[str, ...] = (), **gpu):
    """A cell of half a second on a made-up GPU with these properties: (process, record or None)."""
    environ = fake_gpus(tmp_path, 1, **gpu) | {"FAKE_ENGINE": fault(sleep_s=0.05, real_clock=True)}
    environ["FAKE_NVML"] = json.dumps(json.loads(environ["FAKE_NVML"]) | gpu.get("nvml", {}))
    cell = make_cell(device="cuda", measurement=measurement(min_seconds=0.5, max_seconds=0.5))
    done = measure_cli(cell, tmp_path / "r.json", options=options, **environ)
    return done, read_record(tmp_path / "r.json", cell) if done.returncode == 0 else None


def test_a_gpu_is_looked_at_while_it_is_timed_and_its_energy_counted(tmp_path):
    done, record = measure_on_fake_gpu(tmp_path, options=("--sample-hz", "100"), power_w=300)
    assert done.returncode == 0, done.stderr
    (run,) = record["runs"]
    assert run["conditions"]["n_samples"] >= 5
    assert {"gpu_sm_clock_hz", "gpu_temperature_c", "gpu_power_w"} <= set(run["conditions"]["gauges"])
    assert flag_names(record) == set()
    energy = run["energy"]
    assert (energy["source"], energy["scope"]) == ("nvml", "GPU board")
    assert energy["joules"] == pytest.approx(300 * energy["seconds"], abs=2 * energy["resolution_j"])
    assert energy["seconds"] == pytest.approx(sum(run["samples_s"]), rel=0.5)
    assert record["device"]["name"] == "NVIDIA Fake A"


@pytest.mark.parametrize(
    ("gpu", "flag"),
    [
        ({"throttle": ["sw_power_cap"]}, "gpu-throttled-power"),
        ({"throttle": ["hw_thermal_slowdown"]}, "gpu-throttled-thermal"),
    ],
)
def test_a_gpu_that_is_slowed_is_flagged(tmp_path, gpu, flag):
    _, record = measure_on_fake_gpu(tmp_path, **gpu)
    assert flag_names(record) == {flag}


def test_a_gpu_that_others_use_is_flagged_or_refused(tmp_path):
    others = [[1, 10**9], [2, 2 * 10**9]]
    done, record = measure_on_fake_gpu(tmp_path, processes=others)
    assert flag_names(record) == {"gpu-busy-at-start", "gpu-shared"}
    assert "GPU GPU-0000 is in use: 2 processes hold 3 GB" in done.stderr
    (tmp_path / "r.json").unlink()
    done, record = measure_on_fake_gpu(tmp_path, options=("--exclusive", "fail"), processes=others)
    assert (done.returncode, record) == (1, None)
    assert "GPU GPU-0000 is in use: 2 processes hold 3 GB" in done.stderr
    assert "wait, or set watch.exclusive: warn" in done.stderr


def test_nvml_that_fails_midway_takes_nothing_but_what_it_would_have_told(tmp_path):
    done, record = measure_on_fake_gpu(tmp_path, nvml={"fail_after": 12})
    assert done.returncode == 0, done.stderr
    assert flag_names(record) >= {"conditions-unknown"}
    assert record["outcome"] == "ok"
    assert record["runs"][0]["conditions"]["errors"]


def test_a_gpu_without_a_counter_has_no_energy(tmp_path):
    _, record = measure_on_fake_gpu(tmp_path, nvml={"unsupported": ["energy"]})
    assert record["runs"][0]["energy"] is None
    assert flag_names(record) == set()


@pytest.mark.parametrize(
    ("gpu", "environ", "said"),
    [
        ({"mig": True}, {}, "GPU 0 (NVIDIA Fake A, GPU-0000) is divided into parts (MIG)"),
        ({}, {"CUDA_VISIBLE_DEVICES": "MIG-6f3a"}, "CUDA_VISIBLE_DEVICES names MIG-6f3a, a part of a GPU (MIG)"),
        ({"nvml": {"lost": 15}}, {}, "GPU 0 does not answer: GPU is lost"),
        ({"nvml": {"init_fails": 18}}, {}, "the NVIDIA driver does not work: RM has detected an NVML/RM version"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_one_line(tmp_path, gpu, environ, said):
    nvml = gpu.pop("nvml", {})
    gpus = fake_gpus(tmp_path, 1, **gpu)
    gpus["FAKE_NVML"] = json.dumps(json.loads(gpus["FAKE_NVML"]) | nvml)
    done = measure_cli(make_cell(device="cuda"), tmp_path / "r.json", **gpus, **environ)
    assert done.returncode == 1
    assert done.stderr.startswith(f"measure.py: {said}")
    assert done.stderr.count("\n") == 1


def test_a_torch_that_cannot_use_the_gpu_is_told_before_a_worker_starts(tmp_path):
    (tmp_path / "path/torch").mkdir(parents=True)
    (tmp_path / "path/torch/__init__.py").write_text("raise ImportError('must not be imported')")
    (tmp_path / "path/torch/version.py").write_text("__version__ = '9.0'\ncuda: Optional[str] = '13.0'\n")
    environ = fake_gpus(tmp_path)
    environ["PYTHONPATH"] = f"{tmp_path}/path:{environ['PYTHONPATH']}"
    done = measure_cli(CeilingsStudy("box", "cuda", None), tmp_path / "r.json", **environ)
    assert done.returncode == 1
    assert done.stderr.startswith("measure.py: the driver 570.00 knows CUDA up to 12.8, and torch 9.0")
