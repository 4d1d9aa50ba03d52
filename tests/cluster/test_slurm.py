"""The profile for Slurm on a real one: two nodes on this machine, with made-up GPUs of another type each."""

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
from running import PLANS, PROGRAMS, REPO, Workspace, fake_grid, shorten_ceilings, wait_for

CONF = Path("/etc/slurm/slurm.conf")
PLUGINS = REPO / ".venv/slurm"
#: It looks at the queue more often than people should.
SNAKEMAKE = REPO / "tests/slurm/snakemake"
#: A process that has imported Snakemake with them.
SUBMITS = Preloaded(*PLANS, "snakemake_executor_plugin_slurm", path=str(PLUGINS))
#: The column of a fake grid, from the machine's folder on.
FAKE = "tiny/prompt4-new8/fake/fp32"
#: What makes records only.
CELLS = ("--until", "measure")


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
    def make_for(cls, folder: Path, batch_sizes: tuple[int, ...], **machines) -> Campaign:
        folder.mkdir(exist_ok=True)
        grid = fake_grid(precisions=["fp32"], batch_sizes=list(batch_sizes))
        made = cls.make(folder, grid)
        made.config |= {"machine": "auto", "machines": machines}
        made.save()
        return made

    def command(self, *arguments: str) -> list[str]:
        """snakemake with the profile, on CPUs, but for the Python in front."""
        profile = ("--profile", "profiles/slurm", "--latency-wait", "10", "--slurm-keep-successful-logs")
        return [str(SNAKEMAKE), *arguments, *profile, "--config", "device=cpu"]

    def snakemake(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
        return SUBMITS.run(self.command(*arguments), self.folder, self._environment(environ))

    def start(self, *arguments: str, python: str | None = None, **environ: str) -> subprocess.Popen:
        """snakemake, not waited for. python: that of a run that is to be interrupted."""
        return subprocess.Popen(
            [python or SUBMITS.python, *self.command(*arguments)], cwd=self.folder, env=self._environment(environ),
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
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
    """One of three fails by itself, in the first of its attempts: the others are measured, once each."""
    campaign = Campaign.make_for(tmp_path, (1, 2, 512), a100=on_slurm("a100", cells_per_job=3))
    fault = {"fault": "error", "on_batch": 2, "once": str(tmp_path / "been-here")}
    done = campaign.snakemake("--retries", "1", FAKE_ENGINE=json.dumps(fault))
    assert done.returncode != 0
    failed = f"a100/{FAKE}/batch-2.json"
    measured = campaign.records()
    assert len(measured) == 2
    assert failed not in measured
    assert f"fake fp32 batch 2: failed, see logs/{failed.replace('.json', '.log')} and " in done.stderr
    assert done.stderr.count(": failed") == 1
    assert "[3/3] " in done.stderr
    first, second = jobs(cluster, campaign)
    assert first["TimeLimit"] == str(3 * 3)
    assert second["TimeLimit"] == str(3 * 3 * 2)
    assert {record["host"]["job"] for record in measured.values()} == {first["JobId"]}
    times = sorted((record["started_at"], record["ended_at"]) for record in measured.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))
    assert campaign.plan()["measure"] == 1


def test_time_and_memory_that_ran_out_are_doubled_and_told(cluster, tmp_path):
    """Both at once, each on a node of its own."""
    slow = Campaign.make_for(tmp_path / "late", (2,), a100=on_slurm("a100"))
    hungry = Campaign.make_for(tmp_path / "large", (512,), h200=on_slurm("h200", mem_mb=400))
    hang = {"fault": "hang", "once": str(tmp_path / "been-here")}
    runs = [
        slow.start(*CELLS, FAKE_ENGINE=json.dumps(hang)),
        hungry.start(*CELLS, FAKE_ENGINE=json.dumps({"holds_bytes": 450_000_000})),
    ]
    wait_for((tmp_path / "been-here").exists)
    (late,) = queue("-w", "a1")
    # Its time is up soon. Slurm looks for such jobs every half minute.
    subprocess.run(["scontrol", "update", f"jobid={late}", "endtime=now+15"], check=True)
    slow_said, hungry_said = (end_of(run) for run in runs)
    assert runs[0].returncode == 0, slow_said
    assert "fake fp32 batch 2: failed (TIMEOUT on a1" in slow_said
    assert "attempt 2 of 3 follows" in slow_said
    (lost,) = slow.records()[f"a100/{FAKE}/batch-2.json"]["attempts"]
    assert (lost["attempt"], lost["state"], lost["node"], lost["job"]) == (1, "TIMEOUT", "a1", late)
    assert [(job["JobState"], job["TimeLimit"]) for job in jobs(cluster, slow)][1:] == [("COMPLETED", str(3 * 2))]
    assert runs[1].returncode == 0, hungry_said
    # What did not fit is a result like any other, reached in the attempt that had the memory to reach it.
    record = hungry.records()[f"h200/{FAKE}/batch-512.json"]
    assert record["outcome"] == "oom"
    (lost,) = record["attempts"]
    printed = lost["said"]
    assert printed.startswith("measure.py: killed for memory during load: the job has ")
    assert printed.endswith("ask for more with machines.h200.slurm.mem_mb")
    assert printed.removeprefix("measure.py: ") in hungry_said


def test_a_cancelled_cell_is_told_and_the_rest_is_kept_and_no_name_of_a_folder_reaches_a_shell(cluster, tmp_path):
    folder = tmp_path / '$(touch pwned) `touch pwned` "$HOME" ; touch pwned'
    campaign = Campaign.make_for(folder, (1, 2), a100=on_slurm("a100"))
    run = campaign.start("--retries", "0", FAKE_ENGINE=json.dumps({"fault": "hang", "on_batch": 2}))
    name = f"a100/{FAKE}/batch-2.json"
    wait_for(lambda: campaign.has_begun(name))
    subprocess.run(["scancel", running_job()], check=True)
    printed = end_of(run)
    assert run.returncode != 0
    assert "fake fp32 batch 2: failed (CANCELLED on a1" in printed
    assert f"see logs/{name.replace('.json', '.log')} and " in printed
    assert not any((folder / "results").rglob(".batch*"))
    (kept,) = campaign.records().items()
    campaign.run()
    assert kept in campaign.records().items()
    assert len(campaign.records()) == 2
    assert not list(tmp_path.rglob("pwned"))


def test_a_node_that_comes_back_loses_nothing_and_one_that_fails_is_tried_again(cluster, tmp_path):
    """The first while the first cell is measured, the other while the second is."""
    campaign = Campaign.make_for(tmp_path, (1, 2), a100=on_slurm("a100"))
    hang = {"fault": "hang", "on_batch": 2, "once": str(tmp_path / "been-here"), "sleep_s": 0.2}
    run = campaign.start(*CELLS, "--jobs", "1", FAKE_ENGINE=json.dumps(hang))
    wait_for(lambda: campaign.has_begun(f"a100/{FAKE}/batch-1.json"))
    daemon = cluster / "run/slurmd-a1.pid"
    os.kill(int(daemon.read_text()), signal.SIGKILL)
    subprocess.run(["slurmd", "-N", "a1"], check=True)
    wait_for((tmp_path / "been-here").exists)
    subprocess.run(["scontrol", "update", "nodename=a1", "state=down", "reason=test"], check=True)
    subprocess.run(["scontrol", "update", "nodename=a1", "state=resume"])  # fails if the node is back already
    printed = end_of(run)
    assert run.returncode == 0, printed
    assert printed.count(": failed") == printed.count("fake fp32 batch 2: failed (NODE_FAIL on a1") == 1
    first, second = (campaign.records()[f"a100/{FAKE}/batch-{n}.json"] for n in (1, 2))
    assert "attempts" not in first
    assert [lost["state"] for lost in second["attempts"]] == ["NODE_FAIL"]
    assert [job["JobState"] for job in jobs(cluster, campaign)] == ["COMPLETED", "NODE_FAIL", "COMPLETED"]


def test_an_interrupted_run_cancels_its_jobs_and_goes_on_where_it_was(cluster, tmp_path):
    """Two at once, in one of which the cells share a job. The second cell never ends, whichever that is: one that began
    first would keep the others waiting until its time is up."""
    campaigns = [
        Campaign.make_for(tmp_path / "alone", (1, 2, 4), a100=on_slurm("a100")),
        Campaign.make_for(tmp_path / "shared", (1, 2, 4), h200=on_slurm("h200", cells_per_job=3)),
    ]
    hangs = [json.dumps({"fault": "hang", "unless_new": str(campaign.folder / "first")}) for campaign in campaigns]
    runs = [
        campaign.start(python=sys.executable, FAKE_ENGINE=hang) for campaign, hang in zip(campaigns, hangs, strict=True)
    ]
    for campaign, run in zip(campaigns, runs, strict=True):
        wait_for(campaign.records)
        os.killpg(run.pid, signal.SIGINT)
    for run in runs:
        end_of(run)
        assert run.returncode != 0
    wait_for(lambda: not queue())
    kept = [campaign.records() for campaign in campaigns]
    assert all(1 <= len(records) < 3 for records in kept)
    assert [campaign.plan()["measure"] for campaign in campaigns] == [3 - len(records) for records in kept]
    runs = [campaign.start(*CELLS) for campaign in campaigns]
    for campaign, run, before in zip(campaigns, runs, kept, strict=True):
        printed = end_of(run)
        assert run.returncode == 0, printed
        records = campaign.records()
        assert len(records) == 3
        assert {name: records[name] for name in before} == before


def test_the_docs_are_right_word_for_word(cluster, tmp_path):
    """Every file and command of docs/cluster.md after the set-up, on nodes that seem to have the GPUs named there. Each
    node has another GPU before it, of another job, which is counted and refused, as with ConstrainDevices: the job's own
    is number 0 to Slurm and CUDA."""
    campaign = Campaign.make_for(tmp_path / "project", (1,))
    campaign.config |= {"device": "auto", "machines": None}
    campaign.save()
    text = (REPO / "docs/cluster.md").read_text().split("## Which machines")[1]
    machines, more = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    planning, *others, merging = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (campaign.folder / "cluster.yaml").write_text(machines)
    (campaign.folder / "short.yaml").write_text(more)
    gpus = {"a1": "NVIDIA A100-SXM4-80GB", "h1": "NVIDIA H200"}
    nodes = {
        node: [{"uuid": "GPU-x", "refused": True}, {"uuid": f"GPU-{node}", "name": name, "memory_bytes": 8 * 10**10}]
        for node, name in gpus.items()
    }
    environ = {
        **os.environ,
        **PROGRAMS.for_shells(),
        "PYTHONPATH": f"{REPO}/tests/fake_nvml:{PLUGINS}",
        "FAKE_NVML": json.dumps({"nodes": nodes}),
    }
    snakemake = f'snakemake() {{ {SUBMITS.python} {SNAKEMAKE} "$@"; }}\n'

    def do(commands: str) -> str:
        command = ["bash", "-euc", snakemake + commands]
        done = subprocess.run(
            command, cwd=campaign.folder, env=environ, capture_output=True, text=True, timeout=HANGS_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "[2/2] " in do(planning)
    devices = {name.split("/")[0]: record["device"] for name, record in campaign.records().items()}
    found = {machine: (device["name"], device["uuid"]) for machine, device in devices.items()}
    assert found == {"a100": (gpus["a1"], "GPU-a1"), "h200": (gpus["h1"], "GPU-h1")}
    printed = "".join(do(commands) for commands in others)
    assert printed.count("1 of 1 cells have a record") == 2
    elsewhere = tmp_path / "other/results"
    shutil.copytree(campaign.folder / "results", elsewhere)
    shutil.rmtree(campaign.folder / "results/h200")
    printed = do(merging)
    assert "1 files copied, 1 were here already, 0 conflicts: none" in printed
    assert "measure" not in printed
    assert "<h1>Text generation on a100, h200" in (campaign.folder / "results/report.html").read_text()
    shutil.rmtree(campaign.folder / "results/a100")
    campaign.grid["batch_sizes"] = [1, 2]
    campaign.save()
    do(f"{planning.splitlines()[1]} short.yaml")
    jobs_of = {name: record["host"]["job"] for name, record in campaign.records().items()}
    assert len(jobs_of) == 4
    assert len(set(jobs_of.values())) == 3, "two cells of the a100 share one"


def test_a_cell_on_two_gpus_is_measured_once_on_one_node_that_has_both(cluster, tmp_path):
    """Beside one on a single GPU, in a job of its own although cells share jobs. The GPUs are asked for by their model,
    and as a generic resource."""
    by_gres = on_slurm(None, gres="gpu:h200:1", cells_per_job=4)
    campaign = Campaign.make_for(tmp_path, (1, 2), model=on_slurm("h200", cells_per_job=4), gres=by_gres)
    campaign.config["engines"] = {"pair": {"engine": "fake", "placement": "layers", "gpus": 2}}
    campaign.config["grid"]["cuda"] = {**campaign.grid, "engines": ["fake", "pair"]}
    campaign.save()
    gpus = [{"uuid": f"GPU-{n}", "name": "NVIDIA H200", "memory_bytes": 8 * 10**10} for n in range(2)]
    environ = campaign._environment(
        {"PYTHONPATH": f"{REPO}/tests/fake_nvml:{PLUGINS}", "FAKE_NVML": json.dumps({"nodes": {"h1": gpus}})}
    )
    command = ["device=cuda" if word == "device=cpu" else word for word in campaign.command(*CELLS)]
    done = SUBMITS.run(command, campaign.folder, environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[8/8] " in done.stderr
    found = {name: (record["device"], record["host"]) for name, record in campaign.records().items()}
    pairs = {name: [each["uuid"] for each in of["devices"]] for name, (of, _) in found.items() if "devices" in of}
    column = "tiny/prompt4-new8/pair/fp32"
    cells = [f"{machine}/{column}/batch-{n}.json" for machine in ("model", "gres") for n in (1, 2)]
    assert pairs == {name: ["GPU-0", "GPU-1"] for name in cells}
    for machine in ("model", "gres"):
        hosts = [host for name, (_, host) in found.items() if name.startswith(machine)]
        assert len({host["job"] for host in hosts}) == 3, "those on one GPU share a job"
    over = jobs(cluster, campaign)
    assert len(over) == 2 * 3
    assert {(job["JobState"], job["NodeList"], job["NodeCnt"]) for job in over} == {("COMPLETED", "h1", "1")}
    logs = [path.read_text() for path in (tmp_path / ".snakemake/slurm_logs").rglob("*.log")]
    # Once by the Snakemake of the job, once by that of its step.
    assert sum(text.count("Finished jobid") for text in logs) == 2 * 8, "nothing ran twice"


def test_what_slurm_refuses_is_told(cluster, tmp_path):
    campaign = Campaign.make_for(tmp_path, (1,), a100=on_slurm("a100", partition="nowhere"))
    done = campaign.snakemake("--retries", "0")
    assert done.returncode != 0
    assert re.search(
        r"failed \(SLURM sbatch failed.*invalid partition specified: nowhere.*\)$", done.stderr, re.MULTILINE
    )
    assert not campaign.records()


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
    campaign = Campaign.make_for(tmp_path / "project", (1, 2), a100=on_slurm("a100"))
    campaign.grid["engines"] = ["hf", "ctranslate2"]
    campaign.save()
    blind = {"PYTHONPATH": f"{tmp_path}/blind:{PLUGINS}", "CUDA_VISIBLE_DEVICES": ""}
    gone = subprocess.run(
        [sys.executable, "-c", "import torch"], env={**os.environ, **blind}, capture_output=True, text=True
    )
    assert "No module named 'torch'" in gone.stderr
    command = [word for word in campaign.command("-n") if word not in ("--config", "device=cpu")]
    command = [sys.executable, *command]
    done = subprocess.run(command, cwd=campaign.folder, env={**os.environ, **blind}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^measure +4$", done.stdout + done.stderr, re.MULTILINE)


def test_the_cpu_grid_goes_through_the_profile_to_finished_tables(cluster, tmp_path, ceilings_once):
    """Real models and small ceilings; the GPU asked for by its model on one machine, as a generic resource on the other, whose ceilings are
    there already. The last test, because another process may have measured them by now."""
    by_gres = {"gres": "gpu:h200:1", "constraint": "h200", "partition": "gpu"}
    campaign = Campaign.make_for(
        tmp_path,
        (1, 100_000),
        a100=on_slurm("a100", mem_mb=6000),
        h200=on_slurm(None, mem_mb=6000, cells_per_job=2, **by_gres),
    )
    campaign.grid["engines"] = ["hf"]
    campaign.save()
    shorten_ceilings(tmp_path)
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
