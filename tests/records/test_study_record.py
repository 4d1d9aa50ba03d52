"""Records of studies are checked like those of cells."""

from __future__ import annotations

import json

import pytest
from made_up import make_ceilings

from inference_benchmark.experiment.studies import CeilingsStudy
from inference_benchmark.records import record_file
from inference_benchmark.records.check import RecordError


def test_a_study_comes_back_and_one_of_something_else_is_refused(tmp_path):
    path = tmp_path / "ceilings.json"
    record_file.write(make_ceilings(), path)
    assert record_file.load_for(CeilingsStudy("box", "cpu", None), path) == make_ceilings()
    with pytest.raises(RecordError, match=r"another configuration: threads was None, is now 4"):
        record_file.load_for(CeilingsStudy("box", "cpu", 4), path)
    record_file.write(make_ceilings(), path)
    assert len(list(tmp_path.glob("ceilings.superseded-*.json"))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 0}, "schema_version is 0; this program reads version 1"),
        ({"results": []}, "outcome ok without results"),
        ({"results": [{"kind": "matmul"}]}, r"results\[0\]: object missing required field"),
        ({"results": [{"batch_size": 1, "fits": True}]}, r"results\[0\]"),
        ({"outcome": "oom"}, "contradicts reason"),
        ({"extra": 1}, "extra: unknown key"),
        ({"study": {"kind": "ceilings", "version": 1}}, "version of the study ceilings is 1"),
    ],
)
def test_what_is_no_study_is_not_read(tmp_path, change, message):
    path = tmp_path / "ceilings.json"
    path.write_text(json.dumps(make_ceilings().to_document() | change))
    with pytest.raises(RecordError, match=message):
        record_file.load_for(CeilingsStudy("box", "cpu", None), path)


def test_what_breaks_the_format_is_not_written(tmp_path):
    with pytest.raises(RecordError, match=r"results\[0\]"):
        record_file.write(make_ceilings(results=({"kind": "matmul"},)), tmp_path / "ceilings.json")
    assert not list(tmp_path.iterdir())
