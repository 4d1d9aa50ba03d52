"""Real Snakemake: searches, and what the cells make of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from running import DERIVED, SUMMARY, TABLES, Workspace, fake_grid, fault


@pytest.fixture(scope="session")
def searched_once(shared_folder) -> Workspace:
    """A fake experiment with searches, all done. One engine that makes up its times: no ceilings, no answers."""
    search = {"max_batch": True, "max_batch_tolerance_percent": 0}
    grid = fake_grid() | search | {"divergence": True, "batch_sizes": [1, 512, 1024]}
    return Workspace.run_once(shared_folder / "searched", grid)


@pytest.fixture
def searched(searched_once, tmp_path) -> Workspace:
    """The same, to be changed."""
    return searched_once.copy(tmp_path)


def test_searches_start_from_the_cells(searched):
    results = searched.folder / "results/box"
    assert [p.name for p in sorted(results.rglob("max-batch.json"))] == ["max-batch.json"] * 2
    assert not list(results.rglob("divergence.json"))
    assert not (results / "ceilings.json").exists()
    for precision in ("fp32", "bf16"):
        outcomes = [searched.record(precision, n)["reason"]["phase"] for n in (512, 1024)]
        assert outcomes == ["warm-up", "other-cell"]
        search = json.loads((searched.record_path(precision, 1).parent / "max-batch.json").read_text())
        assert [(each["batch_size"], each["fits"]) for each in search["results"]][:3] == [
            (1, True), (512, False), (256, precision == "bf16"),
        ]  # fmt: skip
        records = [each.get("evidence", {}).get("record") for each in search["results"]]
        folder = f"results/box/tiny/prompt4-new8/fake/{precision}"
        assert records[:2] == [f"{folder}/batch-1.json", f"{folder}/batch-512.json"]
        assert not any(records[2:])
    table = (results / "tables.md").read_text()
    assert re.search(r"^\| max batch +\| 166 +\| 333 +\|$", table, re.MULTILINE)
    assert re.search(r"^\| 512 +\| oom +\| oom +\|$", table, re.MULTILINE)
    page = (results / "report.html").read_text()
    assert "<td>166 (searched)</td>" in page
    assert "<td>333 (searched)</td>" in page
    assert ">max batch<" in page
    assert searched.plan() == {}


def test_a_search_done_again_measures_no_cell_again(searched):
    searched.record_path("fp32", 1).parent.joinpath("max-batch.json").unlink()
    plan = searched.plan()
    assert plan == {"max_batch": 1, "collect": 1, **DERIVED, "all": 1, "total": 7}


def test_a_changed_setting_does_the_studies_it_concerns_again(searched):
    searched.grid["max_batch_tolerance_percent"] = 5
    searched.save()
    assert searched.plan() == {"max_batch": 2, "collect": 1, **DERIVED, "all": 1, "total": 8}


def test_a_search_spares_the_cells_that_are_asked_for_later(searched):
    searched.config["grid"]["cpu"]["batch_sizes"] = [1, 400, 512, 1024]
    searched.save()
    searched.run(SUMMARY)
    reasons = [searched.record(precision, 400)["reason"] for precision in ("fp32", "bf16")]
    assert {reason["phase"] for reason in reasons} == {"max-batch"}


def test_cells_that_a_later_search_says_fit_are_refused_by_name(searched):
    """As after more memory was put in, and only the search done again."""
    searched.config["grid"]["cpu"] |= {"batch_sizes": [1, 400, 512, 1024], "precisions": ["fp32"]}
    searched.save()
    searched.run(SUMMARY)
    path = searched.record_path("fp32", 1).parent / "max-batch.json"
    search = json.loads(path.read_text())
    for attempt in search["results"]:
        attempt["fits"] = attempt["batch_size"] < 1024
    search["results"].append({**search["results"][0], "batch_size": 1024, "fits": False})
    path.write_text(json.dumps(search))
    done = searched.snakemake()
    assert done.returncode != 0
    printed = done.stdout + done.stderr
    name = "results/box/tiny/prompt4-new8/fake/fp32/batch-400.json"
    assert f"{name}: was not measured because of a search that now says that 400 rows fit" in printed
    assert "batch-1024.json: was not" not in printed


def test_studies_of_other_hardware_are_refused_or_left_out(searched):
    path = searched.record_path("fp32", 1).parent / "max-batch.json"
    search = json.loads(path.read_text())
    search["device"]["name"] = "Another CPU"
    path.write_text(json.dumps(search))
    done = searched.snakemake()
    assert done.returncode != 0
    assert "fake/fp32/max-batch.json: device was Another CPU, for results/box/tiny/" in done.stdout + done.stderr
    searched.config["mixed_provenance"] = "split"
    searched.save()
    searched.run(TABLES)
    table = (searched.folder / "results/box/tables.md").read_text()
    assert re.search(r"^\| max batch +\|( +\|)+ 333 +\|", table, re.MULTILINE), table


def test_a_study_of_something_else_is_done_again_and_a_broken_one_refused_by_name(searched):
    folder = searched.record_path("fp32", 1).parent
    shutil.copy(searched.record_path("bf16", 1).parent / "max-batch.json", folder / "max-batch.json")
    assert searched.plan()["max_batch"] == 1
    (folder / "max-batch.json").write_text("{")
    done = searched.snakemake()
    assert done.returncode != 0
    assert "fp32/max-batch.json: not JSON" in done.stdout + done.stderr
    assert (folder / "max-batch.json").read_text() == "{"


def test_a_search_that_is_retried_goes_on_from_its_tries(tmp_path):
    workspace = Workspace.make(tmp_path, fake_grid() | {"max_batch": True, "precisions": ["fp32"], "batch_sizes": [1]})
    killed_once = {"FAKE_ENGINE": fault(fault="kill", on_batch=4, once=str(tmp_path / "killed"))}
    search = "results/box/tiny/prompt4-new8/fake/fp32/max-batch.json"
    workspace.run("--retries", "1", search, **killed_once)
    log = tmp_path / "logs" / Path(search).relative_to("results").with_suffix(".log")
    assert "max-batch.tries.json: going on from 2 tries" in log.read_text()
    record = json.loads((tmp_path / search).read_text())
    assert [each["batch_size"] for each in record["results"]][:4] == [1, 2, 4, 8]
    assert len(record["attempts"]) == 1
    assert [path.name for path in (tmp_path / search).parent.iterdir()] == ["max-batch.json"]
