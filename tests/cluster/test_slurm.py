"""The profile for Slurm on a real one: two nodes on this machine, with a made-up GPU of another type each."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from preloaded import HANGS_S, Preloaded
from running import PLANS, PROGRAMS, REPO, Workspace, fake_grid, wait_for

CONF = Path("/etc/slurm/slurm.conf")
PLUGINS = REPO / ".venv/slurm"
#: It looks at the queue more often than people should.
SNAKEMAKE = REPO / "tests/slurm/snakemake"
#: A process that has imported Snakemake with them.
SUBMITS = Preloaded(*PLANS, "snakemake_executor_plugin_slurm", path=str(PLUGINS))
#: The columns of a fake grid, from the machine's folder on.
FAKE = "tiny/prompt4-new8/fake"


def _why_not() -> str | None:
    """What keeps a Slurm from being started here."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
    if missing or not PLUGINS.is_dir():
        return (
            f"{', '.join([*missing, *[str(PLUGINS)] * (not PLUGINS.is_dir())])} missing; run sh envs/install-slurm.sh"
        )
    if os.getuid() != 0:
        return "starting a Slurm needs root"
    if CONF.exists() and not os.path.islink(CONF):
        return f"this machine has a Slurm of its own ({CONF})"
    return None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """The folder of a running Slurm."""
    if reason := _why_not():
        if os.environ.get("REQUIRE_SLURM"):
            pytest.fail(f"REQUIRE_SLURM is set, and {reason}")
        pytest.skip(reason)
    base = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders are closed to others; munge wants them open
    started = subprocess.run(["bash", REPO / "tests/slurm/start.sh", base], capture_output=True, text=True)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield base
    finally:
        subprocess.run(["bash", REPO / "tests/slurm/stop.sh", base], check=True)
        shutil.rmtree(base)


@pytest.fixture(autouse=True)
def _empty_queue(request) -> Iterator[None]:
    """No job of a test goes on into the next."""
    yield
    if "cluster" in request.fixturenames and queue():
        subprocess.run(["scancel", *queue()], check=True)
        wait_for(lambda: not queue())


def on_slurm(gpu_model: str | None, **changes) -> dict:
    """A machine of the configuration whose jobs ask for this GPU."""
    asked = {"gpu_model": gpu_model, "cpus": 1, "mem_mb": 600, "runtime_minutes": 3}
    return {"device_name": None, "slurm": asked | changes}


