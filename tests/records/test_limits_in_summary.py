"""Ceilings and cells make the limits in the summary."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from made_up import make_ceilings, make_cell, make_record, make_run

from inference_benchmark.analysis.figures import BY_NAME
from inference_benchmark.analysis.roofline import Matrix, Shapes
from inference_benchmark.compare import comparison, result_set
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.records import summary
from inference_benchmark.records.record import Record
from inference_benchmark.render.columns import figures_text

SIMPLE = Shapes((Matrix("m", 2, 10, 10, 100, "float32"),), 0, 0, 4, 5, "float32", 0)


def limited_record(latency_s: float, first_token_s: float) -> Record:
    cell = make_cell(batch_size=1, workload=Workload(3, 5), engine="hf")
    run = make_run(samples_s=[latency_s] * 3, first_token_s=[first_token_s] * 3)
    return make_record(cell, runs=(run,), model={"parameters": 1, "tf32": False, "shapes": asdict(SIMPLE)})


def test_a_cell_faster_than_its_limit_is_flagged_and_one_within_the_scatter_of_the_ceilings_is_not(tmp_path):
    cell, ceilings = limited_record(200.0, 50.0), make_ceilings()
    studies = summary.Studies.of({"results/box/ceilings.json": ceilings})
    row = summary.row(cell, "", studies)
    # Prefill at the median: 212 bytes at 10 per second, 1 320 operations at 5 per second.
    assert row["prefill_floor_s"] == pytest.approx(1320 / 5)
    assert row["prefill_limit_share"] == pytest.approx(1320 / 5 / 50)
    assert row["prefill_bound_by"] == "arithmetic"
    assert "above-limit" in row["flags"]
    assert "prefill at 528.0% of its limit" in row["notes"]
    slow = summary.row(limited_record(20_000.0, 5_000.0), "", studies)
    assert slow["flags"] == ""
    assert figures_text(slow, BY_NAME["whole_limit_share"]) == "3.4% a | 5.3% a | 2.7% a"
    # No comparison rests on a cell that cannot be, whether its records or only its figures are there.
    path = tmp_path / cell.cell.path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(cell.to_document()))
    (tmp_path / "results/box/ceilings.json").write_text(json.dumps(ceilings.to_document()))
    table = tmp_path / "table.csv"
    table.write_text(summary.to_csv(summary.summarise([cell], studies.records)))
    for path in (tmp_path / "results/box", table):
        impossible = result_set.load(path, "impossible")
        for pair in ((impossible, impossible), (impossible, result_set.of_records([cell]))):
            (compared,) = comparison.compare(*pair).cells
            assert (compared.verdict, compared.ratio, compared.p_value) == ("above limit", None, None)
    # What was measured on another machine says nothing of this one.
    other = replace(ceilings, device={"kind": "cpu", "name": "Other"})
    assert "whole_limit_share" not in summary.row(cell, "", summary.Studies.of({"results/box/ceilings.json": other}))
