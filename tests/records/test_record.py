"""Records of cells are written whole or not at all, kept when superseded, and checked."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import OOM, make_ceilings, make_cell, make_experiment, make_record, measurement

from inference_benchmark import files
from inference_benchmark.records import record_file
from inference_benchmark.records.check import RecordError
from inference_benchmark.records.record import Record

REPO = Path(__file__).parents[2]
DATA = REPO / "tests/data"


def test_a_record_comes_back_as_it_went(tmp_path):
    path = tmp_path / "a/b/batch-2.json"
    record_file.write(make_record(), path)
    assert record_file.load_for(make_cell(), path) == make_record()
    assert [p.name for p in path.parent.iterdir()] == ["batch-2.json"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_earlier_record_is_kept_beside_the_new_one(tmp_path):
    path = tmp_path / "batch-2.json"
    for load_s in (1.0, 2.0, 3.0):
        record_file.write(make_record(load_s=load_s), path)
    kept = sorted(json.loads(p.read_text())["runs"][0]["load_s"] for p in tmp_path.glob("batch-2.superseded-*.json"))
    assert kept == [1.0, 2.0]
    assert record_file.load(path).runs[0].load_s == 3.0


@pytest.mark.parametrize("path", sorted((DATA / "records").glob("*.json")), ids=lambda path: path.stem)
def test_a_record_read_and_written_again_is_the_same_bytes(path, tmp_path):
    record_file.write(record_file.load_any(path), tmp_path / path.name)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_published_records_read_and_written_again_are_the_same_bytes(tmp_path):
    paths = [*(REPO / "results").glob("*/*/*/**/*.json"), *(REPO / "results").glob("*/ceilings.json")]
    assert len(paths) > 100
    for path in paths:
        record_file.write(record_file.load_any(path), tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 0}, f"schema_version is 0; this program reads version {Record.schema_version}"),
        ({"schema_version": 2}, "schema_version is 2"),
        ({"outcome": "fine"}, "outcome is 'fine'; allowed: ok, oom, unsupported"),
        ({"runs": []}, "outcome ok without a run"),
        ({"runs": make_record().to_document()["runs"] * 2}, "runs has 2 entries; the record of a round has one"),
        ({"stability": None}, "without a verdict"),
        ({"flags": [{"name": "x"}]}, r"flags\[0\]: object missing required field `message`"),
        ({"outcome": "oom"}, "contradicts reason"),
        ({"cell": {}}, "a cell has exactly the keys"),
        ({"extra": 1}, "extra: unknown key"),
    ],
)
def test_a_file_that_breaks_the_format_is_refused(tmp_path, change, message):
    check_refused(make_record().to_document() | change, message, tmp_path)


@pytest.mark.parametrize(
    ("samples_s", "message"),
    [
        ([1.0, 2.0], "2 of samples_s, fewer than min_cycles"),
        ([1.0, 2.0, "x"], r"runs\[0\].samples_s\[2\] is \'x\': expected `float`, got `str`"),
        ([1.0, 2.0, 0.0], r"runs\[0\].samples_s\[2\] is 0.0: expected `float` > 0.0"),
        ([1.0, 2.0, float("nan")], r"samples_s\[2\] is nan: expected `float` > 0.0"),
        ([1.0, 2.0, 1e-320], r"no finite number of seconds above 0 \(1e-09 to 1e\+09\)"),
        ([1.0, 2.0, 1e300], "no finite number"),
        ([1.0, 2.0, 10**400], r"samples_s\[2\] is 1000+: number out of range"),
    ],
)
def test_a_file_of_samples_that_cannot_be_is_refused(tmp_path, samples_s, message):
    document = make_record().to_document()
    document["runs"] = [document["runs"][0] | {"samples_s": samples_s}]
    check_refused(document, message, tmp_path)


@pytest.mark.parametrize(
    ("place", "key"),
    [("memory", "runs[0].memory.extra"), ("conditions", "runs[0].conditions.extra"), (None, "runs[0].extra")],
)
def test_a_key_that_no_record_has_is_refused(tmp_path, place, key):
    document = json.loads(json.dumps(make_record().to_document()))
    (document["runs"][0][place] if place else document["runs"][0])["extra"] = 1
    check_refused(document, re.escape(f"{key}: unknown key"), tmp_path)


def check_refused(document: dict, message: str, folder: Path) -> None:
    (folder / "batch-2.json").write_text(json.dumps(document))
    with pytest.raises(RecordError, match=message):
        record_file.load(folder / "batch-2.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "fine"}, "outcome is 'fine'; allowed: ok, oom, unsupported"),
        ({"samples_s": [1.0, 2.0]}, "2 of samples_s, fewer than min_cycles"),
        ({"samples_s": [1.0, 2.0, math.nan]}, "no finite number"),
        ({"samples_s": [1.0, 2.0, 0.0]}, "no finite number of seconds above 0"),
        ({"first_token_s": []}, "0 of first_token_s, fewer than min_cycles"),
        ({"runs": ()}, "outcome ok without a run"),
        ({"stability": None}, "without a verdict"),
        ({"reason": OOM}, "contradicts reason"),
        ({"outcome": "oom", "reason": None}, "contradicts reason"),
        ({"outcome": "oom", "reason": replace(OOM, phase="other-cell")}, "without the record of that cell"),
    ],
)
def test_a_record_that_contradicts_itself_cannot_be_made(change, message):
    with pytest.raises(RecordError, match=message):
        make_record(**change)


def test_two_long_calls_are_enough():
    cell = make_cell(measurement=measurement(long_call_seconds=15))
    assert len(make_record(cell, samples_s=[15.1, 15.0]).runs[0].samples_s) == 2
    with pytest.raises(RecordError, match="2 of samples_s, fewer than min_cycles"):
        make_record(cell, samples_s=[14.9, 15.0])


def test_a_record_that_breaks_the_format_is_not_written(tmp_path):
    with pytest.raises(RecordError, match=r"runs\[0\].memory.loaded_bytes is \'many\': expected `int`, got `str`"):
        record_file.write(make_record(memory={"loaded_bytes": "many"}), tmp_path / "batch-2.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1}', "\0"])
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RecordError):
        record_file.load(tmp_path / "r.json")


def test_a_record_of_other_settings_is_refused_naming_them(tmp_path):
    record_file.write(make_record(), tmp_path / "r.json")
    wanted = make_cell(measurement=measurement(min_cycles=5))
    with pytest.raises(RecordError, match=r"another configuration: measurement\.min_cycles was 3, is now 5"):
        record_file.load_for(wanted, tmp_path / "r.json")


def test_records_of_other_settings_are_found_and_what_is_no_record_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (cell, other, broken, missing), study = make_experiment(1, 2, 3, 4).cells(), make_ceilings().study
    record_file.write(make_record(cell), Path(cell.path))
    record_file.write(make_record(replace(other, measurement=measurement(seed=5))), Path(other.path))
    Path(broken.path).write_text("{")
    older = make_ceilings().to_document()
    older["study"]["version"] -= 1
    Path(study.path).write_text(json.dumps(older))
    assert record_file.of_other_settings([cell, other, broken, missing, study]) == [other.path, study.path]


def test_a_full_disk_leaves_what_was_there(small_disk):
    path = small_disk / "batch-2.json"
    record_file.write(make_record(), path)
    (small_disk / "filler").write_bytes(b"\0" * (200_000))
    with pytest.raises(OSError, match="No space left"):
        record_file.write(make_record(host={"name": "x" * 100_000}), path)
    assert record_file.load(path) == make_record()
    assert sorted(p.name for p in small_disk.iterdir()) == ["batch-2.json", "filler"]
    with pytest.raises(OSError, match="No space left"):
        files.check_writable(small_disk / "x.json")
