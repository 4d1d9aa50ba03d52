"""What can be compared: folders of records, summaries, tables of figures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_up import (
    SMALL,
    grid,
    make_ceilings,
    make_cell,
    make_oom,
    make_record,
    make_yardstick,
    records_of,
    write_records,
)

from inference_benchmark.cli import ProblemsError
from inference_benchmark.compare import result_set
from inference_benchmark.compare.comparing import compare
from inference_benchmark.records.collect import provenance_of
from inference_benchmark.records.results import cell_results
from inference_benchmark.results.summary_csv import to_csv


def test_folders_and_summaries_are_read_for_their_samples(tmp_path):
    records = records_of(grid(**SMALL), rounds=2)
    folder = write_records(tmp_path, records)
    text = to_csv(cell_results(records))
    (folder / "summary.csv").write_text(text)
    new = result_set.of_records(records)
    for path in (folder, folder / "summary.csv"):
        comparison = compare(result_set.load(path), new)
        assert comparison.base == "made-up-gpu"
        assert {cell.verdict for cell in comparison.cells} == {"same"}
        assert comparison.judged == 14
    elsewhere = tmp_path / "elsewhere.csv"
    (elsewhere).write_text(text)
    comparison = compare(result_set.load(elsewhere), new)
    assert {cell.verdict for cell in comparison.cells} == {"unknown"}
    assert [cell.ratio.value for cell in comparison.cells] == pytest.approx([1.0] * 14)


def test_a_copied_summary_never_speaks_of_records_made_since(tmp_path):
    """As when results/box/summary.csv is kept as old/box/summary.csv, and box is measured again."""
    records = records_of(grid(**SMALL), rounds=2)
    text = to_csv(cell_results(records))
    folder = write_records(tmp_path, records_of(grid(**SMALL), faster=2, rounds=2))
    copied = tmp_path / "old" / folder.name / "summary.csv"
    copied.parent.mkdir(parents=True)
    (copied).write_text(text)
    comparison = compare(result_set.load(copied), result_set.load(folder))
    assert {cell.verdict for cell in comparison.cells} == {"unknown"}
    assert comparison.cells[0].ratio.value == pytest.approx(2, rel=0.05)
    # Only some of the records came along: no mixture is made of them.
    write_records(tmp_path / "some", records[:3])
    (tmp_path / "some/results" / folder.name / "summary.csv").write_text(text)
    incomplete = result_set.load(tmp_path / "some/results" / folder.name / "summary.csv")
    assert "11 of its 14 records are not beside it" in incomplete.notes[0]
    assert {cell.verdict for cell in compare(incomplete, result_set.load(folder)).cells} == {"unknown"}


def test_ceilings_of_an_earlier_version_are_named_and_left_out(tmp_path):
    records = records_of(grid(**SMALL), rounds=2)
    folder = write_records(tmp_path, records)
    (folder / "ceilings.json").write_text(
        json.dumps(make_ceilings().to_document() | {"study": {"kind": "ceilings", "version": 1}})
    )
    (folder / "summary.csv").write_text(to_csv(cell_results(records)))
    for path in (folder, folder / "summary.csv"):
        for pair in (
            (result_set.load(path), result_set.of_records(records)),
            (result_set.of_records(records), result_set.load(path)),
        ):
            comparison = compare(*pair)
            assert comparison.judged == 14
            (note,) = comparison.notes
            assert note.startswith(
                f"{folder}/ceilings.json: version of the study ceilings is 1; this program does version"
            )


def test_superseded_records_are_left_out_and_broken_ones_named(tmp_path):
    records = records_of(grid(**SMALL))
    folder = write_records(tmp_path, records)
    write_records(tmp_path, records_of(grid(**SMALL), faster=2))
    sizes = [cell.batch_size for cell in result_set.load(folder).cells]
    assert sizes == [1, 2, 4, 8, 16, 32, 64] * 2
    path = next(folder.rglob("batch-2.json"))
    path.write_text("{")
    with pytest.raises(ProblemsError, match=r"batch-2\.json: not JSON"):
        result_set.load(folder)


def test_a_summary_without_its_records_knows_the_speed_of_its_machine(tmp_path):
    yardstick = {"before": make_yardstick(0.2, 0.25)}
    records = [
        replace(each, runs=tuple(replace(run, yardstick=yardstick) for run in each.runs))
        for each in records_of(grid(**SMALL))
    ]
    (tmp_path / "summary.csv").write_text(to_csv(cell_results(records)))
    provenance = json.dumps(provenance_of(grid(**SMALL), records))
    (tmp_path / "provenance.json").write_text(provenance)
    assert result_set.load(tmp_path / "summary.csv").speed == pytest.approx((50e9, 400e9))
    assert result_set.of_records(records).speed == pytest.approx((50e9, 400e9))
    # provenance.json of an earlier version has none
    older = {name: value for name, value in json.loads(provenance).items() if name != "machine_speed"}
    (tmp_path / "provenance.json").write_text(json.dumps(older))
    assert result_set.load(tmp_path / "summary.csv").speed is None


def test_records_of_several_machines_are_no_result_set(tmp_path):
    write_records(tmp_path, records_of(grid(**SMALL)))
    write_records(tmp_path, records_of(grid(**SMALL, machine="other")))
    with pytest.raises(ProblemsError, match="holds records of made-up-gpu, other; give the folder of one of them"):
        result_set.load(tmp_path / "results")


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"measurement": {}, "memory_limit_bytes": null, "models": [1], "facts": {}}']
)
def test_provenance_that_is_broken_is_named(tmp_path, content):
    (tmp_path / "summary.csv").write_text(to_csv(cell_results(records_of(grid(**SMALL)))))
    (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(ProblemsError, match=r"provenance\.json: cannot be used"):
        result_set.load(tmp_path / "summary.csv")


def test_a_set_whose_cells_have_unequal_rounds_says_how_many_the_fewest_are():
    """And not how many the most are: that would differ between two runs that are alike."""
    cells = {
        2: [make_record(make_cell(batch_size=1, round=number)) for number in (1, 2)],
        3: [make_record(make_cell(batch_size=2, round=number)) for number in (1, 2, 3)],
    }
    assert result_set.of_records(cells[3]).facts["measurement rounds"] == [3]
    assert result_set.of_records(cells[2] + cells[3]).facts["measurement rounds"] == ["2 or more"]
    assert "measurement rounds" not in result_set.of_records([make_oom()]).facts
