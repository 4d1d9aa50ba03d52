"""scripts/measure.py as the rule runs it: outcomes, faults, and what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import MEASUREMENT, REPO, fake_gpus, inside, make_cell, measure_cli
from inference_benchmark.measure.session import MeasurementError, classify
from inference_benchmark.measure.worker_process import Story
from inference_benchmark.records import record
from inference_benchmark.worker import __main__ as worker

ORIGIN = {"host": {"memory_limit": None, "memory_bytes": 10**9}, "device": {"memory_bytes": 8 * 10**10}}


def fault(**behaviour) -> str:
    return json.dumps(behaviour)


def worker_of(parent: subprocess.Popen) -> int:
    """The pid of the worker of a running measure.py, once it is there."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    for _ in range(200):
        for pid in children.read_text().split():
            if b"inference_benchmark.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        time.sleep(0.05)
    raise AssertionError("no worker was started")


def start_slow(output: Path, sleep_s: float = 30.0) -> subprocess.Popen:
    command = [
        sys.executable,
        str(REPO / "scripts/measure.py"),
        "--cell",
        make_cell().to_json(),
        "--output",
        str(output),
    ]
    environ = {**os.environ, "FAKE_ENGINE": fault(sleep_s=sleep_s)}
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_measured_cell_leaves_samples_and_provenance(tmp_path):
    cell = make_cell()
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    found = record.load_for(cell, tmp_path / "r.json")
    (run,) = found["runs"]
    # The fake engine's clock: 0.002 s x 8 tokens x (1 + 2/64).
    assert run["samples_s"] == pytest.approx([0.0165] * 3, abs=1e-12)
    assert run["first_token_s"] == pytest.approx([0.0165 / 8] * 3, abs=1e-12)
    assert run["warmup_s"] == pytest.approx([0.0165] * 2)
    assert found["stability"] == {"stable": True, "reasons": [], "outliers": None, "drift": None}
    assert run["conditions"]["n_samples"] >= 2
    assert run["conditions"]["usable_cpus"] == found["host"]["usable_cpus"]
    assert found["environment"]["OMP_NUM_THREADS"] == str(found["host"]["usable_cpus"])
    # Snakemake sets these to 1, which must not tell its cells from those measured by hand.
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
    assert measure_cli(cell, tmp_path / "again.json", **counts).returncode == 0
    assert record.load(tmp_path / "again.json")["environment"] == found["environment"]
    assert found["software"]["torch"] is not None
    assert found["started_at"] <= found["ended_at"]
    assert found["host"]["memory_bytes"] > 0


def measurement(**changes) -> dict:
    return {**MEASUREMENT, **changes}


def test_warm_up_ends_when_two_calls_agree_or_their_number_is_spent(tmp_path):
    drifting = fault(drift=-0.1)
    cell = make_cell(measurement=measurement(warmup_tolerance_percent=20))
    assert measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=drifting).returncode == 0
    assert len(record.load(tmp_path / "r.json")["runs"][0]["warmup_s"]) == 2
    cell = make_cell(measurement=measurement(warmup_tolerance_percent=5, max_warmup_calls=4))
    assert measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=drifting).returncode == 0
    found = record.load(tmp_path / "r.json")
    assert len(found["runs"][0]["warmup_s"]) == 4
    assert "warm-up" in [reason["name"] for reason in found["stability"]["reasons"]]


def test_calls_are_repeated_until_they_are_enough(tmp_path):
    """Of exact calls of 0.0165 s, min_seconds decides; of scattered ones, max_seconds."""
    cell = make_cell(measurement=measurement(min_seconds=0.1, max_seconds=1))
    assert measure_cli(cell, tmp_path / "r.json").returncode == 0
    run = record.load(tmp_path / "r.json")["runs"][0]
    assert (len(run["samples_s"]), len(run["first_token_s"])) == (7, 49)
    scattered = fault(scatter=[0, 0.3])
    assert measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=scattered).returncode == 0
    run = record.load(tmp_path / "r.json")["runs"][0]
    assert 1.0 <= sum(run["samples_s"]) < 1.1
    assert len(run["samples_s"]) > 40


