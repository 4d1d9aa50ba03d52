"""What the table of variants says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up import OLD, make_cell, make_oom, make_record, with_figures

from inference_benchmark.analysis.statistics import Estimate, ratio
from inference_benchmark.records.results import cell_results
from inference_benchmark.render import tables
from inference_benchmark.render.variant_table import environment_table, variant_table

OPTIONS = {"engine": "hf", "attention": "eager"}


def records(variant_s: float, **changes):
    """An engine that takes 0.5 s a call, and a variant of it that takes variant_s; out of memory at batch 2."""
    base = make_cell(engine="hf", batch_size=1)
    variant = make_cell(engine="hf-eager", options={"engine": "hf", "attention": "eager"}, batch_size=1, **changes)
    return [
        make_record(base, samples_s=[0.49, 0.5, 0.51]),
        make_record(variant, samples_s=[variant_s - 0.01, variant_s, variant_s + 0.01]),
        make_record(make_cell(engine="hf", batch_size=2)),
        make_oom(make_cell(engine="hf-eager", options=variant.options, batch_size=2, **changes)),
    ]


def test_a_variant_is_set_against_its_engine_cell_by_cell():
    results = cell_results(records(0.4))
    view = variant_table(results)
    assert view.headings == [("batch_size",), ("hf-eager", "attention eager", "fp32", "against hf")]
    assert view.cells == [["1", "1.25 (1.15 to 1.35)"], ["2", ""]]
    assert view.foot == []
    text = tables.document(results)
    assert text.count("Variants against their engine") == 1


def test_rounds_are_compared_pair_by_pair():
    """On a machine that becomes twice as slow, a variant that always takes 0.8 of the time has no uncertainty."""
    made = []
    for number, factor in enumerate((1.0, 1.5, 2.0), start=1):
        for cell, call_s in ((make_cell(engine="hf"), 0.5), (make_cell(engine="hf-eager", options=OPTIONS), 0.4)):
            cell = replace(cell, round=number)
            made.append(make_record(cell, samples_s=[call_s * factor] * 3))
    assert variant_table(cell_results(made)).cells == [["2", "1.25 (1.25 to 1.25)"]]
    other = replace(made[-1], cell=replace(made[-1].cell, round=7))  # the third round of the engine has no partner
    (variant,) = [cell for cell in cell_results([*made[:-1], other]) if cell.column.options]
    assert variant.value("engine_ratio") == pytest.approx(1.25)


def test_variants_come_in_the_order_of_the_grid():
    cells = [
        make_cell(engine=name, options={"engine": "hf", "attention": name[3:]}) for name in ("hf-sdpa", "hf-eager")
    ]
    view = variant_table(cell_results([make_record(cell) for cell in (make_cell(engine="hf"), *cells)]))
    assert [heading[0] for heading in view.headings] == ["batch_size", "hf-sdpa", "hf-eager"]


def test_answers_stand_below_the_ratios():
    compared = [with_figures(each, token_agreement=0.5, logits_error_mean=0.25) for each in cell_results(records(0.4))]
    assert variant_table(compared).foot == [["same tokens | logits error", "50.0% | 0.25"]]


def test_without_the_engine_beside_it_a_variant_has_no_ratio():
    assert variant_table(cell_results(records(0.4)[1:2])) is None
    assert variant_table(cell_results(records(0.4)[:1])) is None
    assert variant_table(cell_results(records(0.4, precision="bf16"))) is None


def test_the_variances_of_the_logarithms_add():
    found = ratio(Estimate(3, 2, 4.5), Estimate(2, 1, 4))
    factor = (1.5**2) ** 0.5  # of the first alone
    assert found.value == 1.5
    assert found.high / found.value == pytest.approx(found.value / found.low)
    assert found.high / found.value > max(factor, 2)
    assert ratio(Estimate(3, 2, 4.5), Estimate(2, 2, 2)) == pytest.approx((1.5, 1, 2.25))
    for unknown in (Estimate(2), Estimate(2, 0, 4)):
        assert ratio(Estimate(3, 2, 4), unknown) == Estimate(1.5)


def test_an_environment_is_set_against_the_current_one():
    cells = [make_cell(engine="hf", environment=each) for each in ({}, OLD)]
    made = [make_record(cell, samples_s=[s - 0.01, s, s + 0.01]) for cell, s in zip(cells, (0.5, 0.4), strict=True)]
    results = cell_results(made)
    view = environment_table(results)
    assert view.headings == [("batch_size",), ("old", "fp32", "against current")]
    assert view.cells == [["2", "1.25 (1.15 to 1.35)"]]
    assert variant_table(results) is None
    assert environment_table(results[:1]) is None
    assert environment_table(results[1:]) is None, "nothing to compare with"


def test_a_variant_is_set_against_its_engine_in_the_same_environment():
    made = [*records(0.4), *records(0.25, environment=OLD)[1:2], make_record(make_cell(engine="hf", environment=OLD))]
    view = variant_table(cell_results(made))
    assert [heading[0] for heading in view.headings] == ["batch_size", "current", "old"]
