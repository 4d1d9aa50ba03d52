"""How long a run will take, by records that took known times."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from made_up import OLD, OOM, make_ceilings, make_cell, make_oom, make_record, measurement, write_records
from running import REPO

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import CeilingsStudy, ColumnStudy
from inference_benchmark.models.architecture import bloom_parameters
from inference_benchmark.records.estimate import (
    COMPILE_S,
    START_S,
    RunTime,
    earlier_records,
    estimate,
    published_figures,
)

LIMITED = measurement(max_seconds=2)


def cell(batch_size=1, precision="fp32", **changes):
    return make_cell(batch_size=batch_size, precision=precision, **{"measurement": LIMITED, **changes})


def took(seconds, made):
    """The same record, of a measurement that took so long."""
    ended = datetime.fromisoformat(made.started_at) + timedelta(seconds=seconds)
    return type(made)(**vars(made) | {"ended_at": ended.isoformat(timespec="milliseconds")})


def expected_s(planned, *earlier):
    found = estimate([planned], earlier)
    assert (found.known, found.unknown) == (1, 0)
    return found.seconds


def test_a_cell_takes_what_it_took_before():
    assert expected_s(cell(4), took(12.5, make_record(cell(4)))) == 12.5


def test_a_cell_without_a_record_takes_what_its_neighbours_took():
    column = [took(10, make_record(cell(1))), took(20, make_record(cell(5)))]
    assert expected_s(cell(3), *column) == 15
    assert expected_s(cell(64), *column) == 20
    assert expected_s(cell(5, "bf16"), *column, took(30, make_record(cell(5, "int8")))) == 25, "the median of columns"


def test_an_engine_that_compiles_is_like_itself_and_without_records_like_others_that_then_compile():
    others = [took(10, make_record(cell(1))), took(90, make_record(cell(1, "bf16", engine="hf")))]
    assert expected_s(cell(1, "int8", engine="hf-static"), *others) == 50 + COMPILE_S
    own = took(120, make_record(cell(1, "bf16", engine="hf-static")))
    assert expected_s(cell(1, "int8", engine="hf-static"), *others, own) == 120
    refused = took(9, make_record(cell(1, "bf16", engine="hf-static"), outcome="unsupported", samples_s=(), reason=OOM))
    assert expected_s(cell(1, "int8", engine="hf-static"), *others, refused) == 50 + COMPILE_S, (
        "what is n/a says nothing"
    )


def test_an_engine_takes_as_long_to_start_as_for_other_models():
    """118.2 s of 120, without three whole calls of 1.5 s and three first tokens of 0.3 s."""
    compiled = took(120, make_record(cell(1, engine="hf-static")))
    other = {"engine": "hf-static", "model": {"name": "large", "architecture": {}, "seed": 0}}
    found = estimate([cell(1, **other), ColumnStudy.of("divergence", cell(1, **other))], [compiled])
    assert found == RunTime(pytest.approx(118.2 + 2 * 2 + 118.2), 0, 2)
    assert estimate([cell(1, **other)], []) == RunTime(START_S + COMPILE_S + 2 * 2, 0, 1)


def test_a_cell_of_an_environment_without_records_takes_what_it_took_in_the_current_one():
    assert expected_s(cell(1, environment=OLD), took(10, make_record(cell(1)))) == 10


def test_what_another_cell_has_shown_takes_no_time():
    column = [took(10, make_record(cell(1))), took(90, make_oom(cell(8)))]
    assert expected_s(cell(16), *column) == 0
    assert expected_s(cell(4), *column) == 10, "how long it takes to run out of memory says nothing"
    refused = make_record(cell(8), outcome="unsupported", samples_s=(), reason=OOM)
    assert expected_s(cell(1), took(9, refused)) == 0


def test_a_cell_of_other_settings_takes_as_long_as_they_ask_for():
    """9 s, of which 1.5 s are three whole calls and 0.3 s three first tokens."""
    made = make_record(cell(1), samples_s=[0.5] * 3, first_token_s=[0.1] * 3)
    assert expected_s(cell(1, measurement=measurement(max_seconds=4)), made) == pytest.approx(7.2 + 4 + 4)
    assert expected_s(cell(1, measurement=measurement(max_seconds=1)), made) == pytest.approx(7.2 + 1.5 + 1)


def test_a_study_takes_what_it_took_or_what_its_like_took():
    ceilings = took(17, make_ceilings())
    assert expected_s(ceilings.study, ceilings) == 17
    other = CeilingsStudy("another", "cpu", None)
    assert expected_s(other, ceilings) == 17
    assert estimate([ColumnStudy.of("divergence", cell())], [ceilings]) == RunTime(START_S, 0, 1)


def test_what_no_record_is_like_is_counted_apart():
    other_model = cell(model={"name": "large", "architecture": {}, "seed": 0})
    planned = [cell(1), other_model, cell(1, workload=type(cell().workload)(9, 100))]
    assert estimate(planned, [took(10, make_record(cell(1)))]) == RunTime(pytest.approx(10 + 2 * (8.2 + 2 * 2)), 1, 2)
    assert estimate(planned, []) == RunTime(3 * (START_S + 2 * 2), 0, 3)
    assert estimate([], []) == RunTime(0, 0, 0)


@pytest.mark.parametrize(
    ("engine", "precision", "batch_size", "seconds"),
    [
        # A call of 51,200 tokens at 3,369.69 per second: three to warm up, two that are timed, and first tokens.
        ("hf", "fp32", 512, 10 + 5 * 15.194 + 10),
        ("hf", "fp32", 384, 10 + 6 * 11.775 + 10),  # three that are timed
        ("hf", "bf16", 1, 10 + 3 * 2.368 + 10 + 10),
        ("hf", "int8", 512, 10 + 5 * 15.194 + 10),  # there are no figures: as the slowest
        ("hf", "fp32", 1024, 10 + 5 * 102_400 / 3346.01 + 10),  # did not fit there: as the largest that did
        ("hf-static", "fp32", 512, 10 + COMPILE_S + 4 * 15.194 + 10),
    ],
)
def test_before_the_first_run_published_figures_say_how_long_calls_take(engine, precision, batch_size, seconds):
    sizes = {"model_type": "bloom", "hidden_size": 2048, "n_head": 16, "n_layer": 24, "vocab_size": 50258}
    assert bloom_parameters(sizes) == 1_311_535_104
    planned = cell(
        batch_size, precision, engine=engine, device="cuda", model={"name": "any", "architecture": sizes, "seed": 0},
        workload=Workload(9, 100), measurement=measurement(min_cycles=3, max_seconds=10, long_call_seconds=15),
    )  # fmt: skip
    published = list(published_figures([str(REPO / "reference/bloom_a100_80gb.csv"), "nowhere.csv"]))
    assert estimate([planned], [], published) == RunTime(pytest.approx(seconds, rel=1e-3), 0, 0, 1)
    for other in ({"device": "cpu"}, {"workload": Workload(9, 50)}, {"model": {"name": "any", "hub": "a/b"}}):
        assert estimate([cell(**vars(planned) | other)], [], published).unknown == 1


def test_records_are_found_by_machine_also_those_that_are_not_configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path, [make_record(cell(1)), make_record(cell(77)), make_record(cell(1, machine="other"))])
    (tmp_path / "results/box/provenance.json").write_text("{}")
    (tmp_path / "results/box/broken.json").write_text("{")
    assert sorted(record.cell.batch_size for record in earlier_records(["box"])) == [1, 77]
    assert list(earlier_records(["nothing"])) == []