class Campaign(Workspace):
    """A project whose cells go to Slurm."""

    @classmethod
    def make_for(cls, folder: Path, precisions=("fp32", "bf16"), batch_sizes=(1, 2, 512), **machines) -> Campaign:
        grid = fake_grid(precisions=list(precisions), batch_sizes=list(batch_sizes))
        made = cls.make(folder, grid)
        made.config |= {"machine": "auto", "machines": machines}
        made.save()
        return made

    def command(self, *arguments: str) -> list[str]:
        """snakemake with the profile, on CPUs."""
        profile = ("--profile", "profiles/slurm", "--latency-wait", "10", "--slurm-keep-successful-logs")
        return [sys.executable, str(SNAKEMAKE), *arguments, *profile, "--config", "device=cpu"]

    def snakemake(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
        _, *command = self.command(*arguments)
        return SUBMITS.run(command, self.folder, self._environment(environ))

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self._environment(environ), start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def _environment(self, environ: dict[str, str]) -> dict[str, str]:
        """The rules that are no jobs of Slurm are forked."""
        return {**os.environ, **PROGRAMS.for_shells(), "PYTHONPATH": str(PLUGINS), **environ}

    def records(self) -> dict[str, dict]:
        results = self.folder / "results"
        paths = sorted(path for path in results.rglob("batch-*.json") if "superseded" not in path.name)
        return {str(path.relative_to(results)): json.loads(path.read_text()) for path in paths}

    def has_begun(self, name: str) -> bool:
        """Whether the job of a record is running."""
        return (self.folder / "logs" / name).with_suffix(".log").exists()


def end_of(run: subprocess.Popen) -> str:
    """What a run says until it ends."""
    printed, _ = run.communicate(timeout=HANGS_S)
    return printed


def jobs(cluster: Path, campaign: Campaign) -> list[dict[str, str]]:
    """What Slurm noted of every job of a campaign that is over."""
    lines = (cluster / "log/jobs.txt").read_text().splitlines()
    devices = (dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines)
    return [job for job in devices if job["WorkDir"] == str(campaign.folder)]


def queue(*options: str) -> list[str]:
    """Numbers of the jobs that wait or run."""
    asked = subprocess.run(["squeue", "-h", "-o", "%A", *options], capture_output=True, text=True)
    return asked.stdout.split()


def running_job() -> str:
    """The number of the one job that runs."""
    (job,) = wait_for(lambda: queue("-t", "running"))
    return job


def test_cells_that_share_a_job_share_no_fate(cluster, tmp_path):
    """One of six fails by itself, in the first of its attempts: the others are measured, once each."""
    campaign = Campaign.make_for(tmp_path, a100=on_slurm("a100", cells_per_job=6))
    fault = {"fault": "error", "on_batch": 2, "once": str(tmp_path / "been-here")}
    done = campaign.snakemake("--retries", "1", FAKE_ENGINE=json.dumps(fault))
    assert done.returncode != 0
    failed = f"a100/{FAKE}/fp32/batch-2.json"
    measured = campaign.records()
    assert len(measured) == 5
    assert failed not in measured
    assert f"fake fp32 batch 2: failed, see logs/{failed.replace('.json', '.log')} and " in done.stderr
    assert done.stderr.count(": failed") == 1
    assert "[6/6] " in done.stderr
    first, second = jobs(cluster, campaign)
    assert first["TimeLimit"] == str(6 * 3)
    assert second["TimeLimit"] == str(6 * 3 * 2)
    assert {devices["host"]["job"] for devices in measured.values()} == {first["JobId"]}
    times = sorted((devices["started_at"], devices["ended_at"]) for devices in measured.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))
    plan = campaign.plan()
    assert plan["measure"] == 1
    campaign.run()
    assert {name: campaign.records()[name] for name in measured} == measured
    assert failed in campaign.records()


def test_time_and_memory_that_ran_out_are_doubled_and_told(cluster, tmp_path):
    """Both at once, each on a node of its own: a limit of Slurm's is a minute at the least."""
    late, large = tmp_path / "late", tmp_path / "large"
    late.mkdir(), large.mkdir()
    slow = Campaign.make_for(late, ["fp32"], [1, 2], a100=on_slurm("a100", runtime_minutes=1))
    hungry = Campaign.make_for(large, ["fp32"], [1, 512], h200=on_slurm("h200", mem_mb=400))
    hang = {"fault": "hang", "on_batch": 2, "once": str(tmp_path / "been-here")}
    runs = [
        slow.start(FAKE_ENGINE=json.dumps(hang)),
        hungry.start(FAKE_ENGINE=json.dumps({"holds_bytes": 450_000_000})),
    ]
    slow_said, hungry_said = (end_of(run) for run in runs)
    assert runs[0].returncode == 0, slow_said
    assert "fake fp32 batch 2: failed (TIMEOUT on a1" in slow_said
    assert "attempt 2 of 3 follows" in slow_said
    (lost,) = slow.records()[f"a100/{FAKE}/fp32/batch-2.json"]["attempts"]
    assert (lost["attempt"], lost["state"], lost["node"]) == (1, "TIMEOUT", "a1")
    assert sorted(job["TimeLimit"] for job in jobs(cluster, slow)) == ["1", "1", "2"]
    assert lost["job"] in {job["JobId"] for job in jobs(cluster, slow) if job["JobState"] == "TIMEOUT"}
    assert "attempts" not in slow.records()[f"a100/{FAKE}/fp32/batch-1.json"]
    assert runs[1].returncode == 0, hungry_said
    records = hungry.records()
    assert len(records[f"h200/{FAKE}/fp32/batch-1.json"]["attempts"]) == 1
    printed = records[f"h200/{FAKE}/fp32/batch-1.json"]["attempts"][0]["said"]
    assert printed.startswith("measure.py: killed for memory during load: the job has ")
    assert printed.endswith("ask for more with machines.h200.slurm.mem_mb")
    assert printed.removeprefix("measure.py: ") in hungry_said
    # What did not fit is a result like any other, reached in the attempt that had the memory to reach it.
    assert records[f"h200/{FAKE}/fp32/batch-512.json"]["outcome"] == "oom"
    assert len(records[f"h200/{FAKE}/fp32/batch-512.json"]["attempts"]) == 1