def test_processes_are_measured_one_after_the_other_and_all_kept(tmp_path):
    cell = make_cell(measurement=measurement(processes=3))
    assert measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=fault(scatter=[0.2, 0])).returncode == 0
    found = record.load_for(cell, tmp_path / "r.json")
    means = [run["samples_s"][0] for run in found["runs"]]
    assert len(set(means)) == 3
    for run in found["runs"]:
        assert run["samples_s"] == pytest.approx([run["samples_s"][0]] * 3, rel=1e-9), "no scatter within a process"
    assert "interval" in [reason["name"] for reason in found["stability"]["reasons"]]


def test_a_failure_of_a_later_process_does_not_lose_what_the_others_measured(tmp_path):
    cell = make_cell(measurement=measurement(processes=2))
    once = tmp_path / "once"
    done = measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=fault(fault="error", unless_new=str(once)))
    assert (done.returncode, (tmp_path / "r.json").exists()) == (1, False)
    (run,) = json.loads(done.stderr.split("what the processes before it had measured: ")[1].splitlines()[0])
    assert len(run["samples_s"]) == 3


def test_one_new_token_is_prefill_alone(tmp_path):
    cell = make_cell(workload={"prompt_tokens": 4, "new_tokens": 1})
    assert measure_cli(cell, tmp_path / "r.json").returncode == 0
    assert record.load(tmp_path / "r.json")["runs"][0]["first_token_s"] == []


def test_logits_that_are_no_numbers_are_flagged(tmp_path):
    assert measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(fault="nan-logits")).returncode == 0
    flags = {flag["name"]: flag["message"] for flag in record.load(tmp_path / "r.json")["flags"]}
    assert "in 1 of 2 rows" in flags["non-finite-logits"]


@pytest.mark.parametrize(
    ("behaviour", "phase", "samples"),
    [
        ({"at_load": True}, "load", (0, 0, 0)),
        ({}, "warm-up", (0, 0, 0)),
        ({"after": 4}, "measure", (2, 2, 0)),
        ({"after": 7}, "first-token", (2, 3, 1)),
    ],
    ids=["load", "warm-up", "measure", "first-token"],
)
def test_out_of_memory_is_a_result_wherever_it_comes(tmp_path, behaviour, phase, samples):
    done = measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(fault="oom", **behaviour))
    assert done.returncode == 0, done.stderr
    found = record.load(tmp_path / "r.json")
    assert (found["outcome"], found["reason"]["phase"], found["stability"]) == ("oom", phase, None)
    (run,) = found["runs"]
    assert tuple(len(run[name]) for name in ("warmup_s", "samples_s", "first_token_s")) == samples


def test_out_of_memory_and_unsupported_are_results(tmp_path):
    cell = make_cell(batch_size=512, memory_limit_bytes=300_000_000)
    assert measure_cli(cell, tmp_path / "oom.json").returncode == 0
    oom = record.load(tmp_path / "oom.json")
    assert oom["outcome"] == "oom"
    assert oom["reason"]["phase"] == "warm-up"
    assert oom["reason"]["exception_type"].endswith("FakeMemoryError")
    assert oom["reason"]["limit"] == {"name": "memory_limit", "bytes": 300_000_000}
    assert measure_cli(make_cell(precision="fp16"), tmp_path / "u.json").returncode == 0
    unsupported = record.load(tmp_path / "u.json")
    assert (unsupported["outcome"], unsupported["reason"]["message"]) == ("unsupported", "fake has no fp16")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"fault": "error"}, "ValueError during warm-up: made-up error"),
        ({"fault": "error", "after": 3}, "ValueError during measure: made-up error"),
        ({"fault": "short"}, r"WrongOutputError during warm-up: asked for \(2, 8\) \(rows, new tokens\), got \(2, 7\)"),
        ({"fault": "padded", "after": 2}, "WrongOutputError during measure: 1 of 2 rows ended before 8 new tokens"),
        ({"fault": "nan-clock", "after": 3}, "the clock went nan s forward"),
        ({"fault": "back-clock", "after": 3}, "WrongOutputError during measure: the clock went -1.0 s forward"),
        ({"fault": "kill", "after": 2}, "the worker was killed by SIGKILL during measure"),
        ({"fault": "kill", "at_load": True}, "the worker was killed by SIGKILL during load"),
    ],
)
def test_any_other_ending_fails_and_leaves_no_record(tmp_path, behaviour, message):
    done = measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(**behaviour))
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_earlier_record_as_it_was(tmp_path):
    assert measure_cli(make_cell(), tmp_path / "r.json").returncode == 0
    before = (tmp_path / "r.json").read_bytes()
    assert measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(fault="error")).returncode == 1
    assert (tmp_path / "r.json").read_bytes() == before


