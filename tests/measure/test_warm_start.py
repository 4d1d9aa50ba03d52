"""Workers forked from a server that has imported everything: they work and end like those that start cold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up import MODELS, make_cell
from preloaded import HANGS_S
from running import REPO, another_python, fault, read_record, wait_for

from inference_benchmark.experiment.cells import Cell
from inference_benchmark.machine.packages import hidden_for
from inference_benchmark.measure import warm_start
from inference_benchmark.worker import server

CELL = make_cell(engine="hf", model={"name": "bloom", "architecture": MODELS["bloom"], "seed": 0})
#: A worker of the fake engine, forked if it can be, with what its parent learns of it as JSON.
PARENT = """
import json, sys
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.measure.warm_start import ForkedWorker, ForkServer
from inference_benchmark.measure.worker_process import WorkerProcess, worker_variables
python = sys.argv[3] if len(sys.argv) > 3 else sys.executable
inputs = {"subject": sys.argv[1], "checkpoint": None, "patience_s": 0}
variables = worker_variables(python, (), None)
with WorkerProcess("timed_calls", inputs, (), variables, python, ForkServer("fake", "", 1)) as worker:
    print(worker.process.pid, isinstance(worker.process, ForkedWorker), flush=True)
    report = worker.listen(Supervision(timeout_s=float(sys.argv[2])))
end = report.end or {}
print(json.dumps([report.returncode, end.get("outcome"), report.phase, report.last_output]))
"""

#: The same in a cgroup, as a job holds a device: with another try where memory ended beside the server.
IN_CGROUP = """
import json, sys
with open(f"{sys.argv[1]}/cgroup.procs", "w") as processes:
    processes.write("0")
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import cgroups
from inference_benchmark.measure.held_device import hold_device
from inference_benchmark.measure.warm_start import ForkServer
inputs = {"subject": sys.argv[2], "checkpoint": None, "patience_s": 0}
with hold_device(Cell.from_json(sys.argv[2]), Supervision()) as device:
    report, outcome, _ = device.run_worker("timed_calls", inputs, server=ForkServer("fake", "", 1))
