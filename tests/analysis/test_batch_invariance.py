"""Which rows are compared across batch sizes, and which differences are no near-ties."""

from __future__ import annotations

import pytest

from inference_benchmark.analysis.batch_invariance import BatchAnswers, compared_rows


def test_the_first_rows_are_compared_and_the_last():
    assert [compared_rows(size) for size in (1, 2, 8)] == [[0], [0, 1], [*range(8)]]
    assert compared_rows(1920) == [0, 1, 2, 3, 4, 5, 6, 1919]


@pytest.mark.parametrize(
    ("gaps", "logits_error", "gap", "gap_errors"),
    [
        ([None, None], 0.01, None, None),
        ([None, 0.02, 0.06], 0.01, 0.06, 6),
        ([0.06], None, 0.06, None),
        ([6e-5], 0.0, 6e-5, 6),  # hf in fp32, against itself
    ],
)
def test_the_largest_gap_counts_as_a_multiple_of_the_logits_error(gaps, logits_error, gap, gap_errors):
    result = {"batch_size": 4, "token_agreement": 0.5, "gaps": gaps}
    answers = BatchAnswers(result, logits_error)
    assert answers.gap == gap
    assert answers.gap_errors == (None if gap_errors is None else pytest.approx(gap_errors))
    assert answers.error is None
    if gap_errors:
        twice = {**result, "gaps": [2 * each if each else None for each in gaps]}
        assert "12 times the logits error: no near-tie" in BatchAnswers(twice, logits_error).error