def test_a_cancelled_cell_is_told_and_the_rest_is_kept(cluster, tmp_path):
    campaign = Campaign.make_for(tmp_path, ["fp32"], [1, 2], a100=on_slurm("a100"))
    run = campaign.start("--retries", "0", FAKE_ENGINE=json.dumps({"fault": "hang", "on_batch": 2}))
    name = f"a100/{FAKE}/fp32/batch-2.json"
    wait_for(lambda: campaign.has_begun(name))
    subprocess.run(["scancel", running_job()], check=True)
    printed = end_of(run)
    assert run.returncode != 0
    assert "fake fp32 batch 2: failed (CANCELLED on a1" in printed
    assert f"see logs/{name.replace('.json', '.log')} and " in printed
    assert not any((tmp_path / "results").rglob(".batch*"))
    (kept,) = campaign.records().items()
    campaign.run()
    assert kept in campaign.records().items()
    assert len(campaign.records()) == 2


def test_a_node_that_comes_back_loses_nothing_and_one_that_fails_is_tried_again(cluster, tmp_path):
    campaign = Campaign.make_for(tmp_path, ["fp32"], [1], a100=on_slurm("a100"))
    run = campaign.start(FAKE_ENGINE=json.dumps({"sleep_s": 1}))
    wait_for(lambda: campaign.has_begun(f"a100/{FAKE}/fp32/batch-1.json"))
    daemon = cluster / "run/slurmd-a1.pid"
    os.kill(int(daemon.read_text()), signal.SIGKILL)
    subprocess.run(["slurmd", "-N", "a1"], check=True)
    printed = end_of(run)
    assert run.returncode == 0, printed
    assert "failed" not in printed
    (record,) = campaign.records().values()
    assert "attempts" not in record
    assert [job["JobState"] for job in jobs(cluster, campaign)] == ["COMPLETED"]

    campaign.grid["batch_sizes"] = [1, 2]
    campaign.save()
    hang = {"fault": "hang", "on_batch": 2, "once": str(tmp_path / "been-here")}
    run = campaign.start(FAKE_ENGINE=json.dumps(hang))
    wait_for((tmp_path / "been-here").exists)
    subprocess.run(["scontrol", "update", "nodename=a1", "state=down", "reason=test"], check=True)
    subprocess.run(["scontrol", "update", "nodename=a1", "state=resume"])  # fails if the node is back already
    printed = end_of(run)
    assert run.returncode == 0, printed
    assert "fake fp32 batch 2: failed (NODE_FAIL on a1" in printed
    assert campaign.records()[f"a100/{FAKE}/fp32/batch-1.json"] == record
    (lost,) = campaign.records()[f"a100/{FAKE}/fp32/batch-2.json"]["attempts"]
    assert lost["state"] == "NODE_FAIL"


