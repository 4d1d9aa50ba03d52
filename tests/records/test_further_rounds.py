"""In how many rounds each cell is measured: the decision, and what follows from it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pytest
from made_up import OOM, make_cell, make_experiment, make_oom, make_record, measurement, write_records
from running import script

from inference_benchmark import files
from inference_benchmark.experiment.freshness import date_back, date_derived_files, digests
from inference_benchmark.experiment.rounds import all_cells, further_cells, read_decision
from inference_benchmark.records.collect import CollectError, collect, provenance_of, read
from inference_benchmark.records.further_rounds import above_target, decide, usable_records

TARGET = measurement(target_half_width_percent=20)
EXPERIMENT = make_experiment(1, 2, 4, 8, rounds=3, most_rounds=6, measurement=TARGET)
#: The seconds of a call in each round, by batch size: quiet, noisy, noisier; the last does not fit.
SECONDS = {1: (1.0, 1.0, 1.0), 2: (0.9, 1.0, 1.1), 4: (0.5, 1.0, 2.0)}
DECISION = Path("results/box/rounds.json")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path, least_rounds())


def least_rounds():
    def record(cell):
        seconds = SECONDS.get(cell.batch_size)
        return make_record(cell, samples_s=[seconds[cell.round - 1]] * 3) if seconds else make_oom(cell)

    return [record(cell) for cell in EXPERIMENT.cells()]


def decide_by_script() -> dict:
    files.write(EXPERIMENT.to_json(), Path("experiment.json"))
    done = script("rounds", "--experiment", "experiment.json", "--output", DECISION)
    assert done.returncode == 0, done.stderr
    return json.loads(DECISION.read_bytes())


def rounds_of(decision: dict) -> list[int]:
    return [decision[make_cell(batch_size=size).path]["rounds"] for size in (1, 2, 4, 8)]


def test_cells_whose_interval_is_too_wide_are_measured_in_more_rounds_up_to_the_most():
    """As in test_statistics: logarithms that scatter by 0.1 need four rounds for +-20 %."""
    decision = decide(EXPERIMENT, least_rounds())
    assert rounds_of(decision) == [3, 4, 6, 3]
    half_widths = [decision[make_cell(batch_size=size).path]["half_width"] for size in (1, 2, 4, 8)]
    deviations = [0, stdev(map(math.log, SECONDS[2])), math.log(2)]
    by_hand = [math.sinh(4.30265 * deviation / math.sqrt(3)) for deviation in deviations]
    assert half_widths == [*(pytest.approx(each, rel=1e-4) for each in by_hand), None]


def test_cells_of_one_run_say_how_much_each_scatters():
    """Nine cells that scatter alike need no more rounds, where any by itself would."""
    experiment = replace(EXPERIMENT, batch_sizes=tuple(range(1, 10)))
    records = [make_record(cell, samples_s=[SECONDS[2][cell.round - 1]] * 3) for cell in experiment.cells()]
    assert {cell["rounds"] for cell in decide(experiment, records).values()} == {3}
    alone = [record for record in records if record.cell.batch_size == 1]
    assert [cell["rounds"] for cell in decide(experiment, alone).values()] == [4]


def test_a_cell_whose_first_tokens_alone_scatter_is_measured_in_more_rounds():
    def record(cell):
        first_token_s = SECONDS[cell.batch_size][cell.round - 1]
        return make_record(cell, samples_s=[10.0] * 3, first_token_s=[first_token_s] * 3)

    records = [record(cell) for cell in EXPERIMENT.cells() if cell.batch_size in SECONDS]
    decided = decide(EXPERIMENT, records)
    assert [cell["rounds"] for cell in decided.values()] == [3, 3, 6]
    of_whole_calls = decide(EXPERIMENT, least_rounds())
    assert {path: cell["half_width"] * 1.5 for path, cell in decided.items()} == pytest.approx(
        {path: of_whole_calls[path]["half_width"] for path in decided}
    )
    assert above_target(records, 0.2)["cells"] == 1


def test_a_cell_that_was_not_measured_in_every_round_needs_no_more():
    noisy = [record for record in least_rounds() if record.cell.batch_size == 4]
    assert decide(EXPERIMENT, noisy[:2])[noisy[0].cell.path]["rounds"] == 3
    did_not_fit = [*noisy[:2], make_oom(noisy[2].cell)]
    assert decide(EXPERIMENT, did_not_fit)[noisy[0].cell.path] == {"rounds": 3, "half_width": None}
    unsupported = [replace(make_oom(each.cell), outcome="unsupported", reason=OOM) for each in noisy]
    assert decide(EXPERIMENT, unsupported)[noisy[0].cell.path]["rounds"] == 3


def test_one_round_is_followed_by_others_where_its_own_calls_scatter_too_much():
    single = replace(EXPERIMENT, rounds=1, most_rounds=5)
    records = [
        make_record(make_cell(batch_size=size, measurement=TARGET), samples_s=samples)
        for size, samples in ((1, [1.0, 1.01, 0.99]), (2, [1.0, 1.5, 0.5]))
    ]
    decided = decide(single, records)
    assert [decided[record.cell.path]["rounds"] for record in records] == [1, 3]


def test_a_decision_follows_from_the_records_of_the_least_rounds_alone(tmp_path):
    first = decide_by_script()
    assert rounds_of(first["cells"]) == [3, 4, 6, 3]
    further = further_cells(EXPERIMENT, read_decision(EXPERIMENT))
    assert [(cell.round, cell.batch_size) for cell in further] == [(4, 2), (4, 4), (5, 4), (6, 4)]
    write_records(tmp_path, [make_record(cell) for cell in further])
    DECISION.unlink()
    assert decide_by_script() == first


def test_a_record_that_cannot_be_used_decides_nothing_and_is_refused_later():
    cell = make_cell(batch_size=4, measurement=TARGET)
    Path(cell.path).write_text("{")
    assert len(list(usable_records(EXPERIMENT))) == 11
    assert rounds_of(decide_by_script()["cells"] | {cell.path: {"rounds": 3}}) == [3, 4, 3, 3]
    assert list(read(EXPERIMENT).refused) == [cell.path]


def test_collecting_takes_the_rounds_that_were_decided(tmp_path):
    with pytest.raises(CollectError) as caught:
        collect(EXPERIMENT)
    assert caught.value.problems == [f"{DECISION}: No such file or directory"]
    decide_by_script()
    further = further_cells(EXPERIMENT, read_decision(EXPERIMENT))
    with pytest.raises(CollectError) as caught:
        collect(EXPERIMENT)
    assert caught.value.problems == [f"{cell.path}: No such file or directory" for cell in further]
    not_asked_for = make_cell(batch_size=1, round=4, measurement=TARGET)
    write_records(tmp_path, [make_record(cell, samples_s=[1.0] * 3) for cell in [*further, not_asked_for]])
    records = collect(EXPERIMENT).records
    assert len(records) == 12 + 4
    assert not_asked_for.path not in records
    assert provenance_of(EXPERIMENT, list(records.values()))["measurement"]["rounds"] == "3 or more"
    assert provenance_of(EXPERIMENT, least_rounds())["measurement"]["rounds"] == 3


def test_a_decision_is_out_of_date_after_a_change_of_its_records_or_of_the_cells(tmp_path):
    decide_by_script()
    further = [cell.path for cell in all_cells(EXPERIMENT)[12:]]
    assert digests(EXPERIMENT).further == further
    settings = {"mixed_provenance": "split", "max_batch": True, "divergence": True, "timeline": (1,)}
    assert digests(replace(EXPERIMENT, **settings)).further == further, "these change no cell"
    for change in ({"most_rounds": 7}, {"measurement": measurement()}, {"batch_sizes": (1, 2)}):
        assert digests(replace(EXPERIMENT, **change)).further is None
    assert digests(replace(EXPERIMENT, most_rounds=None)).further == []
    write_records(tmp_path, [make_record(make_cell(batch_size=2, measurement=TARGET), samples_s=[0.8] * 3)])
    assert digests(EXPERIMENT).further is None


def test_a_decision_is_dated_back_only_where_it_is_out_of_date(tmp_path):
    assert date_derived_files([EXPERIMENT]) == ({}, []), "nothing is decided"
    decide_by_script()
    os.utime(DECISION, (5, 5))
    further = [cell.path for cell in all_cells(EXPERIMENT)[12:]]
    assert date_derived_files([EXPERIMENT]) == ({"box": further}, [])
    assert DECISION.stat().st_mtime == 5
    DECISION.write_text("{}")
    decided, stale = date_derived_files([EXPERIMENT])
    assert decided == {}
    date_back(stale)
    assert DECISION.stat().st_mtime == 1


def test_what_more_rounds_would_bring():
    """Ten cells that took 9 s a round. One scatters by a factor of two, more than the others by far."""
    records = [
        make_record(
            make_cell(batch_size=size, round=number), samples_s=[1 + (number - 2) * (0.5 if size == 10 else 0.01)] * 3
        )
        for number in (1, 2, 3)
        for size in range(1, 11)
    ]
    found = above_target(records, 0.10)
    assert (found["cells"], found["of"]) == (1, 10)
    assert found["rounds"] > 3
    assert found["seconds"] == 9 * (found["rounds"] - 3)
    assert above_target(records, 100.0) == {"cells": 0, "of": 10, "rounds": 0, "seconds": 0}
    hopeless = above_target(records, 1e-6)
    assert (hopeless["cells"], hopeless["rounds"], hopeless["seconds"]) == (10, None, None)
    assert above_target([make_oom()], 0.1) == {"cells": 0, "of": 0, "rounds": 0, "seconds": 0}
