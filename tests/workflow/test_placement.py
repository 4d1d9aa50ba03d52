"""Real Snakemake and real models: one that does not fit, from weights on disk to a share of the limit, and one that is
split over two processes."""

from __future__ import annotations

import json

from made_up import MODELS
from running import NOTHING, SUMMARY, TABLES, Workspace, fake_grid, shorten_ceilings

from inference_benchmark.results.summary_csv import read_summary

#: As in tests/engines/test_placement.py.
LARGE = {"model_type": "bloom", "hidden_size": 512, "n_head": 8, "n_layer": 4, "vocab_size": 25_000}


def test_a_model_that_does_not_fit_has_all_its_figures(tmp_path):
    grid = fake_grid(
        models=["tiny", "llama"],
        engines=["hf", "hf-disk", "hf-tensor"],
        precisions=["fp32"],
        batch_sizes=[1],
        memory_limit="100 MB",
        divergence=True,
    )
    models = {"tiny": {"architecture": LARGE}, "llama": {"architecture": MODELS["llama"]}}
    workspace = Workspace.make(tmp_path, grid, models)
    workspace.config["engines"] = {
        "hf-disk": {"engine": "hf", "placement": "disk-offload"},
        "hf-tensor": {"engine": "hf", "placement": "tensor", "gpus": 2},
    }
    workspace.save()
    shorten_ceilings(tmp_path)
    workspace.run(SUMMARY, TABLES)
    results = {(each.column.model, each.column.engine): each for each in read_summary(tmp_path / SUMMARY)}
    assert {name: each.outcome for name, each in results.items()} == {
        **{("tiny", "hf"): "oom", ("tiny", "hf-disk"): "ok", ("tiny", "hf-tensor"): "unsupported"},
        **{("llama", "hf"): "ok", ("llama", "hf-disk"): "unsupported", ("llama", "hf-tensor"): "ok"},
    }
    placed, without_plan = results["tiny", "hf-disk"], results["tiny", "hf-tensor"]
    assert placed.column.options == (("placement", "disk-offload"),)
    # The floor is that of reading what is on disk, or above it.
    ceilings = json.loads((tmp_path / "results/box/ceilings.json").read_text())
    links = [each for each in ceilings["results"] if each["kind"] == "link"]
    assert [(each["link"], each["kernel"]) for each in links] == [("disk", "read"), ("disk", "mapped")]
    best = max(each["moved_bytes"] / min(each["samples_s"]) for each in links)
    on_disk = workspace.record("fp32", 1, engine="hf-disk")["model"]["shapes"]["link_bytes"]["disk"]
    assert placed.value("whole_floor_s") >= 8 * on_disk / best * 0.999
    assert placed.value("token_agreement") == 1
    assert (without_plan.record, without_plan.reason) == (
        "",
        "transformers has no plan of tensor parallelism for bloom",
    )
    whole, split = results["llama", "hf"], results["llama", "hf-tensor"]
    # By the ceilings of the same CPU.
    assert split.value("whole_floor_s") == whole.value("whole_floor_s")
    assert split.value("token_agreement") == 1
    assert "hf-disk" in (tmp_path / TABLES).read_text()
    assert workspace.plan(SUMMARY) == NOTHING
