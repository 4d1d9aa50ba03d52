"""Environments are made once and whole, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import venv_once  # noqa: F401
from preloaded import HANGS_S
from running import REPO, light_lock

from inference_benchmark import files
from inference_benchmark.experiment.environments import parse
from inference_benchmark.measure import environments
from inference_benchmark.measure.outcome import MeasurementError

#: Another process that makes the environment of a lock.
MAKE = "import sys, venv_once; print(venv_once.environments.ensure('old', sys.argv[1]))"


@pytest.fixture
def digest(tmp_path, monkeypatch) -> str:
    """Of a lock that was planned with; this is the working directory of its jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFERENCE_BENCHMARK_CACHE", str(tmp_path / "cache"))
    return planned(light_lock(tmp_path / "wheels", torch="1.2.3"))


def planned(text: str) -> str:
    lock, _ = parse(text)
    lock.save()
    return lock.digest


def make(digest: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, digest],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{REPO}/scripts:{REPO}/tests"},
    )


def test_an_environment_that_was_killed_half_way_is_made_again_after_what_it_had_started(digest, monkeypatch, tmp_path):
    """pip goes on after its parent was killed, and nobody makes the environment beside it."""
    with make(digest) as process:
        said = [process.stderr.readline()]
        while "Looking in links" not in said[-1] and "Processing" not in said[-1]:
            said.append(process.stderr.readline())
        process.kill()
    folder = environments.folder_of(digest)
    assert folder.exists()
    (folder / "left-behind").touch()
    python = environments.ensure("old", digest)
    assert not (folder / "left-behind").exists()
    assert subprocess.run([python, "-c", "import numpy"]).returncode == 0


def test_a_signal_ends_what_makes_an_environment(digest):
    with make(digest) as process:
        process.stderr.readline()
        until = time.monotonic() + HANGS_S
        while not (started := children(process.pid)):  # without a pause: it comes while the process is being started
            assert time.monotonic() < until
        process.send_signal(signal.SIGINT)
        process.wait(timeout=HANGS_S)
    (child,) = started
    assert not Path(f"/proc/{child}").exists()
    assert not environments._is_whole(environments.folder_of(digest))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_environment_follows_from_lock_python_and_platform(digest, monkeypatch):
    folder = environments.folder_of(digest)
    assert environments.folder_of("0" * 16) != folder
    monkeypatch.setattr(environments.platform, "python_version", lambda: "3.99.0")
    assert environments.folder_of(digest) != folder


def test_two_processes_make_an_environment_once_and_one_whose_python_is_gone_is_made_again(digest):
    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(lambda process: process.communicate(timeout=HANGS_S), [make(digest), make(digest)]))
    assert ends[0][0] == ends[1][0]
    assert sum("installing 1 package into" in said for _, said in ends) == 1
    assert sum("another process is making it; waiting" in said for _, said in ends) == 1
    python = Path(ends[0][0].strip())
    took_s = files.read_json(environments.folder_of(digest) / "made.json")["took_s"]
    assert environments.seconds_to_make([digest, "0" * 16]) == [took_s]
    python.unlink()
    python.symlink_to("/nothing/python3")
    assert environments.seconds_to_make([digest]) == [took_s]
    assert os.access(environments.ensure("old", digest), os.X_OK)


def test_what_pip_compiles_comes_first_and_is_said_before(tmp_path, digest, monkeypatch, capfd):
    text = light_lock(tmp_path / "wheels", llama_cpp_python="9.9.9", torch="1.2.3")
    built = planned(text)
    a_minute_s = 60
    monkeypatch.setattr(environments, "_seconds_to_build", lambda package: a_minute_s)
    plain_s, with_build_s = environments.seconds_to_make([digest, built])
    assert with_build_s == plain_s + a_minute_s
    environments.ensure("own", built)
    said = capfd.readouterr().err
    begins, is_said, *_, both = (
        said.index(words)
        for words in (
            "Environment own: installing 2",
            "compiling llama-cpp-python, about 1 min 00 s",
            "Processing ",
            "torch-1.2.3",
        )
    )
    assert begins < is_said < both
    # It is built anew with other settings, and then another environment.
    folder = environments.folder_of(built)
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    assert environments.folder_of(built) != folder


def test_a_compiler_that_is_missing_is_named_before_anything_is_installed(tmp_path, digest, monkeypatch, capfd):
    text = light_lock(tmp_path / "wheels", torch="1.2.3") + "llama_cpp_python==9.9.9\n"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    why = "llama-cpp-python has to be compiled, and there is no C.. compiler .*; install g"
    with pytest.raises(MeasurementError, match=f"environment own could not be made: {why}"):
        environments.ensure("own", planned(text))
    assert "Processing" not in capfd.readouterr().err


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, digest, monkeypatch):
    monkeypatch.setenv("INFERENCE_BENCHMARK_CACHE", str(tmp_path / "wheels/torch-1.2.3-py3-none-any.whl"))
    with pytest.raises(MeasurementError, match="Not a directory; INFERENCE_BENCHMARK_CACHE is the folder with"):
        environments.ensure("old", digest)


def test_a_lock_that_was_changed_after_planning_installs_nothing(digest):
    Path(f".snakemake/environments/{digest}.lock").write_text("torch==0.0.1\n")
    with pytest.raises(MeasurementError, match="has changed; remove it and run Snakemake again"):
        environments.ensure("old", digest)


def test_where_a_build_of_torch_for_cpus_is_to_be_found_is_said(digest):
    with pytest.raises(MeasurementError, match=r"torch==9\.9\.9\+cpu .*; pip finds CPU builds of torch with PIP_EXTRA"):
        environments.ensure("old", planned("--no-index\ntorch==9.9.9+cpu\n"))


def test_a_lock_may_leave_out_what_a_package_says_that_it_needs(digest, tmp_path):
    text = light_lock(tmp_path / "wheels", torch="1.2.3", requires="nothing-like-this")
    with pytest.raises(MeasurementError, match="requirement nothing-like-this"):
        environments.ensure("old", planned(text))
    assert environments.ensure("old", planned(f"--no-deps\n{text}")).exists()


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["Collecting x", "ERROR: Could not find a version of x==9", "ERROR: No matching distribution"], 1),
        (
            [
                "error: subprocess-exited-with-error",
                "exit code: 1",
                "Traceback (most recent call last):",
                "ModuleNotFoundError: No module named 'torch'",
                "ERROR: Failed to build 'x' when getting requirements to build wheel",
            ],
            3,
        ),
        (["Killed", ""], 0),
    ],
)
def test_the_cause_in_the_output_of_pip_is_named(lines, cause):
    assert environments.cause_in(lines) == lines[cause]
    assert environments.cause_in([]) == ""