def test_sigkill_of_the_worker_is_a_failure_not_an_oom(tmp_path):
    parent = start_slow(tmp_path / "r.json")
    os.kill(worker_of(parent), signal.SIGKILL)
    _, stderr = parent.communicate(timeout=20)
    assert parent.returncode == 1
    assert "was killed by SIGKILL" in stderr
    assert not list(tmp_path.iterdir())


def test_a_stopped_worker_is_killed_when_its_time_is_up(tmp_path):
    began = time.monotonic()
    done = measure_cli(
        make_cell(), tmp_path / "r.json", options=("--timeout-s", "5"), FAKE_ENGINE=fault(fault="hang", after=2)
    )
    assert 5 <= time.monotonic() - began < 30
    assert (done.returncode, done.stderr.strip()) == (
        124,
        "measure.py: timeout during measure: no end after 5 s; the worker, stopped by a signal, was killed; not tried again",
    )
    assert not list(tmp_path.iterdir())


def test_what_cuda_reports_of_a_gpu_is_no_fault_of_the_cell():
    """Torch's own class, by whose name it is known; a wrong shape is a plain RuntimeError."""
    import torch

    assert worker.of_the_machine(torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"))
    assert not worker.of_the_machine(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_slow_worker_times_out_too(tmp_path):
    done = measure_cli(make_cell(), tmp_path / "r.json", options=("--timeout-s", "4"), FAKE_ENGINE=fault(sleep_s=60))
    assert (done.returncode, done.stderr.strip()) == (
        124,
        "measure.py: timeout during warm-up: no end after 4 s; the worker was killed; not tried again",
    )


@pytest.mark.parametrize("hanging", [False, True], ids=["sleeping", "stopped"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_parent_takes_its_worker_with_it(tmp_path, number, status, hanging):
    parent = start_slow(tmp_path / "r.json")
    worker = worker_of(parent)
    if hanging:
        os.kill(worker, signal.SIGSTOP)
    parent.send_signal(number)
    parent.communicate(timeout=20)
    assert parent.returncode == status
    assert not is_alive(worker)
    assert not list(tmp_path.iterdir())


def test_a_killed_parent_takes_its_worker_with_it(tmp_path):
    parent = start_slow(tmp_path / "r.json")
    worker = worker_of(parent)
    time.sleep(1)  # until the worker has asked the kernel for this
    parent.kill()
    parent.communicate(timeout=20)
    for _ in range(100):
        if not is_alive(worker):
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its parent")


def test_only_the_kernels_count_makes_a_kill_an_oom():
    killed = Story(phase="warm-up", returncode=-signal.SIGKILL)
    outcome, reason = classify(killed, make_cell(), ORIGIN, {"/cg": 1}, {"/cg": 2})
    assert (outcome, reason["phase"], reason["exception_type"]) == ("oom", "warm-up", "SIGKILL")
    assert reason["evidence"] == {"oom_kill_before": {"/cg": 1}, "oom_kill_after": {"/cg": 2}}
    for before, after in (({"/cg": 1}, {"/cg": 1}), ({}, {}), ({}, {"/cg": 5})):
        with pytest.raises(MeasurementError, match="killed by SIGKILL"):
            classify(killed, make_cell(), ORIGIN, before, after)
    with pytest.raises(MeasurementError, match="SIGSEGV"):
        classify(Story(returncode=-signal.SIGSEGV), make_cell(), ORIGIN, {"/cg": 1}, {"/cg": 2})
    with pytest.raises(MeasurementError, match="exit status 3"):
        classify(Story(returncode=3), make_cell(), ORIGIN, {}, {})


def test_cpus_that_others_use_are_flagged(tmp_path):
    n_hogs = max(1, len(os.sched_getaffinity(0)) // 4)
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_hogs)]
    try:
        cell = make_cell(measurement=measurement(min_seconds=1, max_seconds=1))
        done = measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=fault(sleep_s=0.1, real_clock=True))
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert done.returncode == 0, done.stderr
    assert "cpu-contended" in flag_names(record.load(tmp_path / "r.json"), ("cpu",))


def test_a_real_cpu_quota_is_seen_and_flagged(tmp_path, cpu_cgroup):
    cell = make_cell(engine="hf", measurement=measurement(threads=2, min_cycles=5))
    warm = measure_cli(cell, tmp_path / "warm.json")  # weights are drawn before the brake is on
    assert warm.returncode == 0, warm.stderr
    done = measure_cli(cell, tmp_path / "r.json", inside(cpu_cgroup))
    assert done.returncode == 0, done.stderr
    found = record.load(tmp_path / "r.json")
    assert found["host"]["cpu_limit"] == 0.5
    assert "cpu-throttled" in flag_names(found, ("cpu",))


def test_a_kill_by_the_kernel_for_memory_is_an_oom_with_its_evidence(tmp_path, memory_cgroup):
    done = measure_cli(make_cell(), tmp_path / "r.json", inside(memory_cgroup), FAKE_ENGINE=fault(fault="hog"))
    assert done.returncode == 0, done.stderr
    found = record.load(tmp_path / "r.json")
    assert (found["outcome"], found["reason"]["exception_type"]) == ("oom", "SIGKILL")
    before, after = found["reason"]["evidence"]["oom_kill_before"], found["reason"]["evidence"]["oom_kill_after"]
    assert after[str(memory_cgroup)] == before[str(memory_cgroup)] + 1
    assert found["reason"]["limit"]["bytes"] <= 200_000_000


def test_an_output_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("")
    done = measure_cli(make_cell(), tmp_path / "file/r.json", FAKE_ENGINE=fault(sleep_s=60))
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert str(tmp_path / "file") in done.stderr


def test_a_read_only_folder_is_one_clear_line(tmp_path):
    folder = tmp_path / "ro"
    folder.mkdir()
    if os.geteuid() == 0:  # root may write anywhere but on a read-only file system
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"as root, this needs the right to mount: {mounted.stderr.strip()}")
    else:
        folder.chmod(0o555)
    try:
        done = measure_cli(make_cell(), folder / "r.json", FAKE_ENGINE=fault(sleep_s=60))
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", folder], check=True)
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "Read-only" in done.stderr or "Permission denied" in done.stderr


def test_a_disk_that_fills_up_while_measuring_does_not_lose_the_record(small_disk):
    parent = start_slow(small_disk / "r.json", sleep_s=0.5)
    worker_of(parent)
    with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"\0" * 4096)
    _, stderr = parent.communicate(timeout=30)
    assert [p.name for p in small_disk.iterdir()] == ["filler"]
    assert parent.returncode == 1
    assert "No space left on device" in stderr
    rescued = json.loads(stderr.split("the record that could not be written: ")[1].splitlines()[0])
    record.check(rescued)


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
    """A cell of half a second on a made-up GPU that behaves so: (process, record or None)."""
    environ = fake_gpus(tmp_path, 1, **gpu) | {"FAKE_ENGINE": fault(sleep_s=0.05, real_clock=True)}
    environ["FAKE_NVML"] = json.dumps(json.loads(environ["FAKE_NVML"]) | gpu.get("nvml", {}))
    cell = make_cell(device="cuda", measurement=measurement(min_seconds=0.5, max_seconds=0.5))
    done = measure_cli(cell, tmp_path / "r.json", options=options, **environ)
    return done, record.load_for(cell, tmp_path / "r.json") if done.returncode == 0 else None


