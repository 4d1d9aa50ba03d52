"""What a preview says of what is not in its tables."""

from __future__ import annotations

from made_up import make_cell, make_experiment, make_record, write_records

from inference_benchmark.render.preview import preview


def test_failed_studies_and_further_rounds_are_named_with_their_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path, [make_record(make_cell(batch_size=1, engine="hf"))])
    column = "box/tiny/prompt4-new8/hf/fp32"
    for name in ("batch-1.round-2", "batch-2", "batch-2.round-2", "divergence"):
        log = tmp_path / f"logs/{column}/{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"measure.py: KeyError during load: '{name}'\n")
    state = preview(make_experiment(1, 2, rounds=2, divergence=True, engines=("hf",)))
    failed = {cell.record: cell.reason for cell in state.results if cell.outcome == "failed"}
    assert failed == {f"results/{column}/batch-2.json": f"logs/{column}/batch-2.log: KeyError during load: 'batch-2'"}
    labels = {"batch-2": "batch 2", "batch-1.round-2": "batch 1 round 2", "divergence": "divergence"}
    assert state.problems == [
        f"Failed: tiny prompt4-new8 hf fp32 {label}, see logs/{column}/{name}.log:\n    KeyError during load: '{name}'"
        for name, label in labels.items()
    ], "not the second round of a cell that failed in the first"
