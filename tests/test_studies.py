"""Studies as they are run: real ceilings, the edge of a real limit, answers compared; and what the cells make of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_engine_hf import MODELS

from conftest import DERIVED, FAKE_GRID, MEASUREMENT, REPO, Workspace, fake_gpus, inside, make_cell, measure_cli
from inference_benchmark.analysis import ceilings
from inference_benchmark.analysis.max_batch import edge
from inference_benchmark.experiment.cells import Cell, Experiment
from inference_benchmark.experiment.studies import Ceilings, ColumnStudy, studies
from inference_benchmark.records import record, study_files

#: Logits of a megabyte per row, several times over: where memory ends does not depend on kilobytes.
WIDE = {
    "name": "wide", "seed": 0,
    "architecture": {"model_type": "bloom", "hidden_size": 64, "n_head": 2, "n_layer": 1, "vocab_size": 250_000},
}  # fmt: skip


def study_cli(study, output: Path, prefix: tuple[str, ...] = (), **environ: str) -> subprocess.CompletedProcess:
    """The script of a study's rule, as the rule runs it."""
    script = REPO / f"scripts/{study.kind.replace('-', '_')}.py"
    command = [*prefix, sys.executable, str(script), "--study", study.to_json(), "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, timeout=300)


def conducted(study, path: Path, **environ: str) -> dict:
    done = study_cli(study, path, **environ)
    assert done.returncode == 0, done.stderr
    return study_files.load_for(study, path)


def test_ceilings_of_this_machine(tmp_path):
    began = time.monotonic()
    found = conducted(Ceilings("box", "cpu", None), tmp_path / "ceilings.json")
    assert time.monotonic() - began < 60
    kinds = {(r["kind"], r.get("kernel") or r["dtype"]) for r in found["results"]}
    assert {("bandwidth", "copy"), ("bandwidth", "sum"), ("bandwidth", "matrix-vector")} <= kinds
    assert {("matmul", "float32"), ("matmul", "bfloat16"), ("matmul", "float16")} <= kinds
    assert min(len(r["samples_s"]) for r in found["results"]) >= 7
    sizes = {r["working_set_bytes"] for r in found["results"] if r["kind"] == "bandwidth"}
    assert max(sizes) >= 2**28, "larger than a cache"
    peaks = ceilings.peaks(found)
    assert 10**9 < peaks.bandwidth[-1][1] < 10**12
    assert 10**9 < peaks.flop_per_s["float32"] < 10**14
    assert found["conditions"]["n_samples"] > 0
    assert found["device"]["kind"] == "cpu"
    assert found["model"]["threads"] == len(os.sched_getaffinity(0))


def test_the_edge_of_a_made_up_memory_is_found_with_its_evidence(tmp_path):
    # 200 MB of weights and 600 kB a row under 300 MB.
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
    found = conducted(study, tmp_path / "max-batch.json")
    assert edge(found["results"]) == (166, 167)
    assert found["limit"] == {"name": "memory_limit", "bytes": 300_000_000}
    failed = next(t for t in found["results"] if t["batch_size"] == 167)
    assert failed["message"] == "300200000 bytes wanted, 300000000 allowed"
    assert failed["exception_type"].endswith("FakeMemoryError")
    assert all(t["memory"] for t in found["results"])


def test_a_gpu_is_searched_in_one_process_and_held_meanwhile(tmp_path):
    """The fake engine loads once, so that its calls count on: two go to each try, and from the 5th on nothing fits."""
    study = ColumnStudy.of("max-batch", make_cell(device="cuda", memory_limit_bytes=300_000_000))
    environ = fake_gpus(tmp_path) | {"FAKE_ENGINE": json.dumps({"fault": "oom", "after": 4})}
    found = conducted(study, tmp_path / "max-batch.json", **environ)
    assert [(t["batch_size"], t["fits"]) for t in found["results"]] == [
        (1, True), (2, True), (4, False), (3, False), (2, False), (1, False),
    ]  # fmt: skip
    assert edge(found["results"]) == (0, 1)
    assert found["device"]["kind"] == "cuda"


def test_a_model_that_does_not_fit_at_all_has_its_edge_at_nothing(tmp_path):
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=100_000_000))
    found = conducted(study, tmp_path / "max-batch.json")
    assert (found["outcome"], edge(found["results"])) == ("ok", (0, 1))
    assert found["results"][0]["message"].startswith("during load: ")


def test_a_try_that_the_kernel_kills_counts_and_the_search_goes_on(tmp_path, memory_cgroup):
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
    environ = {"FAKE_ENGINE": json.dumps({"fault": "hog", "on_batch": 4})}
    done = study_cli(study, tmp_path / "x.json", inside(memory_cgroup), **environ)
    assert done.returncode == 0, done.stderr
    found = study_files.load_for(study, tmp_path / "x.json")
    assert [(t["batch_size"], t["fits"]) for t in found["results"]] == [
        (1, True), (2, True), (4, False), (3, True), (3, True),
    ]  # fmt: skip
    assert found["results"][2]["exception_type"] == "SIGKILL"
    assert found["results"][2]["message"] == "during search: killed by the kernel's out-of-memory killer"


