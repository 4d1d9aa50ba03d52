"""The catalogue of figures."""

from __future__ import annotations

import pytest
from made_up import make_record

from inference_benchmark.analysis.figures import BY_GROUP, BY_NAME, FIGURES, PERFORMANCE, table_of
from inference_benchmark.analysis.metrics import MeasuredCell


def test_every_name_and_key_is_there_once_and_every_column_has_its_unit():
    assert len(BY_NAME) == len(FIGURES) == sum(map(len, BY_GROUP.values()))
    assert len({figure.key for figure in PERFORMANCE}) == len(PERFORMANCE)
    assert not any(figure.key for figure in FIGURES if figure not in PERFORMANCE)
    columns = [column for figure in FIGURES for column in figure.columns]
    assert len(set(columns)) == len(columns)
    assert BY_NAME["latency_s"].columns == ("latency_s", "latency_low_s", "latency_high_s")
    assert BY_NAME["throughput_tok_per_s"].low == "throughput_low_tok_per_s"
    assert BY_NAME["ms_per_token"].columns == ("ms_per_token",)


def test_a_figure_that_stands_beside_another_is_in_its_table():
    assert [figure.unit for figure in table_of(BY_NAME["throughput_tok_per_s"])] == ["tokens/sec", "msec/token"]
    for figure in FIGURES:
        assert figure.side_by_side_with is None or BY_NAME[figure.side_by_side_with].side_by_side_with is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency_s", 0.0016, "0.0016"),
        ("latency_s", 2.2071, "2.21"),
        ("ms_per_token", 1000 / 250_000, "0.004"),
        ("ms_per_token", 1000 / 7703.84, "0.13"),
        ("throughput_tok_per_s", 0.0041, "0.0041"),
        ("throughput_tok_per_s", 86.6, "86.60"),
        ("first_token_s", 0.0000412, "0.0412"),
        ("time_per_output_token_s", 0.00000712, "0.00712"),
        ("whole_limit_share", 0.000412, "0.0412%"),
        ("step_growth", -0.0512, "-5.1%"),
        ("first_step_s", 0.00421, "4.21"),
        ("max_batch_fits", 1792, "1792"),
        ("throughput_tok_per_s", None, ""),
    ],
)
def test_a_small_value_is_printed_with_its_digits(name, value, text):
    assert BY_NAME[name].text(value) == text


@pytest.mark.parametrize(
    "figure",
    [figure for group in ("performance", "samples", "limits") for figure in BY_GROUP[group] if figure.formula],
    ids=lambda figure: figure.name,
)
def test_every_formula_gives_a_figure_or_none_for_the_barest_cell(figure):
    bare = MeasuredCell(batch_size=1, prompt_tokens=1, new_tokens=1, whole_s=[[1.0]])
    estimate = figure.estimate(bare)
    assert estimate is None or estimate.value > 0
    assert estimate is None or figure.text(estimate.value)
    full = figure.estimate(make_record().measured())
    assert full is None or full.value > 0
