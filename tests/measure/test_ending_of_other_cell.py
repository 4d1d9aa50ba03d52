"""Cells that are not tried, because another cell of their column shows how they end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from families import model_of
from made_up import make_cell, make_oom, measurement, write_records
from running import measure_cli, read_record

from inference_benchmark.experiment.studies import ColumnStudy, TimelineStudy
from inference_benchmark.machine import provenance
from inference_benchmark.measure.known_endings import ending_of_study
from inference_benchmark.records import record_file

CELL = make_cell(memory_limit_bytes=300_000_000)


@pytest.fixture
def measure(tmp_path):
    def measured(batch_size: int, **changes) -> dict:
        cell = replace(CELL, batch_size=batch_size, **changes)
        done = measure_cli(cell, cell.path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return read_record(tmp_path / cell.path, cell)

    return measured


def test_a_larger_batch_than_one_out_of_memory_is_not_tried(measure, tmp_path):
    tried = measure(200)
    assert (tried["outcome"], len(tried["runs"])) == ("oom", 1)
    record = measure(400)
    assert (record["outcome"], record["runs"], record["reason"]["phase"]) == ("oom", [], "other-cell")
    assert record["reason"]["message"].startswith("not measured: batch 200 ran out of memory during warm-up: ")
    evidence = {"record": replace(CELL, batch_size=200).path, "batch_size": 200, "ended_at": tried["ended_at"]}
    assert record["reason"]["evidence"] == evidence
    assert measure(180)["runs"], "a smaller one is tried"
    for batch_size in (180, 200):
        (tmp_path / replace(CELL, batch_size=batch_size).path).unlink()
    assert measure(800)["runs"], "what was not tried itself shows nothing"


def test_other_settings_and_other_columns_are_tried(measure):
    measure(200)
    assert measure(400, memory_limit_bytes=310_000_000)["runs"]
    assert measure(300, precision="bf16")["outcome"] == "ok"


def test_what_is_not_supported_is_found_out_once(measure):
    """ctranslate2 has no float16 on CPUs."""
    unsupported = {"engine": "ctranslate2", "precision": "fp16", "memory_limit_bytes": None}
    first = measure(8, **unsupported)
    assert (first["outcome"], len(first["runs"])) == ("unsupported", 1)
    for batch_size in (4, 16):
        record = measure(batch_size, **unsupported)
        assert (record["outcome"], record["runs"]) == ("unsupported", [])
        assert record["reason"]["message"] == first["reason"]["message"]


def test_a_study_of_what_is_not_supported_starts_no_process(measure, tmp_path, monkeypatch):
    unsupported = {"engine": "ctranslate2", "precision": "fp16", "memory_limit_bytes": None}
    first, cell = measure(8, **unsupported), replace(CELL, batch_size=8, **unsupported)
    timeline = TimelineStudy(replace(cell, batch_size=2), trace=False)
    for study in (ColumnStudy.of("divergence", cell), ColumnStudy.of("max-batch", cell, 2), timeline):
        done = measure_cli(study, study.path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        record = record_file.load_for(study, tmp_path / study.path)
        assert (record.outcome, record.rests_on) == ("unsupported", Path(cell.path))
        assert (record.reason.message, record.ended_at) == (first["reason"]["message"], first["ended_at"])
    monkeypatch.chdir(tmp_path)
    of_other_settings = ColumnStudy.of("divergence", replace(cell, measurement=measurement(seed=1)))
    assert ending_of_study(of_other_settings) is None
    (tmp_path / cell.path).unlink()
    assert ending_of_study(ColumnStudy.of("divergence", cell)) is None
    studies = [study.path for study in (ColumnStudy.of("divergence", cell), timeline)]
    assert record_file.derived_from_deleted([cell.path, *studies]) == studies


def test_what_a_library_cannot_generate_is_tried_again_with_fewer_rows(measure):
    """With more rows it would fail as well; with fewer it may not, if its limit is one of size."""
    refused = {"engine": "hf", "precision": "int8", "model": model_of("mamba"), "memory_limit_bytes": None}
    first = measure(4, **refused)
    assert (first["outcome"], first["reason"]["phase"]) == ("unsupported", "warm-up")
    assert measure(8, **refused)["runs"] == []
    assert len(measure(2, **refused)["runs"]) == 1


def test_a_cell_that_ended_in_round_1_is_not_tried_in_round_2(measure):
    tried = measure(200)
    for number in (2, 3):
        record = measure(200, round=number)
        assert (record["outcome"], record["runs"], record["reason"]["phase"]) == ("oom", [], "other-cell")
        assert record["reason"]["evidence"]["record"] == replace(CELL, batch_size=200).path
        assert tried["reason"]["message"] in record["reason"]["message"]
    beyond = measure(400)
    again = measure(400, round=2)
    assert again["reason"]["message"] == beyond["reason"]["message"]


def test_from_round_2_on_the_first_round_of_a_cell_decides_and_not_a_smaller_batch(measure, tmp_path):
    smaller = make_oom(replace(CELL, batch_size=5), software=provenance.software())
    write_records(tmp_path, [smaller])
    assert measure(10)["runs"] == []
    (tmp_path / replace(CELL, batch_size=10).path).unlink()
    assert measure(10, round=2)["outcome"] == "ok"
