"""Real Snakemake and a real model that reads a text: quality, and prompts."""

from __future__ import annotations

import json
import shutil

import readers
from running import TABLES, Workspace, fake_grid

from inference_benchmark.models import texts


def test_quality_goes_from_the_configuration_to_the_tables(tmp_path, ceilings_once):
    checkpoint, text = readers.save(tmp_path / "reader"), tmp_path / "w/mine.txt"
    grid = fake_grid(
        models=["reader"],
        engines=["hf"],
        precisions=["fp32", "nf4"],
        batch_sizes=[1, 2],
        workloads=[
            {"prompt_tokens": 4, "new_tokens": 2},
            {"prompt_tokens": 4, "new_tokens": 2, "prompts": "text", "text": "mine.txt"},
        ],
        memory_limit=None,
        batch_invariance=True,
        quality={"text": "mine.txt", "tokens": 1024},
    )
    (tmp_path / "w").mkdir()
    workspace = Workspace.make(tmp_path / "w", grid, {"reader": {"checkpoint": str(checkpoint)}})
    text.write_text(readers.TEXT)
    (workspace.folder / "results/box").mkdir(parents=True)
    shutil.copy(ceilings_once, workspace.folder / "results/box/ceilings.json")
    done = workspace.run(TABLES)
    assert "reader prompt257-new255 hf nf4 quality: perplexity " in done.stderr
    assert (
        "reader prompt4-new2-text hf fp32 batch-invariance: of the tokens as at batch 1: batch 1 100.0%" in done.stderr
    )
    records = [
        json.loads((workspace.folder / f"results/box/reader/{name}/hf/fp32/batch-2.json").read_text())
        for name in ("prompt4-new2", "prompt4-new2-text")
    ]
    lengths = {"prompt_tokens": 4, "new_tokens": 2}
    kept = texts.Text("mine.txt", readers.TEXT)
    of_text = {**lengths, "prompts": kept.name, "prompts_sha256": kept.sha256}
    assert [each["cell"]["workload"] for each in records] == [lengths, of_text]
    random, of_text = (each["runs"][0]["tokens_sha256"] for each in records)
    assert random != of_text
    tables = (workspace.folder / TABLES).read_text()
    assert tables.count("Same tokens as at batch 1 ") == 2
    assert "4 prompt tokens of a text, 2 new tokens per sequence; " in tables
    assert tables.count("| perplexity, times that of hf fp32 ") == 2, "of each workload"
    assert tables.count(" 1.000 (1.000 to 1.000) ") == 2
    assert not {"quality", "batch_invariance", "measure", "collect"} & workspace.plan().keys()
    text.write_text(readers.TEXT + "!")
    plan = workspace.plan()
    assert (plan["measure"], plan["batch_invariance"], plan["quality"]) == (4, 2, 2)
