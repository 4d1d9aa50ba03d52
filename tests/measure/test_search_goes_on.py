"""A search for the largest batch that is interrupted loses no try; made-up memory, real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import make_cell
from preloaded import HANGS_S
from running import REPO, clock_stands_until, fake_gpus, fault, measure_cli, wait_for

from inference_benchmark.analysis.max_batch import batch_limit
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.records.record_file import load_for

STUDY = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
#: The try of one row fails: only a search that goes on from it ends well.
NOT_FROM_THE_START = {"FAKE_ENGINE": fault(fault="error", on_batch=1)}


def tries_path(folder: Path) -> Path:
    return folder / "max-batch.tries.json"


def batch_sizes(path: Path) -> list[int]:
    return [each["batch_size"] for each in json.loads(path.read_text())["results"]]


def interrupted(folder: Path, **behaviour) -> subprocess.CompletedProcess:
    """A search that ends at the try of four rows."""
    done = measure_cli(
        STUDY, folder / "max-batch.json", FAKE_ENGINE=fault(**{"fault": "kill", "on_batch": 4, **behaviour})
    )
    assert done.returncode == 1
    assert not (folder / "max-batch.json").exists()
    return done


def goes_on(folder: Path) -> None:
    """The next attempt makes the missing tries and leaves only the record."""
    began_at = json.loads(tries_path(folder).read_text())["started_at"]
    done = measure_cli(STUDY, folder / "max-batch.json", **NOT_FROM_THE_START)
    assert done.returncode == 0, done.stderr
    assert "max-batch.tries.json: going on from 2 tries" in done.stderr
    record = load_for(STUDY, folder / "max-batch.json")
    assert batch_limit(record.results) == (166, 167)
    assert [each["batch_size"] for each in record.results][:4] == [1, 2, 4, 8]
    assert record.started_at == began_at
    assert [path.name for path in folder.glob("max-batch*")] == ["max-batch.json"]


@pytest.mark.parametrize("kind", ["kill", "error", "abort-silently", "short"])
def test_a_search_that_fails_goes_on_from_its_tries(tmp_path, kind):
    done = interrupted(tmp_path, fault=kind)
    assert "max-batch.tries.json: the next attempt goes on from 2 tries" in done.stderr
    assert batch_sizes(tries_path(tmp_path)) == [1, 2]
    goes_on(tmp_path)


def test_a_search_whose_time_is_up_goes_on_from_its_tries(tmp_path):
    hangs = clock_stands_until("stopped", fault="hang", on_batch=4)
    done = measure_cli(STUDY, tmp_path / "max-batch.json", options=("--timeout-s", "5"), **hangs)
    assert done.returncode == 124
    assert "timeout during search: no end of the try of batch size 4 after 5 s" in done.stderr
    goes_on(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_search_that_is_ended_from_outside_goes_on_from_its_tries(tmp_path, number):
    command = [sys.executable, str(REPO / "scripts/measure.py"), "--subject", STUDY.to_json()]
    environ = {**os.environ, "FAKE_ENGINE": fault(fault="hang", on_batch=4)}
    parent = subprocess.Popen([*command, "--output", str(tmp_path / "max-batch.json")], env=environ)
    wait_for(lambda: tries_path(tmp_path).exists() and batch_sizes(tries_path(tmp_path)) == [1, 2])
    parent.send_signal(number)
    parent.wait(timeout=HANGS_S)
    goes_on(tmp_path)


def test_each_try_has_the_time_of_a_process_for_itself(tmp_path):
    """The search takes longer than --timeout-s, but none of its tries does."""
    study = replace(STUDY, device="cuda")
    began = time.monotonic()
    called = tmp_path / "called"
    environ = clock_stands_until(called, fault="moody", once=str(called), sleep_s=0.25)
    gpus = fake_gpus(tmp_path)
    environ |= gpus | {"PYTHONPATH": os.pathsep.join([gpus["PYTHONPATH"], environ["PYTHONPATH"]])}
    done = measure_cli(study, tmp_path / "max-batch.json", options=("--timeout-s", "5"), **environ)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began > 5
    assert batch_limit(load_for(study, tmp_path / "max-batch.json").results) == (166, 167)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["study"].update(precision="bf16"), "tried under another configuration: precision was 'bf16'"),
        (lambda d: d["study"].update(version=0), "tried under another configuration: version was 0, is now 2"),
        (lambda d: d["circumstances"].update(torch="1.0"), "tried in other circumstances: torch was 1.0, is now "),
        (lambda d: d["circumstances"].update(device="Another CPU"), "device was Another CPU, is now "),
        (lambda d: d["circumstances"].update({"memory limit (bytes)": 1}), "memory limit (bytes) was 1, is now 3000"),
        (lambda d: d["results"][0].pop("fits"), "results[0]"),
        (lambda d: d["results"].append(1), "results[2]"),
        (lambda d: d.update(results={}), "not the tries of a search"),
        (lambda d: d.pop("started_at"), "not the tries of a search"),
        (None, "not JSON"),
    ],
)
def test_tries_that_are_foreign_stale_or_broken_are_not_used(tmp_path, change, said):
    interrupted(tmp_path)
    document = json.loads(tries_path(tmp_path).read_text())
    if change:
        change(document)
    tries_path(tmp_path).write_text(json.dumps(document) if change else "{")
    done = measure_cli(STUDY, tmp_path / "max-batch.json", **NOT_FROM_THE_START)
    assert done.returncode == 1, "the search begins with one row"
    line = next(line for line in done.stderr.splitlines() if "not used" in line)
    assert line.startswith(f"{tries_path(tmp_path)}: not used: ")
    assert said in line


def test_a_model_that_no_longer_fits_says_nothing_of_rows_that_fitted(tmp_path):
    """For example because another program has taken the memory. On CUDA the model is loaded before any try."""
    study, gpu = replace(STUDY, device="cuda"), fake_gpus(tmp_path)
    measure_cli(study, tmp_path / "max-batch.json", **gpu, FAKE_ENGINE=fault(fault="kill", on_batch=4))
    full = fault(fault="oom", at_load=True)
    done = measure_cli(study, tmp_path / "max-batch.json", **gpu, FAKE_ENGINE=full)
    assert done.returncode == 1
    assert "out of memory during load, where 2 rows fitted before: made-up memory is full" in done.stderr
    assert batch_sizes(tries_path(tmp_path)) == [1, 2]


def test_tries_that_cannot_be_kept_do_not_end_the_search(tmp_path):
    tries_path(tmp_path).mkdir()
    done = measure_cli(STUDY, tmp_path / "max-batch.json")
    assert done.returncode == 0, done.stderr
    assert "max-batch.tries.json: Is a directory; the tries are not kept" in done.stderr
    assert batch_limit(load_for(STUDY, tmp_path / "max-batch.json").results) == (166, 167)


def test_tries_of_which_none_is_missing_are_the_record(tmp_path):
    """For example because the disk was full when the record was to be written."""
    interrupted(tmp_path)
    document = json.loads(tries_path(tmp_path).read_text())
    one, two = document["results"]
    document["results"] = [one, {**two, "fits": False, "exception_type": "X", "message": "full"}, one]
    tries_path(tmp_path).write_text(json.dumps(document))
    done = measure_cli(STUDY, tmp_path / "max-batch.json", **NOT_FROM_THE_START)
    assert done.returncode == 0, done.stderr
    record = load_for(STUDY, tmp_path / "max-batch.json")
    assert batch_limit(record.results) == (1, 2)
    assert len(record.results) == 3
