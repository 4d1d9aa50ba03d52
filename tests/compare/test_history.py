"""Result sets over time."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_up import make_cell, make_experiment, make_record, write_records
from running import script

from inference_benchmark import files
from inference_benchmark.analysis.change_points import change_points
from inference_benchmark.analysis.statistics import Estimate, estimate
from inference_benchmark.cli import ProblemsError
from inference_benchmark.compare import history
from inference_benchmark.compare.result_set import ResultSet
from inference_benchmark.experiment.baselines import records_below
from inference_benchmark.records import collect, record_file
from inference_benchmark.records.results import cell_results
from inference_benchmark.render import history as view
from inference_benchmark.results.cell_result import CellResult
from inference_benchmark.results.summary_csv import to_csv


def keep(folder: Path, speeds: Sequence[float], rounds: int = 4, noise: float = 0.01) -> list[tuple[str, Path]]:
    """A result set of each day of January, in which calls are so many times as fast; torch is newer where that is not 1."""
    draw = random.Random(5)
    kept = []
    for day, speed in enumerate(speeds, start=1):
        records = [
            make_record(
                make_cell(precision=precision, batch_size=size, round=number),
                samples_s=[0.5 * size / speed * draw.lognormvariate(0, noise)] * 3,
                software={"torch": "2.13.0" if speed == 1 else "2.14.0"},
                started_at=f"2026-01-{day:02}T00:00:00.000+00:00",
            )
            for precision in ("fp32", "bf16")
            for size in (1, 2)
            for number in range(1, rounds + 1)
        ]
        kept.append((f"day-{day}", write_records(folder / f"day-{day}", records)))
    return kept


def steps_of(paths) -> list[history.Step]:
    return history.steps_in(history.histories_of(history.load(paths)))


def made_up_cell(batch_size: int, throughput: Estimate) -> CellResult:
    return replace(CellResult.of_key({"batch_size": batch_size}, "ok"), figures={"throughput_tok_per_s": throughput})


def test_a_step_is_found_and_named_with_the_version_that_changed_there(tmp_path):
    steps = steps_of(reversed(keep(tmp_path, [1, 1, 1, 1.1, 1.1])))
    assert len(steps) == 4  # of two precisions and two batch sizes
    for step in steps:
        assert (step.before.name, step.after.name) == ("day-3", "day-4")
        assert step.is_tested
        assert step.ratio.value == pytest.approx(1.1, abs=0.015)
        assert 1.07 < step.ratio.low < step.ratio.value < step.ratio.high < 1.13
        assert [tuple(each) for each in step.changed] == [("torch", ["2.13.0"], ["2.14.0"])]


def test_a_series_that_only_scatters_has_no_step(tmp_path):
    assert steps_of(keep(tmp_path, [1] * 5)) == []


def test_of_pages_without_a_change_at_most_one_in_twenty_has_a_step():
    draw = random.Random(7)

    def page() -> list[history.Step]:
        """Ten cells over five dates, each in three processes."""
        entries = []
        for day in range(5):
            samples = [[[draw.lognormvariate(0, 0.02)] for _ in range(3)] for _ in range(10)]
            cells = [
                replace(made_up_cell(size, estimate(groups).per(8)), whole_s=groups)
                for size, groups in enumerate(samples)
            ]
            entries.append(history.Entry("", datetime(2026, 1, 1 + day, tzinfo=UTC), ResultSet("box", cells)))
        return history.steps_in(history.histories_of(entries))

    assert 3 < sum(bool(page()) for _ in range(200)) < 20  # 10 are expected


def test_a_spike_is_a_step_up_and_a_step_down(tmp_path):
    steps = steps_of(keep(tmp_path, [1, 1, 1.2, 1, 1]))
    assert [(step.before.name, step.after.name) for step in steps] == [("day-2", "day-3")] * 4 + [
        ("day-3", "day-4")
    ] * 4


def test_a_single_result_set_has_a_chart_and_no_step(tmp_path):
    ((_, folder),) = keep(tmp_path, [1])
    done = script("history", folder, "--html", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Result sets: 1; cells over time: 4; steps: 0.",
        f"#1 2026-01-01 00:00: {folder}",
        f"Page: {tmp_path}/page.html",
    ]
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 1
    assert "No cell changed by more than its measurements vary." in page


def test_the_script_prints_each_step_and_makes_the_page(tmp_path):
    kept = keep(tmp_path, [1, 1, 1.1, 1.1])
    done = script("history", *(folder for _, folder in kept), "--html", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert lines[:4] == [
        f"#{number} 2026-01-0{number} 00:00: {folder}" for number, (_, folder) in enumerate(kept, start=1)
    ]
    assert first == "Result sets: 4; cells over time: 4; steps: 4."
    assert lines[4].startswith("tiny prompt4-new8 fake bf16 batch 1 on box: 1.")
    assert lines[4].endswith("from #2 2026-01-02 00:00 to #3 2026-01-03 00:00: torch 2.13.0 → 2.14.0")
    page = (tmp_path / "page.html").read_text()
    assert "torch 2.13.0 → 2.14.0" in page
    assert "Throughput at batch size 2" in page


def test_without_several_processes_a_step_is_called_perhaps(tmp_path):
    steps = steps_of(keep(tmp_path, [1, 1.2], rounds=1, noise=0))
    assert {step.is_tested for step in steps} == {False}
    assert [step.ratio.value for step in steps] == pytest.approx([1.2] * 4)
    assert {row[4] for row in view.step_rows(steps)} == {"perhaps"}


def test_a_kept_summary_has_its_date_and_its_intervals(tmp_path):
    kept = keep(tmp_path, [1, 1, 1.2])
    summaries = []
    for name, folder in kept:
        records = [record_file.load(path) for path in records_below(folder)]
        path = tmp_path / "kept" / name / "summary.csv"
        provenance = collect.provenance_of(make_experiment(), records)
        files.write_json(provenance, path.with_name("provenance.json"))
        path.write_text(to_csv(cell_results(records)))
        summaries.append((name, path))
    as_records = history.histories_of(history.load(kept))
    as_summaries = history.histories_of(history.load(summaries))
    for one, other in zip(as_records, as_summaries, strict=True):
        assert one.cell.key == other.cell.key
        assert [point.entry.date for point in one.points] == [point.entry.date for point in other.points]
        for a, b in zip(one.points, other.points, strict=True):
            assert b.throughput == pytest.approx(a.throughput)
    assert {(step.after.name, step.is_tested) for step in history.steps_in(as_summaries)} == {("day-3", False)}
    summaries[0][1].with_name("provenance.json").unlink()
    with pytest.raises(ProblemsError) as caught:
        history.load(summaries)
    assert caught.value.problems == [
        f"{summaries[0][1]}: its date is unknown; keep the provenance.json of its run beside a summary.csv"
    ]


def test_a_record_that_was_kept_is_one_measurement(tmp_path):
    (_, folder), _ = kept = keep(tmp_path, [1, 1.1])
    again = [*kept, ("again", folder)]
    assert [len(series.points) for series in history.histories_of(history.load(again))] == [2] * 4


def test_what_cannot_be_used_is_named_in_one_line_each(tmp_path):
    (_, good), (_, broken) = keep(tmp_path, [1, 1])
    path = next(broken.rglob("batch-1.json"))
    path.write_text("{")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/batch-1.json").write_text('{"a": 1}')
    done = script("history", good, broken, tmp_path / "empty", tmp_path / "foreign", tmp_path / "gone")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert f"{path}: " in lines[0]
    assert f"{tmp_path}/empty: holds no records (batch-N.json)" in lines[1]
    assert f"{tmp_path}/foreign/batch-1.json: " in lines[2]
    assert f"{tmp_path}/gone: No such file or directory" in lines[3]


def test_a_folder_at_every_commit_that_changed_its_records(tmp_path):
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", repository], check=True)
    git = ["git", "-C", repository, "-c", "user.name=n", "-c", "user.email=e"]
    for day, (_, folder) in enumerate(keep(tmp_path, [1, 1, 1.2])):
        subprocess.run(["cp", "-r", folder.parent, repository], check=True)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", f"day {day}"], check=True)
        (repository / "other").write_text(str(day))
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "other"], check=True)
    box = repository / "results/box"
    done = script("history", "--git", "HEAD", box)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Result sets: 3; cells over time: 4; steps: 4.")
    for range_, message in (
        ("HEAD..HEAD", "no commit of HEAD..HEAD changed its records"),
        ("gone", "git log: fatal: "),
    ):
        done = script("history", "--git", range_, box)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"{box}: {message}" in line


def test_change_points_by_hand():
    """A t of 10 degrees of freedom is beyond 3.038, to either side, with a probability of 5 % / 4."""
    # What a change after the fourth of five saves: its square x 4/5.
    enough = 0.01 * 3.038 / 0.8**0.5
    assert change_points([0, 0, 0, 0, enough * 1.01], 0.01, 10, places=4) == [4]
    assert change_points([0, 0, 0, 0, enough * 0.99], 0.01, 10, places=4) == []
    assert change_points([0, 0, 0, 0, enough * 1.01], 0.01, 10, places=40) == []
    assert change_points([0, 0, 0, 0, enough * 0.99], 0.01, 1000, places=4) == [4]
    assert change_points([0, 0, 1, 1, 0], 0.01, 10, places=4) == [2, 4]
    assert change_points([0], 0.01, 10, places=4) == change_points([], 0.01, 10, places=4) == []


def test_a_figure_without_an_interval_has_no_step():
    points = [made_up_cell(1, Estimate(value)) for value in (1.0, 9.0)]
    entries = [
        history.Entry(str(value), datetime(2026, 1, 1, tzinfo=UTC), ResultSet("box", [point]))
        for value, point in enumerate(points)
    ]
    assert history.steps_in(history.histories_of(entries)) == []
