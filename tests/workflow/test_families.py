"""Real Snakemake and real engines: what some families cannot do keeps no other from its tables."""

from __future__ import annotations

import shutil

from families import FAMILIES
from running import REPORT, SUMMARY, TABLES, Workspace, fake_grid

from inference_benchmark.results.summary_csv import read_summary


def test_a_refused_family_does_not_keep_the_others_from_tables_and_report(tmp_path, ceilings_once):
    names = ["gpt_neox", "falcon-alibi"]
    grid = fake_grid(
        models=names,
        engines=["hf", "ctranslate2"],
        precisions={"hf": ["int8"], "ctranslate2": ["fp32"]},
        batch_sizes=[1],
        workloads=[{"prompt_tokens": 4, "new_tokens": 2}],
        memory_limit=None,
        divergence=True,
    )
    workspace = Workspace.make(tmp_path, grid, {name: {"architecture": FAMILIES[name]} for name in names})
    (tmp_path / "results/box").mkdir(parents=True)
    shutil.copy(ceilings_once, tmp_path / "results/box/ceilings.json")
    workspace.run(SUMMARY, TABLES, REPORT)
    results = read_summary(tmp_path / SUMMARY)
    refused = [each for each in results if each.outcome == "unsupported"]
    assert [(each.column.model, each.column.engine, each.column.precision) for each in refused] == [
        ("gpt_neox", "ctranslate2", "fp32"),
        ("falcon-alibi", "hf", "int8"),
    ]
    assert sum(each.is_measured for each in results) == 2
    converted, quantised = (each.reason for each in refused)
    assert "'GPTNeoXConfig' object has no attribute 'rotary_pct'" in converted
    assert "0 of 98,304 weights of the blocks are int8" in quantised
    tables = (tmp_path / TABLES).read_text()
    assert "Not supported: ctranslate2 fp32" in tables
    assert "Not supported: hf int8 (" in tables
    assert "do not go together" in (tmp_path / REPORT).read_text()
