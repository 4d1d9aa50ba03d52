"""The rounds of a cell as one record."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from made_up import OOM, SHARED, grid, make_cell, make_experiment, make_oom, make_record, records_of, write_records

from inference_benchmark.analysis import statistics
from inference_benchmark.compare import result_set
from inference_benchmark.records.results import cell_results
from inference_benchmark.records.rounds import combined
from inference_benchmark.results.summary_csv import to_csv


def of_round(number: int, **changes):
    return make_record(make_cell(round=number), **changes)


def test_a_cell_has_a_run_for_each_of_its_rounds_in_their_order():
    records = [of_round(2, samples_s=[2.0] * 3), make_record(make_cell(batch_size=4)), of_round(1, samples_s=[1.0] * 3)]
    cell, other = combined(records)
    assert cell.cell == make_cell()
    assert [run.samples_s[0] for run in cell.runs] == [1.0, 2.0]
    assert other == records[1], "a cell of one round is its record"


def test_what_the_rounds_of_a_cell_differ_in_is_in_its_stability():
    """Each round repeats itself to the last digit."""
    steady = [of_round(n, samples_s=[seconds] * 3) for n, seconds in ((1, 1.0), (2, 1.1), (3, 1.2))]
    (cell,) = combined(steady)
    assert [reason.name for reason in cell.stability.reasons] == ["interval"]
    assert "raise rounds" in cell.stability.reasons[0].message


def test_a_round_in_which_first_tokens_took_long_makes_the_cell_unstable():
    rounds = [of_round(n, samples_s=[1.0] * 3, first_token_s=[s] * 3) for n, s in ((1, 0.2), (2, 1.03), (3, 0.2))]
    (cell,) = combined(rounds)
    assert [reason.name for reason in cell.stability.reasons] == ["first-token-interval"]
    assert cell.stability.stable is False


def test_flags_of_every_round_are_flags_of_the_cell_once():
    (cell,) = combined([of_round(1, flags=SHARED), of_round(2), of_round(3, flags=SHARED)])
    assert cell.flags == SHARED


def test_answers_that_change_from_round_to_round_are_flagged():
    (cell,) = combined([of_round(1), of_round(2, tokens_sha256=["b" * 64])])
    assert cell.flag_names == ["nondeterministic"]
    assert "digests aaaaaaaaaaaa, bbbbbbbbbbbb" in cell.flags[0].message


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_cell_that_did_not_fit_once_does_not_fit(number):
    rounds = [make_oom(make_cell(round=n)) if n == number else of_round(n) for n in (1, 2, 3)]
    (cell,) = combined(rounds)
    assert (cell.outcome, cell.reason, cell.stability) == ("oom", OOM, None)
    assert len(cell.runs) == 3


def test_the_summary_has_a_row_per_cell_of_the_rounds_that_there_are():
    found = cell_results([of_round(1), of_round(2), make_record(make_cell(batch_size=4))])
    assert [each.batch_size for each in found] == [2, 4]
    assert [each.value("processes") for each in found] == [2, 1]
    assert [each.rounds for each in found] == [(1, 2), (1,)]
    assert found[0].record == "results/box/tiny/prompt4-new8/fake/fp32/batch-2.json"


def test_a_drift_of_the_machine_makes_equal_cells_differ_only_without_rounds():
    """Two engines of the same speed, on a machine that is 10 % slower at the end of a run than at its beginning."""
    experiment = make_experiment(*range(1, 21), engines=("fake", "hf"), rounds=8)
    as_measured = list(experiment.cells())
    cell_by_cell = sorted(as_measured, key=lambda cell: (cell.engine, cell.batch_size, cell.round))

    def called_different(order) -> int:
        chance = random.Random(0)
        records = [
            make_record(cell, samples_s=[(1 + 0.1 * place / len(order)) * chance.gauss(1, 0.002) for _ in range(3)])
            for place, cell in enumerate(order)
        ]
        cells = combined(records)
        sides = [[c for c in cells if c.cell.engine == engine] for engine in experiment.engines]
        tests = [
            statistics.ratio_test(*([run.samples_s for run in side.runs] for side in pair))
            for pair in zip(*sides, strict=True)
        ]
        return sum(statistics.significant(tests))

    assert called_different(as_measured) == 0
    assert called_different(cell_by_cell) == 20


def test_rounds_with_other_software_are_a_column_of_their_own():
    """As where some were measured before an upgrade, and mixed_provenance is split."""
    old = [of_round(n, software={"torch": "2.12"}) for n in (1, 2)]
    found = {each.column.split: each.value("processes") for each in cell_results([*old, of_round(3)])}
    assert found == {"torch 2.12": 2, "torch 2.13.0": 1}


def test_a_result_set_reads_all_rounds_from_a_folder_and_from_its_summary(tmp_path):
    records = records_of(grid(batch_sizes=(1, 2), precisions=("fp32",), engines=("hf",)), rounds=12)
    folder = write_records(tmp_path, records)
    summary = folder / "summary.csv"
    summary.write_text(to_csv(cell_results(records)))
    for path in (folder, summary):
        found = result_set.load(path)
        assert [len(cell.whole_s) for cell in found.cells] == [12, 12]
        assert found.cells == result_set.of_records(records).cells
    tenth = replace(records[0].cell, round=10).path
    (tmp_path / tenth).rename(tmp_path / tenth.replace(".json", ".superseded-1.json"))
    assert [len(cell.whole_s) for cell in result_set.load(folder).cells] == [11, 12]