def flag_names(found: dict, prefixes: tuple[str, ...] = ("gpu", "energy", "conditions")) -> set[str]:
    return {flag["name"] for flag in found["flags"] if flag["name"].startswith(prefixes)}


def test_a_gpu_is_looked_at_while_it_is_timed_and_its_energy_counted(tmp_path):
    done, found = measure_on_fake_gpu(tmp_path, options=("--sample-hz", "10"), power_w=300)
    assert done.returncode == 0, done.stderr
    (run,) = found["runs"]
    assert run["conditions"]["n_samples"] >= 5
    assert {"gpu_sm_clock_hz", "gpu_temperature_c", "gpu_power_w"} <= set(run["conditions"]["gauges"])
    assert flag_names(found) == set()
    energy = run["energy"]
    assert (energy["source"], energy["scope"]) == ("nvml", "GPU board")
    assert energy["joules"] == pytest.approx(300 * energy["seconds"], abs=2 * energy["resolution_j"])
    assert energy["seconds"] == pytest.approx(sum(run["samples_s"]), rel=0.5)
    assert found["device"]["name"] == "NVIDIA Fake A"


@pytest.mark.parametrize(
    ("gpu", "flag"),
    [
        ({"throttle": ["sw_power_cap"]}, "gpu-throttled-power"),
        ({"throttle": ["hw_thermal_slowdown"]}, "gpu-throttled-thermal"),
    ],
)
def test_a_gpu_that_is_slowed_is_flagged(tmp_path, gpu, flag):
    _, found = measure_on_fake_gpu(tmp_path, **gpu)
    assert flag_names(found) == {flag}


