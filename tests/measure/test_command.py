"""The command line that measures: bad input, full disks, signals, time-outs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from made_up import make_cell
from preloaded import HANGS_S
from running import PROGRAMS, REPO, clock_stands_until, fault, measure_cli, wait_for, worker_of

from inference_benchmark.records.record import Record


def start(output: Path, **behaviour: Any) -> subprocess.Popen:
    """measure.py with a fake engine of this behaviour, else one that sleeps."""
    command = [
        sys.executable,
        str(REPO / "scripts/measure.py"),
        "--subject",
        make_cell().to_json(),
        "--output",
        str(output),
    ]
    environ = {**os.environ, "FAKE_ENGINE": fault(**behaviour or {"sleep_s": HANGS_S})}
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, preexec_fn=_as_in_a_terminal)


def _as_in_a_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it


def state(pid: int) -> str:
    """The kernel's letter for what a process is doing; Z where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def is_alive(pid: int) -> bool:
    return state(pid) != "Z"


def test_sigkill_of_the_worker_is_a_failure_not_an_oom(tmp_path):
    parent = start(tmp_path / "r.json")
    os.kill(worker_of(parent), signal.SIGKILL)
    _, stderr = parent.communicate(timeout=HANGS_S)
    assert parent.returncode == 1
    assert "was killed by SIGKILL" in stderr
    assert not list(tmp_path.iterdir())


def test_a_stopped_worker_is_killed_when_its_time_is_up(tmp_path):
    began = time.monotonic()
    behaviour = clock_stands_until("stopped", fault="hang", after=2)
    done = measure_cli(make_cell(), tmp_path / "r.json", options=("--timeout-s", "5"), **behaviour)
    assert time.monotonic() - began >= 5
    assert (done.returncode, done.stderr.strip()) == (
        124,
        "measure.py: timeout during measure: no end after 5 s; the worker, stopped by a signal, was killed; not tried again",
    )
    assert not list(tmp_path.iterdir())


def test_a_slow_worker_times_out_too(tmp_path):
    called = tmp_path / "called"
    behaviour = clock_stands_until(called, fault="moody", once=str(called), sleep_s=HANGS_S)
    done = measure_cli(make_cell(), tmp_path / "r.json", options=("--timeout-s", "4"), **behaviour)
    assert (done.returncode, done.stderr.strip()) == (
        124,
        "measure.py: timeout during warm-up: no end after 4 s; the worker was killed; not tried again",
    )


@pytest.mark.parametrize("hanging", [False, True], ids=["sleeping", "stopped"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_parent_takes_its_worker_with_it(tmp_path, number, hanging):
    parent = start(tmp_path / "r.json")
    worker = worker_of(parent)
    if hanging:
        os.kill(worker, signal.SIGSTOP)
    parent.send_signal(number)
    assert parent.communicate(timeout=HANGS_S)[1] == f"measure.py: ended by {number.name}; nothing is recorded\n"
    assert parent.returncode == 128 + number
    assert not is_alive(worker)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_parent_stopped_while_it_starts_its_worker_leaves_none(number):
    """The signal comes when the process is there and the parent does not know it yet."""
    code = """
import os, signal, subprocess, sys
from inference_benchmark.measure import worker_process
class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print(self.pid, flush=True)
        os.kill(self.pid, signal.SIGSTOP)
        os.kill(os.getpid(), int(sys.argv[1]))
worker_process.subprocess.Popen = Popen
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, lambda number, _: sys.exit(128 + number))
with worker_process.WorkerProcess("timed_calls", {}, (), dict(os.environ)):
    print("it was not stopped")
"""
    environ = {**os.environ, "PYTHONPATH": str(REPO / "scripts")}
    command = [sys.executable, "-c", code, str(int(number))]
    parent = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, env=environ)
    assert not is_alive(int(parent.stdout))
    assert parent.returncode in (128 + number, -signal.SIGINT)


def test_a_killed_parent_takes_its_worker_with_it(tmp_path):
    called = tmp_path / "called"
    parent = start(tmp_path / "r.json", fault="moody", once=str(called), sleep_s=HANGS_S)
    worker = worker_of(parent)
    wait_for(called.exists)  # the worker has asked the kernel for this
    parent.kill()
    parent.communicate(timeout=HANGS_S)
    wait_for(lambda: not is_alive(worker))


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


def test_where_the_log_is_on_a_full_disk_the_reason_is_on_the_terminal(small_disk):
    with (small_disk / "log").open("w") as log:
        with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"\0" * 4096)
        command = [sys.executable, REPO / "scripts/measure.py", "--subject", make_cell().to_json()]
        command += ["--output", small_disk / "r.json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=HANGS_S)
    assert done.returncode == 1
    assert done.stdout.startswith("measure.py: ")
    assert done.stdout.endswith("No space left on device\n")
    assert (small_disk / "log").stat().st_size == 0


def test_a_disk_that_fills_up_while_measuring_does_not_lose_the_record(small_disk, tmp_path):
    called = tmp_path / "called"
    parent = start(small_disk / "r.json", fault="hang", once=str(called))
    worker = worker_of(parent)
    wait_for(called.exists)
    with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"\0" * 4096)
    wait_for(lambda: state(worker) == "T")
    os.kill(worker, signal.SIGCONT)
    _, stderr = parent.communicate(timeout=HANGS_S)
    assert [p.name for p in small_disk.iterdir()] == ["filler"]
    assert parent.returncode == 1
    assert "No space left on device" in stderr
    document = json.loads(stderr.split("the record that could not be written: ")[1].splitlines()[0])
    assert Record.from_document(document).outcome == "ok"


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
    done = PROGRAMS.run([REPO / "scripts/measure.py", "--subject", text, "--output", tmp_path / "r.json"])
    assert (done.returncode, done.stderr.strip().count("\n")) == (1, 0)
    assert not list(tmp_path.iterdir())


def test_the_parent_imports_no_torch():
    code = "import sys, inference_benchmark.measure.run, inference_benchmark.render.progress; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPO / "scripts")}).returncode
        == 0
    )
