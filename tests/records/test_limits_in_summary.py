"""Ceilings and cells make the limits in the summary."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as some
from made_up import epyc_ceilings, epyc_record, make_ceilings, make_cell, make_record, make_run

from inference_benchmark.analysis.figures import BY_NAME
from inference_benchmark.analysis.metrics import PHASES
from inference_benchmark.analysis.roofline import Matrix, Shapes
from inference_benchmark.compare import comparing, result_set
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.records.record import Record
from inference_benchmark.records.results import Studies, cell_result, cell_results
from inference_benchmark.render.texts import figures_text
from inference_benchmark.results.cell_result import CellResult
from inference_benchmark.results.summary_csv import to_csv

SIMPLE = Shapes((Matrix("m", 2, 10, 10, 100, "float32"),), 0, 0, 4, 5, "float32", 0)


def limited_record(latency_s: float, first_token_s: float) -> Record:
    cell = make_cell(batch_size=1, workload=Workload(3, 5), engine="hf")
    run = make_run(samples_s=[latency_s] * 3, first_token_s=[first_token_s] * 3)
    return make_record(cell, runs=(run,), model={"parameters": 1, "tf32": False, "shapes": asdict(SIMPLE)})


def test_a_cell_faster_than_its_limit_has_none_and_is_flagged(tmp_path):
    cell, ceilings = limited_record(200.0, 50.0), make_ceilings()
    studies = Studies.of({"results/box/ceilings.json": ceilings})
    result = cell_result(cell, studies=studies)
    # Prefill: 212 bytes at 10 per second, 1 320 operations at 5 per second. The floor stays, as evidence.
    assert result.value("prefill_floor_s") == pytest.approx(1320 / 5)
    assert result.bound_by["prefill"] == "arithmetic"
    assert not {f"{phase}_limit_share" for phase in PHASES} & result.figures.keys()
    assert result.flags == ("above-limit",)
    assert result.notes == (
        "limit unknown: prefill took 50 s, its floor is 264 s, whole took 200 s, its floor is 672 s, "
        "decode took 150 s, its floor is 408 s; its shapes or the ceilings are wrong"
    )
    slow = cell_result(limited_record(20_000.0, 5_000.0), studies=studies)
    assert slow.flags == ()
    assert figures_text(slow, BY_NAME["whole_limit_share"]) == "3.4% a | 5.3% a | 2.7% a"
    # No comparison rests on a cell that cannot be, whether its records or only its figures are there.
    path = tmp_path / cell.cell.path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(cell.to_document()))
    (tmp_path / "results/box/ceilings.json").write_text(json.dumps(ceilings.to_document()))
    table = tmp_path / "table.csv"
    table.write_text(to_csv(cell_results([cell], studies.records)))
    for path in (tmp_path / "results/box", table):
        impossible = result_set.load(path, "impossible")
        for pair in ((impossible, impossible), (impossible, result_set.of_records([cell]))):
            (compared,) = comparing.compare(*pair).cells
            assert (compared.verdict, compared.ratio, compared.p_value) == ("above limit", None, None)
    # What was measured on another machine says nothing of this one.
    other = replace(ceilings, device={"kind": "cpu", "name": "Other"})
    other_studies = Studies.of({"results/box/ceilings.json": other})
    assert "whole_limit_share" not in cell_result(cell, studies=other_studies).figures


def epyc_result(prefill: float, decode: float) -> CellResult:
    """The result of a cell that computes at these speeds in Gflop/s on a machine that emulates int8 slowly."""
    record, ceilings = epyc_record(prefill, decode), epyc_ceilings()
    return cell_result(record, studies=Studies.of({ceilings.study.path: ceilings}))


def test_an_engine_faster_than_a_slow_emulation_is_held_against_fp32():
    result = epyc_result(31.0, 31.0)
    for phase in PHASES:
        assert result.value(f"{phase}_limit_share") == pytest.approx(31 / 67)
    assert result.flags == ()
    assert figures_text(result, BY_NAME["whole_limit_share"]) == "46.3% a | 46.3% a | 46.3% a"


@pytest.mark.parametrize(
    ("prefill", "decode", "text", "unknown"),
    [
        (80.0, 80.0, "? | ? | ?", ["prefill", "whole", "decode"]),
        (68.0, 6.7, "66.0% a | ? | 10.0% a", ["prefill"]),
        (33.5, 80.0, "51.8% a | 50.0% a | ?", ["decode"]),
    ],
)
def test_each_figure_has_a_limit_of_its_own(prefill, decode, text, unknown):
    result = epyc_result(prefill, decode)
    assert figures_text(result, BY_NAME["whole_limit_share"]) == text
    assert [
        phase for phase in ("prefill", "whole", "decode") if f"{phase}_limit_share" not in result.figures
    ] == unknown
    assert all(result.value(f"{phase}_limit_share") <= 1 for phase in PHASES if phase not in unknown)
    assert result.flags == ("above-limit",)
    assert all((f"{phase} took" in result.notes) == (phase in unknown) for phase in PHASES)


@given(prefill=some.floats(1e-3, 1e4), decode=some.floats(1e-3, 1e4))
def test_no_figure_of_any_cell_is_above_its_limit_and_whoever_has_none_is_flagged(prefill, decode):
    result = epyc_result(prefill, decode)
    shares = [result.value(f"{phase}_limit_share") for phase in PHASES]
    assert all(share is None or share <= 1 for share in shares)
    assert (None in shares) == (result.flags == ("above-limit",))
