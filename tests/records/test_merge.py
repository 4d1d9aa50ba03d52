"""scripts/merge.py: records from several places come together, and none goes over another."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from made_up import make_ceilings, make_cell, make_record
from running import run_study, script

from inference_benchmark.experiment.studies import ColumnStudy


def write(folder: Path, **changes) -> Path:
    """A record in a results folder, at its place."""
    cell = make_cell(
        **{name: changes.pop(name) for name in ("machine", "model", "batch_size", "precision") if name in changes}
    )
    path = folder / Path(cell.path).relative_to("results")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(make_record(cell, **changes).to_document()))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_two_clusters_measured_comes_together(tmp_path):
    here, there, third = tmp_path / "results", tmp_path / "there", tmp_path / "third"
    write(here, machine="a100", batch_size=1)
    write(there, machine="a100", batch_size=2)
    write(there, machine="a100", batch_size=1)  # the same file in both places
    write(third, machine="h200", batch_size=1)
    for derived in ("h200/summary.csv", "h200/charts/x.svg", "report.html", "h200/preview/batch-9.json"):
        (third / derived).parent.mkdir(parents=True, exist_ok=True)
        (third / derived).write_text("not to be copied")
    done = script("merge", "there", "third", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 files copied, 1 were here already, 0 conflicts: none\n"
    column = "tiny/prompt4-new8/fake/fp32"
    assert set(contents(here)) == {
        f"a100/{column}/batch-1.json", f"a100/{column}/batch-2.json", f"h200/{column}/batch-1.json"
    }  # fmt: skip
    assert script("merge", "there", "third", cwd=tmp_path).stdout.startswith("0 files copied, 3 were here already")


def test_links_are_followed_and_circles_are_not(tmp_path):
    real, there = tmp_path / "elsewhere", tmp_path / "there"
    write(real, machine="a100")
    there.mkdir()
    (there / "a100").symlink_to(real / "a100")
    (real / "a100/again").symlink_to(real / "a100")
    (real / "a100/itself").symlink_to("itself")
    done = script("merge", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 files copied")


def test_a_model_may_be_called_as_a_folder_of_derived_files(tmp_path):
    there = tmp_path / "there"
    for name in ("charts", "preview", "comparison"):
        write(there, model={"name": name, "architecture": {}, "seed": 0})
    (there / "box/comparison/ceilings.json").write_text("a comparison with a baseline of that name")
    done = script("merge", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 files copied")


def test_two_records_of_one_cell_are_named_and_nothing_is_copied(tmp_path):
    here, there = tmp_path / "results", tmp_path / "there"
    write(here, host={"name": "a1"})
    write(there, host={"name": "b7"}, started_at="2026-02-02T00:00:00.000+00:00")
    write(there, batch_size=4)
    before = contents(here)
    done = script("merge", "there", cwd=tmp_path)
    place = "results/box/tiny/prompt4-new8/fake/fp32/batch-2.json"
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"merge.py: {place}: two records for one place: {place} of 2026-01-01T00:00:00.000+00:00 on a1; "
        f"{place.replace('results', 'there')} of 2026-02-02T00:00:00.000+00:00 on b7",
        "merge.py: nothing was copied (see --on-conflict)",
    ]
    assert contents(here) == before
    assert script("merge", "there", "--on-conflict", "keep", cwd=tmp_path).returncode == 0
    assert contents(here).items() > before.items()
    assert len(contents(here)) == 2
    assert script("merge", "there", "--on-conflict", "replace", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / place).read_text())["host"]["name"] == "b7"
    (kept,) = (tmp_path / place).parent.glob("batch-2.superseded-*.json")
    assert kept.read_bytes() == before[place.removeprefix("results/")]


def test_of_two_ceilings_of_a_machine_the_newer_are_kept(tmp_path):
    here, there = tmp_path / "results/box/ceilings.json", tmp_path / "there/box/ceilings.json"
    write(tmp_path / "results", batch_size=1)
    write(tmp_path / "there", batch_size=2)
    times = {"here": "2026-01-01T00:00:09.000+00:00", "there": "2026-01-02T00:00:09.000+00:00"}
    for path, time in zip((here, there), times.values(), strict=True):
        path.write_text(json.dumps(make_ceilings(started_at=time, ended_at=time).to_document()))
    older, newer = here.read_bytes(), there.read_bytes()
    done = script("merge", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"results/box/ceilings.json: there/box/ceilings.json of {times['there']} on h is kept; it is newer than "
        f"results/box/ceilings.json of {times['here']} on h\n"
        "2 files copied, 0 were here already, 0 conflicts: none\n"
    )
    assert here.read_bytes() == newer
    (kept,) = here.parent.glob("ceilings.superseded-*.json")
    assert kept.read_bytes() == older
    there.write_bytes(older)
    done = script("merge", "there", cwd=tmp_path)
    assert "results/box/ceilings.json of 2026-01-02T00:00:09.000+00:00 on h is kept" in done.stdout
    assert here.read_bytes() == newer


def test_a_folder_of_another_level_is_one_line(tmp_path):
    for batch_size in (1, 2):
        write(tmp_path / "run/results", batch_size=batch_size)
    for wrong in ("run", "run/results/box", "run/results/box/tiny/"):
        done = script("merge", wrong, cwd=tmp_path)
        assert done.returncode == 1
        given = wrong.removesuffix("/")
        assert done.stderr == (
            f"merge.py: {given}: is not the folder above MACHINE; give run/results\nmerge.py: nothing was copied\n"
        )


def test_two_sources_can_be_in_conflict_too(tmp_path):
    write(tmp_path / "one", host={"name": "a1"})
    write(tmp_path / "two", host={"name": "b7"})
    done = script("merge", "one", "two", cwd=tmp_path)
    assert done.returncode == 1
    assert "two records for one place: one/box" in done.stderr
    assert not (tmp_path / "results").exists()


def test_what_is_no_record_of_its_place_is_named(tmp_path):
    there = tmp_path / "there"
    good = write(there)
    shutil.copy(good, good.with_name("batch-2 (1).json"))
    shutil.copytree(there / "box", there / "box-old")
    (there / "box/ceilings.json").write_text("{")
    os.mkfifo(there / "box/tiny/batch-1.json")
    (good.parent / "batch-3.json").symlink_to("/etc/passwd")
    (good.parent / "batch-4.json").write_text(json.dumps({"schema_version": 1, "study": {"kind": "../../x"}}))
    (good.parent / "batch-5.json").write_text("[" * 100_000)
    (good.parent / "batch-6.json").write_text(json.dumps(make_record().to_document() | {"schema_version": 2}))
    done = script("merge", "there", tmp_path / "nowhere", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for line in (
        "fp32/batch-2 (1).json: is the record of box/tiny/prompt4-new8/fake/fp32/batch-2.json; move or rename it",
        "box-old/tiny/prompt4-new8/fake/fp32/batch-2.json: is the record of box/",
        "box/ceilings.json: not JSON",
        "box/tiny/batch-1.json: Not a regular file",
        "batch-3.json: not JSON",
        "batch-4.json: there is no study named '../../x'",
        "batch-5.json: not JSON",
        "batch-6.json: schema_version is 2",
    ):
        assert line in done.stderr, line
    assert not (tmp_path / "results").exists()
    done = script("merge", "nowhere", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "merge.py: nowhere: No such file or directory\nmerge.py: nothing was copied\n"


def test_studies_come_along(tmp_path):
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
    path = tmp_path / "there" / Path(study.path).relative_to("results")
    run_study(study, path)
    assert script("merge", "there", cwd=tmp_path).returncode == 0
    assert (tmp_path / study.path).read_bytes() == path.read_bytes()
