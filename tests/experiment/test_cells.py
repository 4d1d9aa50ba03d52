"""Cells, workloads, settings and experiments: checked when made, and the same after JSON."""

from __future__ import annotations

import json

import numpy
import pytest
from made_up import make_cell, make_experiment, measurement

from inference_benchmark.analysis.statistics import estimate
from inference_benchmark.experiment.as_json import CellError, difference
from inference_benchmark.experiment.cells import Cell, Workload
from inference_benchmark.experiment.experiment import Experiment
from inference_benchmark.experiment.studies import requested_studies


def test_a_cell_survives_json_and_names_its_place():
    cell = make_cell()
    assert Cell.from_json(cell.to_json()) == cell
    assert cell.path == "results/box/tiny/prompt4-new8/fake/fp32/batch-2.json"
    assert "\n" not in cell.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("device"), "exactly the keys"),
        (lambda values: values.update(extra=1), "exactly the keys"),
        (lambda values: values.update(measure_version=0), "measure_version is 0"),
        (lambda values: values.update(workload={"prompt_tokens": 1}), "workload has exactly the keys"),
        (lambda values: values["workload"].update(new_tokens=0), "new_tokens is 0; allowed: an integer >= 1"),
        (lambda values: values["measurement"].update(min_cycles=True), "measurement.min_cycles is True"),
        (lambda values: values["measurement"].update(min_seconds=float("nan")), "measurement.min_seconds is nan"),
        (lambda values: values["measurement"].update(max_seconds=10**400), "measurement.max_seconds is 1000"),
        (lambda values: values["measurement"].update(cycles=3), "measurement has exactly the keys"),
        (lambda values: values.update(environment={"name": "old"}), "environment is {'name': 'old'}; allowed"),
        (lambda values: values.update(environment="old"), "environment is 'old'; allowed"),
        (lambda values: values.update(options="x"), "options is 'x'; allowed: a mapping"),
        (lambda values: values["model"].update(name=1), "allowed: a mapping with name"),
        (lambda values: values.update(machine=1), "machine is 1; allowed: a text"),
        (lambda values: values.update(batch_size=0), "batch_size is 0; allowed: an integer >= 1"),
    ],
)
def test_a_text_that_is_no_cell_is_refused(change, message):
    values = json.loads(make_cell().to_json())
    change(values)
    with pytest.raises(CellError, match=message):
        Cell.from_json(json.dumps(values))


def test_each_round_of_a_cell_has_a_record_of_its_own():
    cell = make_cell(round=3)
    assert cell.path == "results/box/tiny/prompt4-new8/fake/fp32/batch-2.round-3.json"
    assert cell.label == "tiny prompt4-new8 fake fp32 batch 2 round 3"
    assert cell.first_round == make_cell()


def test_the_whole_grid_is_measured_before_any_of_it_again():
    cells = list(make_experiment(1, 2, rounds=3).cells())
    assert [(cell.round, cell.batch_size) for cell in cells] == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert cells[:2] == list(make_experiment(1, 2).cells()), "how many rounds there are changes no cell"


def test_an_experiment_spans_its_axes_in_the_order_of_the_configuration():
    experiment = make_experiment(8, 1, engines=("fake", "hf"), precisions=("int8", "fp32"))
    order = [(c.engine, c.precision, c.batch_size) for c in experiment.cells()]
    assert order == [(e, p, b) for e in ("fake", "hf") for p in ("int8", "fp32") for b in (8, 1)]
    assert Experiment.from_json(experiment.to_json()) == experiment


def test_what_is_impossible_is_no_cell_and_no_study():
    nothing = {"model": "tiny", "engine": "ctranslate2", "precision": "nf4", "reason": "ctranslate2 has no nf4"}
    axes = {"engines": ("hf", "ctranslate2"), "precisions": ("fp32", "nf4"), "rounds": 2}
    experiment = make_experiment(1, 8, **axes, divergence=True, impossible=(nothing,))
    columns = {("hf", "fp32"), ("hf", "nf4"), ("ctranslate2", "fp32")}
    assert {(cell.engine, cell.precision) for cell in experiment.cells()} == columns
    studied = {(study.engine, study.precision) for study in requested_studies(experiment) if study.kind != "ceilings"}
    assert studied == columns
    assert [(cell.batch_size, reason) for cell, reason in experiment.left_out()] == [
        (size, "ctranslate2 has no nf4") for size in (1, 8)
    ]
    assert Experiment.from_json(experiment.to_json()) == experiment


