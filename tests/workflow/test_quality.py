"""Real Snakemake and a real model that reads a text."""

from __future__ import annotations

import shutil

import readers
from running import TABLES, Workspace, fake_grid


def test_quality_goes_from_the_configuration_to_the_tables(tmp_path, ceilings_once):
    checkpoint, text = readers.save(tmp_path / "reader"), tmp_path / "w/mine.txt"
    grid = fake_grid(
        models=["reader"],
        engines=["hf"],
        precisions=["fp32", "nf4"],
        batch_sizes=[1],
        workloads=[{"prompt_tokens": 4, "new_tokens": 2}, {"prompt_tokens": 5, "new_tokens": 2}],
        memory_limit=None,
        quality={"text": "mine.txt", "tokens": 1024},
    )
    (tmp_path / "w").mkdir()
    workspace = Workspace.make(tmp_path / "w", grid, {"reader": {"checkpoint": str(checkpoint)}})
    text.write_text(readers.TEXT)
    (workspace.folder / "results/box").mkdir(parents=True)
    shutil.copy(ceilings_once, workspace.folder / "results/box/ceilings.json")
    done = workspace.run(TABLES)
    assert "reader prompt257-new255 hf nf4 quality: perplexity " in done.stderr
    tables = (workspace.folder / TABLES).read_text()
    assert tables.count("| perplexity, times that of hf fp32 ") == 2, "of each workload"
    assert tables.count(" 1.000 (1.000 to 1.000) ") == 2
    assert not {"quality", "measure", "collect"} & workspace.plan().keys()