@pytest.mark.parametrize("cells_per_job", [1, 4])
def test_an_interrupted_run_cancels_its_jobs_and_goes_on_where_it_was(cluster, tmp_path, cells_per_job):
    campaign = Campaign.make_for(tmp_path, batch_sizes=[1, 2], a100=on_slurm("a100", cells_per_job=cells_per_job))
    run = campaign.start(FAKE_ENGINE=json.dumps({"sleep_s": 0.5}))
    wait_for(campaign.records)
    os.killpg(run.pid, signal.SIGINT)
    end_of(run)
    assert run.returncode != 0
    wait_for(lambda: not queue())
    kept = campaign.records()
    assert 1 <= len(kept) < 4
    assert campaign.plan()["measure"] == 4 - len(kept)
    campaign.run()
    records = campaign.records()
    assert len(records) == 4
    assert {name: records[name] for name in kept} == kept


def test_the_docs_are_right_word_for_word(cluster, tmp_path):
    """Every file and command of docs/cluster.md after the set-up, on nodes that seem to have the GPUs named there."""
    (tmp_path / "project").mkdir()
    campaign = Campaign.make_for(tmp_path / "project", ["fp32"], [1, 2])
    campaign.config |= {"device": "auto", "machines": None}
    campaign.save()
    text = (REPO / "docs/cluster.md").read_text().split("## Which machines")[1]
    machines, more = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    planning, *others, merging = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (campaign.folder / "cluster.yaml").write_text(machines)
    (campaign.folder / "short.yaml").write_text(more)
    gpus = {"a1": "NVIDIA A100-SXM4-80GB", "h1": "NVIDIA H200"}
    nodes = {node: [{"uuid": f"GPU-{node}", "name": name, "memory_bytes": 8 * 10**10}] for node, name in gpus.items()}
    environ = {
        **os.environ,
        **PROGRAMS.for_shells(),
        "PATH": f"{SNAKEMAKE.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPO}/tests/fake_nvml:{PLUGINS}",
        "FAKE_NVML": json.dumps({"nodes": nodes}),
    }

    def do(commands: str) -> str:
        command = ["bash", "-euc", commands]
        done = subprocess.run(
            command, cwd=campaign.folder, env=environ, capture_output=True, text=True, timeout=HANGS_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "[4/4] " in do(planning)
    devices = {name.split("/")[0]: record["device"]["name"] for name, record in campaign.records().items()}
    assert devices == {"a100": gpus["a1"], "h200": gpus["h1"]}
    printed = "".join(do(commands) for commands in others)
    assert printed.count("2 of 2 cells have a record") == 2
    elsewhere = tmp_path / "other/results"
    shutil.copytree(campaign.folder / "results", elsewhere)
    shutil.rmtree(campaign.folder / "results/h200")
    printed = do(merging)
    assert "2 files copied, 2 were here already, 0 conflicts: none" in printed
    assert "measure" not in printed
    assert "<h1>Text generation on a100, h200" in (campaign.folder / "results/report.html").read_text()
    shutil.rmtree(campaign.folder / "results")
    do(f"{planning.splitlines()[1]} short.yaml")
    assert len({record["host"]["job"] for record in campaign.records().values()}) == 3


def test_what_slurm_refuses_is_told(cluster, tmp_path):
    campaign = Campaign.make_for(tmp_path, ["fp32"], [1], a100=on_slurm("a100", partition="nowhere"))
    done = campaign.snakemake("--retries", "0")
    assert done.returncode != 0
    assert re.search(
        r"failed \(SLURM sbatch failed.*invalid partition specified: nowhere.*\)$", done.stderr, re.MULTILINE
    )
    assert not campaign.records()


def test_no_folder_or_configuration_reaches_a_shell(cluster, tmp_path):
    folder = tmp_path / '$(touch pwned) `touch pwned` "$HOME" ; touch pwned'
    folder.mkdir()
    campaign = Campaign.make_for(folder, ["fp32"], [1], a100=on_slurm("a100"))
    campaign.run()
    assert len(campaign.records()) == 1
    assert not list(tmp_path.rglob("pwned"))


def test_planning_needs_no_gpu_and_no_torch(cluster, tmp_path):
    """As on a login node where only Snakemake and the small packages are installed."""
    (tmp_path / "blind").mkdir()
    (tmp_path / "blind/sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    def __init__(self, finder): self.finder = finder\n"
        "    def __getattr__(self, name): return getattr(self.finder, name)\n"
        "    def find_spec(self, name, *more):\n"
        "        gone = ('torch', 'transformers', 'accelerate', 'bitsandbytes', 'ctranslate2', 'tokenizers')\n"
        "        return None if name.partition('.')[0] in gone else self.finder.find_spec(name, *more)\n"
        "sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]\n"
    )
    (tmp_path / "project").mkdir()
    campaign = Campaign.make_for(tmp_path / "project", a100=on_slurm("a100"))
    campaign.grid["engines"] = ["hf", "ctranslate2"]
    campaign.save()
    blind = {"PYTHONPATH": f"{tmp_path}/blind:{PLUGINS}", "CUDA_VISIBLE_DEVICES": ""}
    gone = subprocess.run(
        [sys.executable, "-c", "import torch"], env={**os.environ, **blind}, capture_output=True, text=True
    )
    assert "No module named 'torch'" in gone.stderr
    command = [word for word in campaign.command("-n") if word not in ("--config", "device=cpu")]
    done = subprocess.run(command, cwd=campaign.folder, env={**os.environ, **blind}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^measure +12$", done.stdout + done.stderr, re.MULTILINE)


def test_the_cpu_grid_goes_through_the_profile_to_finished_tables(cluster, tmp_path, ceilings_once):
    """Real models; the GPU asked for by its model on one machine, as a generic resource on the other, whose ceilings are
    there already. The last test, because another process may have measured them by now."""
    by_gres = {"gres": "gpu:h200:1", "constraint": "h200", "partition": "gpu"}
    campaign = Campaign.make_for(
        tmp_path,
        precisions=["fp32"],
        batch_sizes=[1, 100_000],
        a100=on_slurm("a100", mem_mb=6000),
        h200=on_slurm(None, mem_mb=6000, cells_per_job=2, **by_gres),
    )
    campaign.grid["engines"] = ["hf"]
    campaign.save()
    ceilings = json.loads(ceilings_once.read_text())
    ceilings["study"]["machine"] = "h200"
    (tmp_path / "results/h200").mkdir(parents=True)
    (tmp_path / "results/h200/ceilings.json").write_text(json.dumps(ceilings))
    done = campaign.run()
    assert "[5/5] " in done.stderr
    assert re.search(r"a100: tiny prompt4-new8 hf fp32 batch 1: [\d,.]+ tok/s", done.stderr)
    column = "tiny/prompt4-new8/hf/fp32"
    assert {name: (devices["outcome"], devices["host"]["name"]) for name, devices in campaign.records().items()} == {
        f"a100/{column}/batch-1.json": ("ok", "a1"),
        f"a100/{column}/batch-100000.json": ("oom", "a1"),
        f"h200/{column}/batch-1.json": ("ok", "h1"),
        f"h200/{column}/batch-100000.json": ("oom", "h1"),
    }
    for machine in ("a100", "h200"):
        tables = (tmp_path / f"results/{machine}/tables.md").read_text()
        assert f"### tiny on {machine}" in tables
        assert "oom" in tables
    page = (tmp_path / "results/report.html").read_text()
    assert "<h1>Text generation on a100, h200" in page
    # Only cells and ceilings took a job each, and those of one GPU came one after the other.
    over = jobs(cluster, campaign)
    assert {job["JobState"] for job in over} == {"COMPLETED"}
    assert {devices["host"]["job"] for devices in campaign.records().values()} < {job["JobId"] for job in over}
    for node in ("a1", "h1"):
        spans = sorted((job["StartTime"], job["EndTime"]) for job in over if job["NodeList"] == node)
        assert len(spans) == {"a1": 3, "h1": 1}[node]  # a job for two cells, which has the time of both
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert sorted(job["TimeLimit"] for job in over) == ["3", "3", "3", "6"]
    assert "Nothing to be done" in (again := campaign.run("-n")).stdout + again.stderr
