"""The profile for Slurm on a real one: two nodes on this machine, with a made-up GPU of another type each."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from conftest import FAKE_GRID, REPO, Workspace

CONF = Path("/etc/slurm/slurm.conf")
PLUGINS = REPO / ".venv/slurm"


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
def cluster():
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


def on_slurm(gpu_model: str, **changes) -> dict:
    """A machine of the configuration whose jobs ask for this GPU."""
    asked = {
        "partition": "gpu", "account": None, "gpu_model": gpu_model, "gres": None, "constraint": None, "cpus": 1,
        "mem_mb": 600, "runtime_minutes": 3,
    }  # fmt: skip
    return {"device_name": None, "slurm": asked | changes}


class Campaign(Workspace):
    """A project whose cells go to Slurm."""

    @classmethod
    def make_for(cls, folder: Path, **machines) -> Campaign:
        made = cls.make(folder, json.loads(json.dumps(FAKE_GRID)))
        made.config |= {"machine": "auto", "machines": machines}
        made.save()
        return made

    def command(self, *arguments: str) -> list[str]:
        """snakemake with the profile, at a faster pace; -n and other programs' ways to end it by SIGINT hold."""
        snakemake = super().command()[0]
        pace = [
            "--slurm-init-seconds-before-status-checks",
            "2",
            "--latency-wait",
            "10",
            "--slurm-keep-successful-logs",
        ]
        return [snakemake, *arguments, "--profile", "profiles/slurm", *pace, "--config", "device=cpu"]

    def snakemake(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
        return super().snakemake(*arguments, **{"PYTHONPATH": str(PLUGINS)} | environ)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env={**os.environ, "PYTHONPATH": str(PLUGINS), **environ}, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def records(self) -> dict[str, dict]:
        results = self.folder / "results"
        found = sorted(path for path in results.rglob("batch-*.json") if "superseded" not in path.name)
        return {str(path.relative_to(results)): json.loads(path.read_text()) for path in found}


def jobs(cluster: Path) -> list[dict[str, str]]:
    """What Slurm noted of every job that is over."""
    lines = (cluster / "log/jobs.txt").read_text().splitlines()
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]


def wait_for(what, seconds: float = 60):
    """The first true value of what(), asked again and again."""
    for _ in range(int(seconds * 10)):
        if value := what():
            return value
        time.sleep(0.1)
    raise AssertionError(f"nothing came of {what} in {seconds} s")


def running() -> list[str]:
    """Numbers of the jobs that run."""
    asked = subprocess.run(["squeue", "-h", "-t", "running", "-o", "%A"], capture_output=True, text=True)
    return asked.stdout.split()


def test_one_run_measures_the_grid_on_every_machine_to_finished_tables(cluster, tmp_path):
    campaign = Campaign.make_for(tmp_path, a100=on_slurm("a100"), h200=on_slurm("h200"))
    before = len(jobs(cluster)) if (cluster / "log/jobs.txt").exists() else 0
    done = campaign.run()
    assert "[12/12] " in done.stderr
    assert "a100: tiny prompt4-new8 fake fp32 batch 1: 492.3 tok/s" in done.stderr
    records = campaign.records()
    assert len(records) == 12
    assert {(name.split("/")[0], known["host"]["name"]) for name, known in records.items()} == {
        ("a100", "a1"),
        ("h200", "h1"),
    }
    for machine in ("a100", "h200"):
        tables = (tmp_path / f"results/{machine}/tables.md").read_text()
        assert f"### tiny on {machine}" in tables
        assert "oom" in tables
    page = (tmp_path / "results/report.html").read_text()
    assert "<h1>Text generation on a100, h200" in page
    # Only cells took a job each, and those of one GPU came one after the other.
    over = jobs(cluster)[before:]
    assert len(over) == 12
    assert {job["JobState"] for job in over} == {"COMPLETED"}
    for node in ("a1", "h1"):
        spans = sorted((job["StartTime"], job["EndTime"]) for job in over if job["NodeList"] == node)
        assert len(spans) == 6
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert "Nothing to be done" in (again := campaign.run("-n")).stdout + again.stderr


def test_a_cancelled_cell_is_told_and_the_rest_is_kept(cluster, tmp_path):
    campaign = Campaign.make_for(tmp_path, a100=on_slurm("a100"))
    campaign.grid["batch_sizes"], campaign.grid["precisions"] = [1, 2], ["fp32"]
    campaign.save()
    run = campaign.start("--retries", "0", FAKE_ENGINE=json.dumps({"fault": "hang", "on_batch": 2}))
    folder = tmp_path / "results/a100/tiny/prompt4-new8/fake"
    logs = tmp_path / "logs/a100/tiny/prompt4-new8/fake"
    wait_for(lambda: (logs / "fp32/batch-2.log").exists() and (folder / "fp32/batch-1.json").exists())
    (job,) = wait_for(running)
    subprocess.run(["scancel", job], check=True)
    said, _ = run.communicate(timeout=180)
    assert run.returncode != 0
    assert "CANCELLED" in said
    assert not any(folder.rglob(".batch*"))
    kept = {path: path.read_bytes() for path in folder.rglob("batch-*.json")}
    assert len(kept) == 1
    campaign.run()
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(campaign.records()) == 2


def test_an_interrupted_run_cancels_its_jobs_and_goes_on_where_it_was(cluster, tmp_path):
    campaign = Campaign.make_for(tmp_path, a100=on_slurm("a100"))
    run = campaign.start(FAKE_ENGINE=json.dumps({"sleep_s": 0.5}))
    wait_for(campaign.records)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=120)
    assert run.returncode != 0
    wait_for(lambda: not running())
    queued = subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout
    assert not queued.strip()
    kept = {name: known["started_at"] for name, known in campaign.records().items()}
    assert 1 <= len(kept) < 6
    campaign.run()
    records = campaign.records()
    assert len(records) == 6
    again = [name for name, started_at in kept.items() if records[name]["started_at"] != started_at]
    assert len(again) <= 1  # one may have been cut off between its record and the end of its job
