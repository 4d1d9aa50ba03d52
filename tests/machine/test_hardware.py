"""GPUs, CPU name and machine label."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest

from inference_benchmark.machine import hardware

GPUS = [hardware.Gpu(i, f"GPU-{i}abc", f"NVIDIA Test {i}", 80 * 10**9) for i in range(3)]


@pytest.mark.parametrize(
    ("value", "indices"),
    [(None, [0, 1, 2]), ("", []), ("-1", []), ("2,0", [2, 0]), ("GPU-1", [1]), ("0,9,1", [0]), ("GPU-", []), ("1,1", [1]), ("NoDevFiles", [])],
)  # fmt: skip
def test_visible_gpus_are_those_cuda_would_show(value, indices):
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert [gpu.index for gpu in hardware.visible(GPUS, environ)] == indices


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("MIG-6f3a", "CUDA_VISIBLE_DEVICES names MIG-6f3a, a part of a GPU (MIG)"),
        ("0,MIG-GPU-0abc/1/0", "CUDA_VISIBLE_DEVICES names MIG-GPU-0abc/1/0, a part of a GPU (MIG)"),
        ("2", "GPU 2 (NVIDIA Test 2, GPU-2abc) is divided into parts (MIG)"),
        (None, "GPU 2 (NVIDIA Test 2, GPU-2abc) is divided into parts (MIG)"),
        ("7", "CUDA_VISIBLE_DEVICES is '7' and names none of the 3 GPUs here"),
        ("GPU-x", "CUDA_VISIBLE_DEVICES is 'GPU-x' and names none of the 3 GPUs here"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_named_and_never_a_cpu(monkeypatch, value, said):
    monkeypatch.setattr(hardware, "gpus", lambda: [*GPUS[:2], replace(GPUS[2], mig=True)])
    with pytest.raises(hardware.GpuError, match=re.escape(said)):
        hardware.detect_device({} if value is None else {"CUDA_VISIBLE_DEVICES": value})


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "none"])
def test_gpus_that_are_hidden_on_purpose_leave_the_cpu(monkeypatch, value):
    monkeypatch.setattr(hardware, "gpus", lambda: GPUS)
    assert hardware.detect_device({"CUDA_VISIBLE_DEVICES": value}) == "cpu"


def test_a_gpu_in_parts_that_is_not_visible_does_not_matter(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: [*GPUS[:2], replace(GPUS[2], mig=True)])
    assert hardware.detect_device({"CUDA_VISIBLE_DEVICES": "0,1"}) == "cuda"


@pytest.mark.parametrize(
    ("gpu", "settings", "said"),
    [
        ({}, {"init_fails": 18}, "the NVIDIA driver does not work: RM has detected an NVML/RM version mismatch."),
        ({}, {"init_fails": 4}, "the NVIDIA driver does not work: Insufficient Permissions"),
        ({}, {"lost": 15}, "GPU 0 does not answer: GPU is lost"),
        ({}, {"unsupported": ["memory"]}, "GPU 0 does not answer: Not Supported"),
        ({"mig": True}, {}, "is divided into parts (MIG)"),
    ],
)
def test_errors_of_nvml_in_discovery_are_one_line(nvml, gpu, settings, said):
    nvml.show(gpu, **settings)
    with pytest.raises(hardware.GpuError, match=re.escape(said)) as caught:
        hardware.detect_device({})
    assert "\n" not in str(caught.value)
    assert nvml.module._n_inits == 0


REFUSED = {"uuid": "GPU-x", "refused": True}


@pytest.mark.parametrize(
    ("value", "uuids"),
    [(None, ["GPU-b", "GPU-d"]), ("0", ["GPU-b"]), ("1", ["GPU-d"]), ("0,1", ["GPU-b", "GPU-d"]), ("GPU-d", ["GPU-d"]), ("3", [])],
)  # fmt: skip
def test_gpus_that_slurm_keeps_for_other_jobs_are_not_counted(nvml, value, uuids):
    """With ConstrainDevices, NVML refuses them, and CUDA_VISIBLE_DEVICES numbers those of the job from 0."""
    nvml.show(gpus=[REFUSED, {"uuid": "GPU-b"}, REFUSED, {"uuid": "GPU-d"}])
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert [gpu.uuid for gpu in hardware.visible(hardware.gpus(), environ)] == uuids
    assert [gpu.index for gpu in hardware.gpus()] == [0, 1]


def test_a_process_that_may_use_none_of_the_gpus_is_told_so(nvml):
    nvml.show(gpus=[REFUSED, REFUSED])
    with pytest.raises(hardware.GpuError, match="this process may not use any of the 2 GPUs here; request one"):
        hardware.detect_device({})
    assert hardware.detect_device({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}) == "cpu"


@pytest.mark.parametrize("code", [9, 12], ids=["no driver loaded", "no NVML"])
def test_a_machine_without_a_driver_has_no_gpu(nvml, code):
    nvml.show(init_fails=code)
    assert (hardware.gpus(), hardware.detect_device({}), hardware.driver_version()) == ([], "cpu", None)


@pytest.mark.parametrize("settings", [{"init_fails": 18}, {"lost": 15}, {"unsupported": ["memory"]}])
def test_free_memory_that_nvml_does_not_tell_is_unknown(nvml, settings):
    gpu = hardware.Gpu(0, "GPU-a", "NVIDIA Fake A", 80 * 2**30)
    nvml.show({"memory_used_bytes": 79 * 2**30})
    assert hardware.free_memory_bytes(gpu) == 2**30
    nvml.show(**({"gpus": []} if "lost" in settings else settings))
    assert hardware.free_memory_bytes(gpu) is None


def test_without_nvidia_ml_py_free_memory_is_unknown_and_no_gpu_is_taken_for_a_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert hardware.free_memory_bytes(GPUS[0]) is None
    with pytest.raises(ModuleNotFoundError):
        hardware.detect_device({})


def test_device_and_label_depend_on_the_visible_gpus(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: GPUS)
    assert hardware.detect_device({}) == "cuda"
    assert hardware.label("cuda", {"CUDA_VISIBLE_DEVICES": "1"}) == "nvidia-test-1"
    assert hardware.detect_device({"CUDA_VISIBLE_DEVICES": ""}) == "cpu"


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA H200", "nvidia-h200"),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm4-80gb"),
        ("Intel(R) Xeon(R) CPU E5-2670 v3 @ 2.30GHz", "intel-xeon-e5-2670-v3"),
        ("AMD EPYC 7B13 64-Core Processor", "amd-epyc-7b13"),
        ("../<script>", "script"),
        ("@", "unknown"),
    ],
)
def test_labels_are_slugs(name, slug):
    assert hardware.slug(name) == slug


@pytest.mark.parametrize(
    ("cpuinfo", "label"),
    [
        ("cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7B13\n", "amd-epyc-7b13"),
        ("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n", "amd-epyc-family-25-model-17-N-cpus"),
        ("cpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R) Processor @ 2.10GHz\n", "intel-xeon-family-6-model-143-N-cpus"),
        ("BogoMIPS\t: 50\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n", "aarch64-implementer-0x41-part-0xd40-N-cpus"),
    ],
)  # fmt: skip
def test_a_cpu_whose_name_has_no_number_is_told_by_family_and_number_of_cpus(cpuinfo, label, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware.platform, "machine", lambda: "aarch64")
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert hardware.cpu_label(tmp_path / "cpuinfo") == label.replace("N", str(hardware.usable_cpus()))


def test_cpu_name_is_read_from_cpuinfo(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU 3000\nmodel name\t: other\n")
    assert hardware.cpu_name(tmp_path / "cpuinfo") == "Some CPU 3000"
    (tmp_path / "arm").write_text("processor\t: 0\nBogoMIPS\t: 50\n")
    assert hardware.cpu_name(tmp_path / "arm") != ""


@pytest.mark.parametrize(
    ("quota_cpus", "threads"), [(None, 4), (8.0, 4), (4.0, 4), (2.9, 2), (1.0, 1), (0.5, 1), (0.001, 1)]
)
def test_default_threads_are_what_affinity_and_quota_both_allow(monkeypatch, quota_cpus, threads):
    monkeypatch.setattr(hardware, "usable_cpu_ids", lambda: [0, 2, 4, 6])
    monkeypatch.setattr(hardware.cgroups, "cpu_limit", lambda: quota_cpus)
    assert hardware.default_threads() == threads
