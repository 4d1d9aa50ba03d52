"""Real Snakemake and a real model that does not fit: from weights on disk to a share of the limit."""

from __future__ import annotations

import json

from running import NOTHING, SUMMARY, TABLES, Workspace, fake_grid, shorten_ceilings

from inference_benchmark.results.summary_csv import read_summary

#: As in tests/engines/test_placement.py.
LARGE = {"model_type": "bloom", "hidden_size": 512, "n_head": 8, "n_layer": 4, "vocab_size": 25_000}


def test_a_model_that_does_not_fit_has_all_its_figures(tmp_path):
    grid = fake_grid(
        models=["tiny"],
        engines=["hf", "hf-disk"],
        precisions=["fp32"],
        batch_sizes=[1],
        memory_limit="100 MB",
        divergence=True,
    )
    workspace = Workspace.make(tmp_path, grid, {"tiny": {"architecture": LARGE}})
    workspace.config["engines"] = {"hf-disk": {"engine": "hf", "placement": "disk-offload"}}
    workspace.save()
    shorten_ceilings(tmp_path)
    workspace.run(SUMMARY, TABLES)
    whole, placed = read_summary(tmp_path / SUMMARY)
    assert (whole.outcome, placed.outcome) == ("oom", "ok"), placed.reason
    assert placed.column.options == (("placement", "disk-offload"),)
    # The floor is that of reading what is on disk, or above it.
    ceilings = json.loads((tmp_path / "results/box/ceilings.json").read_text())
    links = [each for each in ceilings["results"] if each["kind"] == "link"]
    assert [(each["link"], each["kernel"]) for each in links] == [("disk", "read"), ("disk", "mapped")]
    best = max(each["moved_bytes"] / min(each["samples_s"]) for each in links)
    on_disk = workspace.record("fp32", 1, engine="hf-disk")["model"]["shapes"]["link_bytes"]["disk"]
    assert placed.value("whole_floor_s") >= 8 * on_disk / best * 0.999
    assert placed.value("token_agreement") == 1
    assert "hf-disk" in (tmp_path / TABLES).read_text()
    assert workspace.plan(SUMMARY) == NOTHING
