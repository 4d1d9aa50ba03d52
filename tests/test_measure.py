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

from conftest import REPO, make_cell, measure_cli
from inference_benchmark import record
from inference_benchmark.supervise import MeasurementError, Story, classify

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
    # The fake engine's clock: 0.002 s x 8 tokens x (1 + 2/64).
    assert found["samples_s"] == pytest.approx([0.0165] * 3, abs=1e-12)
    assert found["first_call_s"] == pytest.approx(0.0165)
    assert found["warmup_s"] == []
    assert found["software"]["torch"] is not None
    assert found["started_at"] <= found["ended_at"]
    assert found["host"]["memory_bytes"] > 0


def test_first_call_and_further_warm_ups_are_kept_apart(tmp_path):
    cell = make_cell(measurement={"warmup_calls": 3, "cycles": 2, "seed": 0, "threads": 1})
    assert measure_cli(cell, tmp_path / "r.json").returncode == 0
    found = record.load(tmp_path / "r.json")
    assert (len(found["warmup_s"]), len(found["samples_s"])) == (2, 2)


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
    assert (unsupported["outcome"], unsupported["reason"]["message"]) == ("unsupported", "the fake engine has no fp16")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"fault": "error"}, "ValueError during warm-up: made-up error"),
        ({"fault": "error", "after": 2}, "ValueError during measure: made-up error"),
        ({"fault": "short"}, r"WrongOutputError during warm-up: asked for \(2, 8\) \(rows, new tokens\), got \(2, 7\)"),
        ({"fault": "padded", "after": 1}, "WrongOutputError during measure: 1 of 2 rows ended before 8 new tokens"),
        ({"fault": "nan-clock", "after": 3}, "the clock went nan s forward"),
        ({"fault": "kill", "after": 1}, "the worker was killed by SIGKILL during measure"),
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_parent_takes_its_worker_with_it(tmp_path, number, status):
    parent = start_slow(tmp_path / "r.json")
    worker = worker_of(parent)
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


@pytest.fixture
def memory_cgroup():
    """A cgroup of ours with a limit of 200 MB: the folder to write pids into."""
    root, name = Path("/sys/fs/cgroup"), f"inference-benchmark-test-{os.getpid()}"
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    try:
        if "memory" in own:
            folder = root / "memory" / own["memory"].lstrip("/")
            folder = (folder if folder.is_dir() else root / "memory") / name
            limit_file = "memory.limit_in_bytes"
        else:
            folder, limit_file = root / own[""].lstrip("/") / name, "memory.max"
        folder.mkdir()
    except (OSError, KeyError) as error:
        pytest.skip(f"a memory cgroup cannot be made here: {error}")
    try:
        try:
            (folder / limit_file).write_text("200000000")
            if (folder / "memory.swap.max").exists():
                (folder / "memory.swap.max").write_text("0")
        except OSError as error:
            pytest.skip(f"a memory limit cannot be set here: {error}")
        yield folder
    finally:
        for _ in range(50):
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def test_a_kill_by_the_kernel_for_memory_is_an_oom_with_its_evidence(tmp_path, memory_cgroup):
    enter = f'echo $$ > {memory_cgroup}/cgroup.procs && exec "$@"'
    prefix = ("sh", "-c", enter, "sh")
    done = measure_cli(make_cell(), tmp_path / "r.json", prefix, FAKE_ENGINE=fault(fault="hog"))
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
    done = measure_cli(make_cell(device="cuda"), tmp_path / "r.json", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "measure.py: the cell asks for cuda and no GPU is visible here (CUDA_VISIBLE_DEVICES is empty)"
    )


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
    code = "import sys, inference_benchmark.supervise, inference_benchmark.progress; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPO / "scripts")}).returncode
        == 0
    )