print(json.dumps([outcome, report.model["start"], cgroups.oom_kills()[sys.argv[1]]]))
"""


@pytest.fixture
def owner() -> Iterator[subprocess.Popen]:
    """A process in the role of Snakemake."""
    with subprocess.Popen(["sleep", "infinity"]) as process:
        yield process
        process.kill()


def environment(owner: subprocess.Popen, folder: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join([str(REPO / "scripts"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, warm_start.OWNER: str(owner.pid), "TMPDIR": str(folder), **more}


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    """A temporary folder with a longer path than a socket can have."""
    return tmp_path_factory.mktemp("warm" + "x" * 100)


def measured(cell: Cell, folder: Path, environ: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, str(REPO / "scripts/measure.py"), "--subject", cell.to_json(), "--output", cell.path]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=HANGS_S)
    assert done.returncode == 0, done.stderr
    assert "starts cold" not in done.stderr
    return read_record(folder / cell.path, cell)


def servers(folder: Path) -> set[int]:
    """The servers with a socket below a folder; their forks have the same command line."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            if b"inference_benchmark.worker.server" in words and any(str(folder).encode() in word for word in words):
                stat = (path.parent / "stat").read_text()
                parents[int(path.parent.name)] = int(stat.rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    return {pid for pid, parent in parents.items() if parent not in parents}


def state(pid: int) -> str:
    """A letter, as in ps."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def is_gone(pid: int) -> bool:
    try:
        return state(pid) == "Z"
    except OSError:
        return True


def made_up_torchao(folder: Path) -> Path:
    """What transformers imports of it. The file ``imported`` in the folder has a line for each process that did."""
    names = {
        "torchao/__init__.py": f"import sys; print(sys.argv[0], file=open({str(folder / 'imported')!r}, 'a'))",
        "torchao/prototype/safetensors/safetensors_support.py": "flatten_tensor_state_dict = None",
        "torchao-99.dist-info/METADATA": "Metadata-Version: 2.1\nName: torchao\nVersion: 99\n",
    }
    for name, text in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_forked_worker_leaves_the_record_of_a_cold_one_and_no_server_outlives_its_round_or_owner(
    owner, folder, monkeypatch, tmp_path
):
    """And no server imports torchao, which would ask CUDA for its devices, wherever it is installed."""
    monkeypatch.setenv("PYTHONPATH", str(made_up_torchao(tmp_path)))
    cold_environment = {k: v for k, v in environment(owner, folder).items() if k != warm_start.OWNER}
    (folder / "cold").mkdir()
    started = measured(CELL, folder / "cold", cold_environment)
    assert servers(folder) == set(), "a cell by hand starts cold"
    other, forked = (measured(replace(CELL, batch_size=n), folder, environment(owner, folder)) for n in (1, 2))
    imported = {Path(line).name for line in (tmp_path / "imported").read_text().splitlines()}
    assert ("__main__.py" in imported, "server.py" in imported) == (True, False)
    (first,) = servers(folder)
    assert (other["model"]["start"], other["cell"]["batch_size"]) == ("forked", 1)
    assert forked["runs"][0]["tokens_sha256"] == started["runs"][0]["tokens_sha256"]
    assert {k: v for k, v in forked["environment"].items() if k != warm_start.OWNER} == started["environment"]
    assert (forked["model"].pop("start"), started["model"].pop("start")) == ("forked", "cold")
    assert forked["model"] == started["model"]
    # The pages of libraries that nothing has touched since are not in the fork.
    for name, n_bytes in started["runs"][0]["memory"].items():
        assert 0 <= n_bytes - forked["runs"][0]["memory"][name] < 150_000_000, name
    measured(replace(CELL, round=2), folder, environment(owner, folder))
    assert wait_for(lambda: len(servers(folder)) == 1)
    assert servers(folder) != {first}
    (run_folder,) = folder.glob("inference-benchmark-*")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert wait_for(lambda: servers(folder) == set())
    assert not run_folder.exists()


def test_servers_end_but_for_one_and_their_memory_is_free_then(owner, folder, monkeypatch):
    environ = environment(owner, folder)
    command = [sys.executable, "-c", PARENT, make_cell().to_json(), str(HANGS_S)]
    assert subprocess.run(command, capture_output=True, env=environ).returncode == 0
    variables = {"CUDA_VISIBLE_DEVICES": "1"}
    for name in (warm_start.OWNER, "TMPDIR"):
        monkeypatch.setenv(name, environ[name])
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (running,) = servers(folder)
    assert not warm_start.end_servers(sys.executable, variables), "of another device"
    assert servers(folder) == {running}
    here = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    other = warm_start.ForkServer("hf", "", 1)
    assert warm_start.end_servers(sys.executable, here, but=other)
    assert servers(folder) == set(), "no wait for it"
    assert not warm_start.end_servers(sys.executable, here)


@pytest.mark.parametrize("cold", [True, False])
def test_a_worker_runs_in_the_python_that_it_is_to_run_in(owner, folder, cold):
    python = another_python(folder / "other")
    environ = environment(owner, folder, FAKE_ENGINE=fault(fault="hang"))
    environ["PYTHONPATH"] += f"{os.pathsep}/packages/of/another"
    if cold:
        del environ[warm_start.OWNER]
    command = [sys.executable, "-c", PARENT, make_cell().to_json(), str(HANGS_S), python]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as parent:
        worker, forked = parent.stdout.readline().split()
        assert forked == str(not cold)
        # A fork has the command line of its server. Where a process has only just begun, the kernel shows none.
        assert wait_for(lambda: Path(f"/proc/{worker}/cmdline").read_text().split("\0")[0] == python)
        words = Path(f"/proc/{worker}/environ").read_text().split("\0")
        assert any(word.startswith(f"PATH={Path(python).parent}:") for word in words)
        assert f"PYTHONPATH={REPO / 'scripts'}" in words
        parent.kill()
        parent.communicate(timeout=HANGS_S)


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ({}, [0, "ok", "yardstick"]),
        ({"fault": "oom"}, [0, "oom", "warm-up"]),
        ({"fault": "error"}, [1, "error", "warm-up"]),
        ({"fault": "kill"}, [-signal.SIGKILL, None, "warm-up"]),
        ({"fault": "abort"}, [-signal.SIGABRT, None, "warm-up"]),
        ({"fault": "bitsandbytes"}, [1, None, "warm-up"]),
        ({"fault": "hang"}, [None, "timeout", "warm-up"]),
    ],
)
def test_every_end_of_a_forked_worker_is_that_of_a_cold_one(owner, folder, behaviour, expected):
    def run(environ):
        timeout_s = "3" if behaviour.get("fault") == "hang" else str(HANGS_S)
        done = subprocess.run(
            [sys.executable, "-c", PARENT, make_cell().to_json(), timeout_s],
            capture_output=True,
            text=True,
            env=environ | {"FAKE_ENGINE": json.dumps(behaviour)},
            timeout=HANGS_S,
        )
        pid_and_kind, _, report = done.stdout.partition("\n")
        pid, forked = pid_and_kind.split()
        assert is_gone(int(pid))
        return forked == "True", json.loads(report)

    environ = environment(owner, folder)
    forked, warm = run(environ)
    assert forked
    # Where a worker hangs, its time may be up before it gets there.
    n_certain = 2 if "timeout" in expected else 3
    assert warm[:n_certain] == expected[:n_certain]
    forked, cold = run({k: v for k, v in environ.items() if k != warm_start.OWNER})
    assert not forked
    assert warm[:n_certain] == cold[:n_certain]
    assert warm[3].splitlines()[-1:] == cold[3].splitlines()[-1:], "what it printed is known to its parent"


@pytest.mark.parametrize("victim", ["parent", "server", "owner", "parent, by Ctrl-C"])
def test_a_worker_dies_with_its_parent_its_server_and_its_owner(owner, folder, victim):
    environ = environment(owner, folder, FAKE_ENGINE=fault(fault="hang"))
    command = [sys.executable, "-c", PARENT, make_cell().to_json(), str(HANGS_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as parent:
        worker = int(parent.stdout.readline().split()[0])
        (server_pid,) = servers(folder)
        assert wait_for(lambda: not is_gone(worker) and "T" in Path(f"/proc/{worker}/stat").read_text().split())
        if victim == "server":
            os.kill(server_pid, signal.SIGKILL)
            assert json.loads(parent.stdout.read())[:3] == [-signal.SIGKILL, None, "warm-up"]
        elif victim == "owner":
            owner.kill()
            assert parent.stderr.read() == "Snakemake, which this job belongs to, has ended; nothing is recorded\n"
        else:
            parent.send_signal(signal.SIGINT if "Ctrl-C" in victim else signal.SIGKILL)
        assert wait_for(lambda: is_gone(worker))
        parent.wait(timeout=HANGS_S)
    if "parent" in victim:
        assert servers(folder) == {server_pid}, "the next worker comes from the same one"


def test_a_server_that_was_killed_is_replaced(owner, folder):
    command = [sys.executable, "-c", PARENT, make_cell().to_json(), str(HANGS_S)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, env=environment(owner, folder))
        assert done.stdout.splitlines()[0].endswith(" True"), done.stderr
        (server_pid,) = servers(folder)
        os.kill(server_pid, signal.SIGKILL)
        assert wait_for(lambda: servers(folder) == set())


@pytest.mark.parametrize("memory_cgroup", [400_000_000], indirect=True)
@pytest.mark.parametrize(
    ("server_bytes", "expected"), [(0, ["ok", "forked", 0]), (200_000_000, ["ok", "cold", 1])], ids=["small", "large"]
)
def test_a_worker_that_fits_only_without_its_idle_server_is_tried_again_without(
    memory_cgroup, owner, folder, tmp_path, server_bytes, expected
):
    """The kernel kills the first, which needs 200 MB of the 400 MB of the cgroup."""
    held = f'if "inference_benchmark.worker.server" in sys.orig_argv:\n    sys.held = b"1" * {server_bytes}\n'
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{held}")
    environ = environment(owner, folder, FAKE_ENGINE=fault(holds_bytes=200_000_000))
    environ["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    command = [sys.executable, "-c", IN_CGROUP, str(memory_cgroup), make_cell().to_json()]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=HANGS_S)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    again = "out of memory during load beside idle servers of workers: once more"
    assert done.stderr.count(again) == (server_bytes > 0)
    assert len(servers(folder)) == (server_bytes == 0)


def test_ctrl_c_ends_a_server_that_still_imports(owner, folder):
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho $$ > {folder}/pid\nexec sleep {HANGS_S}\n")
    python.chmod(0o755)
    command = [sys.executable, "-c", PARENT, make_cell().to_json(), str(HANGS_S), str(python)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(owner, folder)) as parent:
        server_pid = int(wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text()))
        # The parent waits for it. While it only starts it, it does not know it yet.
        wait_for(lambda: state(parent.pid) == "S")
        parent.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in parent.communicate(timeout=HANGS_S)[1]
    assert is_gone(server_pid)


def test_where_no_server_can_be_started_the_worker_starts_cold_and_says_so(owner, folder):
    open_to_others = folder / f"inference-benchmark-{os.getuid()}-{owner.pid}"
    open_to_others.mkdir()
    open_to_others.chmod(0o755)
    command = [sys.executable, "-c", PARENT, make_cell().to_json(), str(HANGS_S)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(owner, folder))
    assert done.stdout.splitlines()[0].endswith(" False")
    assert "the worker starts cold: " in done.stderr
    assert json.loads(done.stdout.splitlines()[1])[1] == "ok"


def test_a_server_that_did_not_start_is_not_started_again(owner, folder, monkeypatch):
    monkeypatch.setenv(warm_start.OWNER, str(owner.pid))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    python = folder / "python"
    python.write_text('#!/bin/sh\necho >> "$0.started"\necho importing hf opened /dev/nvidiactl\nexit 1\n')
    python.chmod(0o755)
    for number in (1, 1, 2):
        with pytest.raises(warm_start.WarmStartError, match="importing hf opened /dev/nvidiactl"):
            warm_start.ForkServer("hf", "", number).fork(str(python), "", {}, 0)
    assert (folder / "python.started").read_text() == "\n"


@pytest.mark.parametrize(
    ("precision", "hidden"), [("int8", ("torchao",)), ("int8-weight-only", ()), ("gptq", ()), ("awq", ())]
)
def test_a_server_imports_torchao_only_for_what_may_need_it(precision, hidden):
    assert hidden_for(precision) == hidden


def test_an_open_device_file_is_noticed(monkeypatch, tmp_path):
    assert server.device_files() == []
    with (tmp_path / "nvidia0").open("w"):
        link = os.readlink
        monkeypatch.setattr(os, "readlink", lambda path: link(path).replace(f"{tmp_path}/", "/dev/"))
        assert server.device_files() == ["/dev/nvidia0"]