def test_a_difference_is_told_leaf_by_leaf():
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4}
    assert difference(new, old) == "a.c was 2, is now 5; d was 3, is now 'absent'; e was 'absent', is now 4"


def test_when_it_is_enough():
    def enough(samples, **changes):
        return measurement(min_seconds=2, max_seconds=10, **changes).is_enough(samples)

    assert not enough([])
    assert not enough([5.0, 5.0]), "fewer than min_cycles, however long"
    assert enough([1.0, 1.0, 1.0])
    assert not enough([0.1, 0.1, 0.1]), "less than min_seconds, however exact"
    assert not enough([1.0, 1.1, 0.9, 1.0]), "not exact, and time left"
    assert enough([1.0, 1.1, 0.9] * 4), "not exact, and no time left"


def test_two_long_calls_are_enough_if_their_interval_is_within_the_target():
    """By hand: 12.706 * 0.5 * |a - b| / 15 is 0.85 % for calls that differ by 0.02 s, and 1.7 % for 0.04 s."""

    def enough(samples, **changes):
        return measurement(max_seconds=10, **{"long_call_seconds": 15, **changes}).is_enough(samples)

    assert enough([15.02, 15.0])
    assert not enough([15.04, 15.0])
    assert enough([15.04, 15.0, 15.0]), "not exact, and no time left"
    assert not enough([15.0])
    assert not enough([14.9, 14.9])
    assert not enough([15.0, 15.0], long_call_seconds=0)
    assert not enough([15.0, 15.0], min_seconds=40)
    assert measurement(long_call_seconds=15, min_cycles=7).fewest_calls(15) == 2


@pytest.mark.parametrize(
    ("scatter", "share_held", "calls"),
    [(0.0005, 0.952, 2.03), (0.001, 0.952, 2.27), (0.003, 0.946, 2.71), (0.01, 0.919, 2.91)],
)
def test_how_often_intervals_of_long_calls_hold_the_truth_where_two_may_be_enough(scatter, share_held, calls):
    """2,000 cells with calls of 20 s that scatter by 0.05 to 1 %."""
    settings, rng = measurement(max_seconds=10, long_call_seconds=15), numpy.random.default_rng(0)
    held, n_calls = 0, 0
    for _ in range(2000):
        samples: list[float] = []
        while not settings.is_enough(samples):
            samples.append(20 * (1 + scatter * rng.standard_normal()))
        interval = estimate([samples])
        held, n_calls = held + (interval.low <= 20 <= interval.high), n_calls + len(samples)
    assert held / 2000 == pytest.approx(share_held, abs=0.01)
    assert n_calls / 2000 == pytest.approx(calls, abs=0.03)


def test_a_setting_that_asks_for_nothing_is_not_in_the_cells_text():
    """Records from before it stay those of the same cells."""
    assert "long_call_seconds" not in make_cell().to_json()
    long = make_cell(measurement=measurement(long_call_seconds=15))
    assert Cell.from_json(long.to_json()) == long


def test_a_workload_names_its_folder():
    assert Workload(9, 100).name == "prompt9-new100"
    assert Workload(9, 100, "python", "0" * 64).name == "prompt9-new100-text"
    with pytest.raises(CellError, match="prompt_tokens is '9'"):
        Workload("9", 100)


def test_prompts_from_a_text_are_another_cell_and_random_ones_are_written_as_before():
    assert '"workload":{"new_tokens":8,"prompt_tokens":4}' in make_cell().to_json()
    cell = make_cell(workload=Workload(4, 8, "mine.txt", "0" * 64))
    assert Cell.from_json(cell.to_json()) == cell
    assert cell.label == "tiny prompt4-new8-text fake fp32 batch 2"
    assert cell.path == "results/box/tiny/prompt4-new8-text/fake/fp32/batch-2.json"
    assert cell.column.grid != make_cell().column.grid
