"""The records of an experiment, read from their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import make_ceilings, make_experiment, make_record

from inference_benchmark.cli import ProblemsError
from inference_benchmark.compare import result_set
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.records import record_file
from inference_benchmark.records.collect import CollectError, collect, read


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_collecting_names_every_record_that_cannot_be_used(tmp_path):
    experiment = make_experiment(1, 2, 3, 4)
    cells = list(experiment.cells())
    record_file.write(make_record(cells[0]), tmp_path / cells[0].path)
    (tmp_path / cells[1].path).write_text("{")
    (tmp_path / cells[2].path).write_text(json.dumps(make_record(cells[0]).to_document()))
    with pytest.raises(CollectError) as caught:
        collect(experiment)
    problems = caught.value.problems
    assert len(problems) == 3
    assert f"{cells[1].path}: not JSON" in problems[0]
    assert f"{cells[2].path}: measured under another configuration: batch_size was 1, is now 3" in problems[1]
    assert f"{cells[3].path}: No such file" in problems[2]


def test_a_copy_of_a_round_as_another_is_refused_where_rounds_are_counted(tmp_path):
    experiment = make_experiment(1, rounds=3)
    first, second, third = experiment.cells()
    for cell in (first, second, third):
        record_file.write(make_record(cell), tmp_path / cell.path)
    assert len(collect(experiment).records) == 3
    record_file.write(replace(make_record(first), cell=third), tmp_path / third.path)
    copy = f"holds the measurement of {first.path}, as another round; remove one of them"
    with pytest.raises(CollectError) as caught:
        collect(experiment)
    assert caught.value.problems == [f"{third.path}: {copy}"]
    with pytest.raises(ProblemsError) as caught:
        result_set.load(Path("results/box"))
    assert caught.value.problems == [f"{third.path}: {copy}"]


def test_what_is_read_is_what_can_be_used_and_the_rest_is_named(tmp_path):
    experiment = make_experiment(1, 2, 3)
    cells = list(experiment.cells())
    record_file.write(make_record(cells[0]), tmp_path / cells[0].path)
    (tmp_path / cells[1].path).mkdir()
    collection = read(experiment)
    assert list(collection.records) == [cells[0].path]
    assert list(collection.refused) == [cells[1].path]
    assert collection.missing == [cells[2].path]


def test_a_study_of_other_settings_that_nobody_asks_for_is_left_out(tmp_path):
    """Nothing does it again, so that a refusal would be for ever."""
    (cell,) = (experiment := make_experiment(1, max_batch=True)).cells()
    record_file.write(make_record(cell), tmp_path / cell.path)
    study = ColumnStudy.of("max-batch", replace(cell, precision="bf16"), experiment.max_batch_tolerance_percent)
    fits = {"batch_size": 1, "fits": True, "exception_type": None, "message": None, "memory": {}}
    record_file.write(make_ceilings(study=study, results=(fits,)), tmp_path / ColumnStudy.of("max-batch", cell).path)
    (why,) = read(experiment).refused.values()
    assert why == "measured under another configuration: precision was 'bf16', is now 'fp32'"
    found = collect(replace(experiment, max_batch=False))
    assert (len(found.records), found.studies) == (1, {})


def test_a_record_of_another_device_is_refused_wherever_records_are_read(tmp_path):
    """By the one reader that collect and preview have in common; studies too."""
    experiment = make_experiment(1, 2, engines=("hf",), machine="box", device_name="some cpu")
    for cell in experiment.cells():
        record_file.write(make_record(cell), tmp_path / cell.path)
    record_file.write(make_ceilings(), tmp_path / "results/box/ceilings.json")
    assert len(collect(experiment).records) == 2
    other = replace(experiment, device_name="H200")
    message = "measured on Some CPU; machines.box.device_name asks for 'H200'"
    assert set(read(other).refused.values()) == {message}
    assert len(read(other).refused) == 3
    with pytest.raises(CollectError) as caught:
        collect(other)
    assert len(caught.value.problems) == 3