@pytest.mark.parametrize(
    ("fault", "said"),
    [("error", "ValueError: made-up error"), ("kill", "killed by SIGKILL"), ("short", "WrongOutputError")],
)
def test_a_search_that_fails_for_another_reason_leaves_no_file(tmp_path, fault, said):
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
    done = study_cli(study, tmp_path / "x.json", FAKE_ENGINE=json.dumps({"fault": fault, "on_batch": 4}))
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "x.json").exists()


def test_the_edge_of_a_real_limit_is_that_of_brute_force(tmp_path):
    """Each batch size as a cell of its own, up to the first that does not fit, against one search."""
    # Between what 20 rows need and what 21 do: at 150 MB 20 fitted in three processes of four, at 152 MB 21 in two of
    # three, and the answer would be chance.
    cell = make_cell(
        engine="hf", model=WIDE, memory_limit_bytes=151_000_000, measurement={**MEASUREMENT, "max_warmup_calls": 2}
    )
    search = conducted(ColumnStudy.of("max-batch", cell), tmp_path / "max-batch.json")
    fits, fails = edge(search["results"])
    assert fits >= 8, "an edge to be found by halving"
    outcomes = {}
    for batch_size in (fits - 1, fits, fails, fails + 1):
        path = tmp_path / f"{batch_size}.json"
        done = measure_cli(replace(cell, batch_size=batch_size), path)
        assert done.returncode == 0, done.stderr
        outcomes[batch_size] = record.load(path)["outcome"]
    assert outcomes == {fits - 1: "ok", fits: "ok", fails: "oom", fails + 1: "oom"}


def test_an_engine_that_keeps_its_own_memory_is_searched_too(tmp_path):
    cell = make_cell(engine="ctranslate2", model=WIDE, memory_limit_bytes=860_000_000)
    found = conducted(ColumnStudy.of("max-batch", cell), tmp_path / "max-batch.json")
    fits, fails = edge(found["results"])
    assert (found["outcome"], fails) == ("ok", fits + 1)
    assert fits > 0


@pytest.mark.parametrize(("engine", "precision"), [("hf", "fp32"), ("ctranslate2", "fp32"), ("hf", "bf16")])
def test_answers_are_compared_with_those_of_hf_in_fp32(tmp_path, engine, precision):
    model = {"name": "small", "architecture": MODELS["bloom"], "seed": 0}
    cell = make_cell(engine=engine, precision=precision, model=model, workload={"prompt_tokens": 9, "new_tokens": 40})
    document = conducted(ColumnStudy.of("divergence", cell), tmp_path / "divergence.json")
    found = document["results"][0]
    assert (found["rows"], found["steps"]) == (8, 32)
    if precision == "fp32":
        assert found["token_agreement"] == found["next_token_agreement"] == 1
        assert found["first_difference"] == [None] * 8
        assert found["logits_error"]["max"] < 1e-4
        assert -1e-9 < found["kl_nats"]["max"] < 1e-6
        assert (found["logits_error"]["max"] == 0) == (engine == "hf")
    else:
        assert 0.1 < found["token_agreement"] < 1
        assert any(step is not None for step in found["first_difference"])
        assert found["token_agreement"] <= found["next_token_agreement"] < 1
        assert 0.001 < found["logits_error"]["mean"] <= found["logits_error"]["max"] < 0.5
        assert 0 < found["kl_nats"]["mean"] <= found["kl_nats"]["max"]


# -- what the cells make of a search -----------------------------------------------------------


def test_a_cell_beyond_the_edge_is_written_at_once_without_torch(tmp_path):
    cell = make_cell(memory_limit_bytes=300_000_000)
    study = ColumnStudy.of("max-batch", cell)
    search = conducted(study, tmp_path / study.path)

    def measured(batch_size: int, **changes) -> tuple[dict, str]:
        subject, output = replace(cell, batch_size=batch_size, **changes), tmp_path / f"{batch_size}.json"
        command = [sys.executable, "-X", "importtime", str(REPO / "scripts/measure.py"), "--cell", subject.to_json()]
        done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return record.load_for(subject, output), done.stderr

    found, said = measured(167)
    assert (found["outcome"], found["runs"]) == ("oom", [])
    assert found["reason"]["phase"] == "max-batch"
    assert found["reason"]["message"].startswith("not measured: 166 fit and 167 do not; there: 300200000 bytes wanted")
    assert found["reason"]["evidence"]["search"] == study.path
    assert found["reason"]["evidence"]["try"]["batch_size"] == 167
    assert found["device"] == search["device"]
    assert "| torch" not in said
    assert "oom, as the search for the largest batch found" in said
    assert measured(166)[0]["runs"], "below the edge it is measured as usual"
    # Another limit is another question: the search is named and not used.
    found, said = measured(168, memory_limit_bytes=310_000_000)
    assert found["outcome"] == "ok"
    assert f"{study.path}: not used: found out under another configuration: memory_limit_bytes was 300000000" in said


