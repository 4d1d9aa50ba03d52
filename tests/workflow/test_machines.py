"""Real Snakemake: several machines in one run."""

from __future__ import annotations

import json
import shutil

from running import NOTHING, REPO, scramble


def named(device_name) -> dict:
    """A machine of the configuration, with what its jobs would ask Slurm for."""
    asked = dict.fromkeys(("partition", "account", "gpu_model", "gres", "constraint"))
    return {"device_name": device_name, "slurm": {**asked, "cpus": 1, "mem_mb": 500, "runtime_minutes": 1}}


def test_a_cell_on_other_hardware_than_its_label_says_is_refused(measured):
    """Measured here or brought from elsewhere."""
    measured.grid.update(precisions=["fp32"], batch_sizes=[1, 2])
    shutil.move(measured.folder / "results/box", measured.folder / "results/ours")
    for path in (measured.folder / "results/ours").rglob("batch-*.json"):
        record = json.loads(path.read_text())
        record["cell"]["machine"] = "ours"
        path.write_text(json.dumps(record))
    shutil.rmtree(measured.folder / ".snakemake")
    measured.config |= {"machine": "auto", "machines": {"ours": named(None), "theirs": named("No Such Device")}}
    measured.save()
    done = measured.snakemake()
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert "machines.theirs.device_name asks for 'No Such Device'; nothing was measured" in printed
    assert not list((measured.folder / "results").glob("theirs/**/batch-*.json"))
    assert (measured.folder / "results/ours/report.html").exists()
    measured.config["machines"]["ours"]["device_name"] = "No Such Device"
    measured.save()
    done = measured.snakemake("results/ours/summary.csv")
    assert done.returncode != 0
    name = "results/ours/tiny/prompt4-new8/fake/fp32/batch-1.json"
    assert f"{name}: measured on " in done.stdout + done.stderr
    measured.config["machines"]["theirs"]["device_name"] = None
    measured.config["machines"]["ours"]["device_name"] = None
    measured.save()
    measured.run()
    assert "<h1>Text generation on ours, theirs" in (measured.folder / "results/report.html").read_text()
    assert measured.plan() == NOTHING
    shutil.rmtree(measured.folder / ".snakemake")
    scramble(measured.folder)
    assert measured.plan() == NOTHING
    shutil.copy(REPO / "README.md", measured.folder / "README.md")
    measured.run("readme")
    text = (measured.folder / "README.md").read_text()
    assert "### tiny on ours" in text
    assert "### tiny on theirs" in text
    assert "results/theirs/charts/" in text
    assert measured.run("preview").stdout.count("2 of 2 cells have a record") == 2
