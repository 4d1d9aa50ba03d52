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
    reason = f"logs/{column}/%s.log: measure.py: KeyError during load: '%s'"
    assert failed == {f"results/{column}/batch-2.json": reason % ("batch-2", "batch-2")}
    assert state.unused == [
        f"results/{column}/{name}.json: failed: {reason % (name, name)}" for name in ("batch-1.round-2", "divergence")
    ], "not the second round of a cell that failed in the first"