@pytest.fixture(scope="session")
def _searched_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    grid = json.loads(json.dumps(FAKE_GRID)) | {"max_batch": True, "divergence": True, "batch_sizes": [1, 512, 1024]}
    Workspace.make(folder, grid).run()
    return folder


@pytest.fixture
def searched(_searched_once, tmp_path) -> Workspace:
    """A fake experiment with searches, all done. One engine that makes up its times: no ceilings, no answers."""
    shutil.copytree(_searched_once, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path)


def test_searches_come_first_and_spare_the_cells_beyond(searched):
    results = searched.folder / "results/box"
    assert [p.name for p in sorted(results.rglob("max-batch.json"))] == ["max-batch.json"] * 2
    assert not list(results.rglob("divergence.json"))
    assert not (results / "ceilings.json").exists()
    beyond = [searched.record(p, n) for p in ("fp32", "bf16") for n in (512, 1024)]
    assert {r["reason"]["phase"] for r in beyond} == {"max-batch"}
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


def test_cells_that_a_search_no_longer_speaks_against_are_refused_by_name(searched):
    """As after more memory was put in, and only the search done again."""
    path = searched.record_path("fp32", 1).parent / "max-batch.json"
    search = json.loads(path.read_text())
    for found in search["results"]:
        found["fits"] = found["batch_size"] < 1024
    search["results"].append({**search["results"][0], "batch_size": 1024, "fits": False})
    path.write_text(json.dumps(search))
    done = searched.snakemake()
    assert done.returncode != 0
    said = done.stdout + done.stderr
    name = "results/box/tiny/prompt4-new8/fake/fp32/batch-512.json"
    assert f"{name}: was not measured for a search that says now that 512 rows fit" in said
    assert "batch-1024.json: was not" not in said


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
    searched.run()
    table = (searched.folder / "results/box/tables.md").read_text()
    assert re.search(r"^\| max batch +\|( +\|)+ 333 +\|", table, re.MULTILINE), table


def test_broken_and_foreign_studies_are_refused_by_name(searched):
    folder = searched.record_path("fp32", 1).parent
    shutil.copy(searched.record_path("bf16", 1).parent / "max-batch.json", folder / "max-batch.json")
    done = searched.snakemake()
    assert "fp32/max-batch.json: found out under another configuration: precision was 'bf16', is now 'fp32'" in (
        done.stdout + done.stderr
    )
    (folder / "max-batch.json").write_text("{")
    done = searched.snakemake()
    assert done.returncode != 0
    assert "fp32/max-batch.json: not JSON" in done.stdout + done.stderr
    assert (folder / "max-batch.json").read_text() == "{"


def test_what_an_experiment_asks_beside_its_cells():
    cells = list(experiment("hf", "fake", max_batch=True, divergence=True))
    assert [(type(s).__name__, s.path.split("/", 4)[-1] if s.kind != "ceilings" else s.path) for s in cells] == [
        ("Ceilings", "results/box/ceilings.json"),
        ("ColumnStudy", "hf/fp32/max-batch.json"),
        ("ColumnStudy", "fake/fp32/max-batch.json"),
        ("ColumnStudy", "hf/fp32/divergence.json"),
    ]
    assert [s.path for s in experiment("hf")] == ["results/box/ceilings.json"]
    assert list(experiment("fake")) == []


def experiment(*engines: str, **more):
    cell: Cell = make_cell()
    return studies(
        Experiment(
            machine=cell.machine,
            device=cell.device,
            models=(cell.model,),
            workloads=(cell.workload,),
            engines=engines,
            precisions=("fp32",),
            batch_sizes=(1, 2),
            memory_limit_bytes=None,
            measurement=cell.measurement,
            **more,
        )
    )


def test_answers_that_change_from_call_to_call_are_flagged(tmp_path):
    done = measure_cli(make_cell(), tmp_path / "moody.json", FAKE_ENGINE=json.dumps({"fault": "moody"}))
    assert done.returncode == 0, done.stderr
    found = record.load(tmp_path / "moody.json")
    assert [flag["name"] for flag in found["flags"]] == ["nondeterministic"]
    assert len(found["runs"][0]["tokens_sha256"]) == 5
    assert found["flags"][0]["message"].startswith("5 different answers to the same prompts")
    done = measure_cli(make_cell(), tmp_path / "steady.json")
    assert len(record.load(tmp_path / "steady.json")["runs"][0]["tokens_sha256"]) == 1
    assert record.load(tmp_path / "steady.json")["flags"] == []
