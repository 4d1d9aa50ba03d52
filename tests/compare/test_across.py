"""Columns of one run, compared with each other round by round."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from made_up import make_cell, make_record, write_records
from running import script

from inference_benchmark.analysis.scatter import t_quantile
from inference_benchmark.analysis.statistics import Estimate, paired_ratio_tests, rounds_needed, shifts_of_rounds
from inference_benchmark.compare import result_set
from inference_benchmark.compare.comparing import compare
from inference_benchmark.compare.comparison import undecided

OPTIONS = {"engine": "hf", "attention": "eager"}


VARIANT = {"engine": "hf-eager", "options": OPTIONS}
CANDIDATE = {"environment": {"name": "candidate", "lock": "0" * 16}}


def records(slower: float, rounds: int = 6, noise: float = 0.01, without: tuple[int, ...] = (), other=VARIANT):
    """hf, and another column that takes so many times as long, on a machine that becomes 10 % slower every round.

    without: rounds that the other one does not have. other: what it is.
    """
    draw = random.Random(3)
    made = []
    for number in range(1, rounds + 1):
        for size in (1, 2):
            base = make_cell(engine="hf", batch_size=size, round=number)
            for cell, factor in ((base, 1.0), (replace(base, **other), slower)):
                if cell is not base and number in without:
                    continue
                call_s = 0.5 * 1.1**number * factor * draw.lognormvariate(0, noise)
                made.append(make_record(cell, samples_s=[call_s] * 3))
    return made


def compared(folder, *arguments):
    return script("compare", folder, "--across", "engine", "hf", "hf-eager", *arguments)


def test_a_drift_that_both_share_decides_nothing(tmp_path):
    folder = write_records(tmp_path, records(1.03))
    sides = result_set.sides(folder, "engine", "hf", "hf-eager")
    assert [cell.verdict for cell in compare(*sides, paired=True).cells] == ["slower", "slower"]
    assert [cell.verdict for cell in compare(*sides).cells] == ["same", "same"]
    for cell in compare(*sides, paired=True).cells:
        assert cell.ratio.low < 1 / 1.03 < cell.ratio.high
        assert "engine" not in cell.new.key


def test_environments_are_compared_like_engines(tmp_path):
    folder = write_records(tmp_path, records(1.03, other=CANDIDATE))
    sides = result_set.sides(folder, "environment", "current", "candidate")
    comparison = compare(*sides, paired=True)
    assert [(cell.verdict, cell.new.column.engine) for cell in comparison.cells] == [("slower", "hf")] * 2
    assert (comparison.base, comparison.new) == ("current", "candidate")


def test_rounds_are_paired_by_their_number(tmp_path):
    """Without the second and third round of one side, pairs by position would be 10 and 20 % apart."""
    folder = write_records(tmp_path, records(1.0, noise=1e-6, without=(2, 3)))
    comparison = compare(*result_set.sides(folder, "engine", "hf", "hf-eager"), paired=True)
    assert [cell.ratio.value for cell in comparison.cells] == pytest.approx([1, 1], abs=1e-4)
    assert comparison.cells[0].processes == (6, 4)


def test_one_round_tells_nothing(tmp_path):
    folder = write_records(tmp_path, records(1.5, rounds=1))
    comparison = compare(*result_set.sides(folder, "engine", "hf", "hf-eager"), paired=True)
    assert [(cell.verdict, cell.ratio.value) for cell in comparison.cells] == [
        ("unknown", pytest.approx(2 / 3, rel=0.1))
    ] * 2


def test_the_script_names_the_two_columns_and_the_test(tmp_path):
    done = compared(write_records(tmp_path, records(1.03)))
    assert (done.returncode, done.stderr) == (0, "")
    assert "# hf-eager against hf: throughput" in done.stdout
    assert "2 cells in common: 2 slower." in done.stdout
    assert "by a paired t test on the rounds" in done.stdout


@pytest.mark.parametrize(("slower", "status"), [(1.06, 1), (1.0, 0)])
def test_the_exit_status_answers_the_question(tmp_path, slower, status):
    folder = write_records(tmp_path, records(slower, noise=0.002))
    done = compared(folder, "--fail-on-regression", "3%")
    assert done.returncode == status, done.stderr


def test_what_cannot_be_told_is_no_pass_and_says_how_many_rounds_would_tell(tmp_path):
    folder = write_records(tmp_path, records(1.0, rounds=3, noise=0.02))
    done = compared(folder, "--fail-on-regression", "3%")
    assert done.returncode == 2
    assert "cannot tell: " in done.stderr
    comparison = compare(*result_set.sides(folder, "engine", "hf", "hf-eager"), paired=True)
    ((cell, rounds), *_) = undecided(comparison, 0.03)
    assert f"batch {cell.new.batch_size}: cannot tell" in done.stderr
    assert f"; about {rounds} rounds would tell" in done.stderr
    assert rounds > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--across", "engine", "hf", "hf-sdpa"], "holds no record with engine hf-sdpa; it has hf, hf-eager"),
        (["--across", "machine", "a", "b"], "--across: there is no axis 'machine'; allowed: engine, environment"),
        ([], "give NEW, or --across AXIS OLD NEW"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path, arguments, message):
    folder = write_records(tmp_path, records(1.0, rounds=1))
    done = script("compare", folder, *arguments)
    assert done.returncode
    assert message in done.stderr


def test_a_paired_test_by_hand():
    """Logarithms of the ratios: 0.01 and 0.03. Their mean is 0.02, its standard error 0.01."""
    e = 2.718281828459045
    shifts = shifts_of_rounds({1: [1], 2: [1, 3], 3: [9]}, {1: [e**0.01], 2: [2 * e**0.03], 4: [7]})
    assert shifts == pytest.approx([0.01, 0.03])
    test, unknown, different, same = paired_ratio_tests([shifts, [0.7], [0.7, 0.7], [0.0, 0.0]])
    assert test.ratio == pytest.approx(e**0.02)
    assert test.high == pytest.approx(e ** (0.02 + 0.01 * t_quantile(1)))
    assert test.p_value == pytest.approx(0.2952, abs=1e-4)  # of t = 2 with one degree of freedom
    assert (unknown, different.p_value, same.p_value) == (None, 0, 1)


@pytest.mark.parametrize("other", [0.97, 0.9])
def test_so_many_rounds_make_the_interval_as_narrow_as_needed(other):
    found = rounds_needed(Estimate(1.0, 1 / 1.05, 1.05), 4, 3, other)
    deviation = 0.04879 / t_quantile(3) * 2
    distance = {0.97: 0.03046, 0.9: 0.10536}[other]
    assert t_quantile(found - 1) * deviation / found**0.5 < distance
    assert found == 4 or t_quantile(found - 2) * deviation / (found - 1) ** 0.5 >= distance
    assert found == {0.97: 7, 0.9: 4}[other]
    assert rounds_needed(Estimate(1.0), 4, 3, other) is rounds_needed(Estimate(1.0, 0.9, 1.1), 1, 0, other) is None
    assert rounds_needed(Estimate(0.97, 0.9, 1.05), 4, 3, 0.97) is None