def test_a_gpu_that_others_use_is_flagged_or_refused(tmp_path):
    others = [[1, 10**9], [2, 2 * 10**9]]
    done, found = measure_on_fake_gpu(tmp_path, processes=others)
    assert flag_names(found) == {"gpu-busy-at-start", "gpu-shared"}
    assert "GPU GPU-0000 is in use: 2 processes hold 3 GB" in done.stderr
    (tmp_path / "r.json").unlink()
    done, found = measure_on_fake_gpu(tmp_path, options=("--exclusive", "fail"), processes=others)
    assert (done.returncode, found) == (1, None)
    assert "GPU GPU-0000 is in use: 2 processes hold 3 GB" in done.stderr
    assert "wait, or set watch.exclusive: warn" in done.stderr


def test_nvml_that_fails_midway_takes_nothing_but_what_it_would_have_told(tmp_path):
    done, found = measure_on_fake_gpu(tmp_path, nvml={"fail_after": 12})
    assert done.returncode == 0, done.stderr
    assert flag_names(found) >= {"conditions-unknown"}
    assert found["outcome"] == "ok"
    assert found["runs"][0]["conditions"]["errors"]


def test_a_gpu_without_a_counter_has_no_energy(tmp_path):
    _, found = measure_on_fake_gpu(tmp_path, nvml={"unsupported": ["energy"]})
    assert found["runs"][0]["energy"] is None
    assert flag_names(found) == set()


CELL = json.loads(make_cell().to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "x",
        *(json.dumps(CELL | c) for c in ({"workload": 1}, {"model": {}}, {"engine": "h"}, {"precision": "p"})),
    ],
)
def test_a_text_that_is_no_cell_is_one_clear_line(tmp_path, text):
    command = [sys.executable, str(REPO / "scripts/measure.py"), "--cell", text, "--output", str(tmp_path / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip().count("\n")) == (1, 0)
    assert not list(tmp_path.iterdir())


def test_the_parent_imports_no_torch():
    code = "import sys, inference_benchmark.measure.cell, inference_benchmark.render.progress; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPO / "scripts")}).returncode
        == 0
    )
