"""Real Snakemake: baselines in tables, charts and page."""

from __future__ import annotations

import json
import os
import shutil

from running import NOTHING, TABLES, measure_jobs


def test_a_baseline_stands_in_tables_charts_and_page(measured):
    shutil.copytree(measured.folder / "results/box", measured.folder / "before")
    for path in (measured.folder / "before").rglob("batch-1.json"):
        record = json.loads(path.read_text())
        for run in record["runs"]:
            run["samples_s"] = [2 * seconds for seconds in run["samples_s"]]
        path.write_text(json.dumps(record))
    measured.config["baselines"] = {"before": "before", "a100-80gb": None}
    measured.save()
    plan = measured.plan()
    assert measure_jobs(plan) == 0
    assert plan["comparison"] == 1
    measured.run()
    results = measured.folder / "results/box"
    text = (results / "tables.md").read_text()
    assert "| before<br>fake fp32 |" in text
    against = text.split("Against before (times its throughput)")[1].split("\n\n")[1]
    assert against.splitlines()[2].split("|")[2].strip() == "2.00x △"
    assert "both oom" in against
    assert "△ ▽ perhaps: one side was measured in a single process" in text
    assert "before fake fp32" in (results / "charts/tiny-prompt4-new8-throughput-light.svg").read_text()
    assert "before fake fp32" in (results / "report.html").read_text()
    assert measured.plan() == NOTHING
    compared = measured.run("compare")
    assert "6 cells in common: 2 perhaps faster" in compared.stdout
    # A baseline that changes is noticed, also where its times tell nothing.
    path = next((measured.folder / "before").rglob("batch-2.json"))
    record = json.loads(path.read_text())
    record["runs"][0]["samples_s"] = [9.0, 9.0, 9.0]
    path.write_text(json.dumps(record))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert measured.plan().get("comparison") == 1


def test_a_baseline_that_cannot_be_used_is_named_before_any_job(workspace):
    (workspace.folder / "bad.csv").write_text(
        "model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,ok,-3\n"
    )
    (workspace.folder / "latin.csv").write_bytes(b"model,precision\nmod\xe8le,fp32\n")
    os.mkfifo(workspace.folder / "pipe.csv")
    workspace.config["baselines"] = {"gone": "no/where", "bad": "bad.csv", "latin": "latin.csv", "pipe": "pipe.csv"}
    workspace.save()
    printed = (done := workspace.snakemake()).stdout + done.stderr
    assert done.returncode != 0
    assert "baselines.gone: no/where: No such file or directory" in printed
    assert "baselines.bad: bad.csv: row 1: throughput_tok_per_s: '-3' is not allowed; allowed: a number" in printed
    assert "baselines.latin: latin.csv: line 2: not UTF-8 (byte 0xe8); save it as UTF-8" in printed
    assert "baselines.pipe: pipe.csv: Not a regular file" in printed
    assert "Traceback" not in printed
    assert not (workspace.folder / "results").exists()


def test_without_a_baseline_there_is_nothing_to_compare_with(measured):
    measured.config["baselines"] = {"a100-80gb": None}
    measured.save()
    done = measured.snakemake("compare")
    assert done.returncode != 0
    assert "baselines: names nothing to compare with" in done.stdout + done.stderr
    measured.run(TABLES)
    assert "Against" not in (measured.folder / "results/box/tables.md").read_text()
