"""Real Snakemake: results of earlier runs over time."""

from __future__ import annotations

import json
import shutil

from running import measure_jobs


def test_earlier_results_and_those_of_now_are_on_one_page(measured):
    shutil.copytree(measured.folder / "results/box", measured.folder / "before")
    for path in (measured.folder / "before").rglob("batch-*.json"):
        record = json.loads(path.read_text())
        record["started_at"] = "2026-01-01T00:00:00.000+00:00"
        record["software"]["torch"] = "1.0"
        for run in record["runs"]:
            run["samples_s"] = [2 * seconds for seconds in run["samples_s"]]
        path.write_text(json.dumps(record))
    measured.config["history"] = ["before"]
    measured.save()
    assert measure_jobs(measured.plan("history")) == 0
    done = measured.run("history")
    assert "Result sets: 2; cells over time: 4; steps: 4." in done.stdout
    assert "tiny prompt4-new8 fake fp32 batch 1 on box: 2.000 (perhaps) from #1 2026-01-01 00:00 to #2 " in done.stdout
    page = (measured.folder / "results/history.html").read_text()
    assert "#1 2026-01-01 00:00: before" in done.stdout
    assert "torch 1.0 → " in page
    assert measured.plan("history")["history"] == 1  # each request makes it anew
