"""The search for the largest batch, with made-up and with real limits."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_up import MODELS, make_cell, measurement
from running import fake_gpus, measure_cli, read_record, run_study

from inference_benchmark.analysis.max_batch import batch_limit
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.records.record_file import load_for

#: Logits of a megabyte per row, several times over: where memory ends does not depend on kilobytes.
WIDE = {
    "name": "wide", "seed": 0,
    "architecture": {"model_type": "bloom", "hidden_size": 64, "n_head": 2, "n_layer": 1, "vocab_size": 250_000},
}  # fmt: skip


def test_the_limit_of_a_made_up_memory_is_found_with_its_evidence(tmp_path):
    # 200 MB of weights and 600 kB a row under 300 MB.
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
    record = run_study(study, tmp_path / "max-batch.json")
    assert batch_limit(record.results) == (166, 167)
    assert record.limit == {"name": "memory_limit", "bytes": 300_000_000}
    failed = next(t for t in record.results if t["batch_size"] == 167)
    assert failed["message"] == "300200000 bytes wanted, 300000000 allowed"
    assert failed["exception_type"].endswith("FakeMemoryError")
    assert all(t["memory"] for t in record.results)


def test_a_gpu_is_searched_in_one_process_and_held_meanwhile(tmp_path):
    """The fake engine loads once, so its count of calls goes on: each try makes two; from the 5th on nothing fits."""
    study = ColumnStudy.of("max-batch", make_cell(device="cuda", memory_limit_bytes=300_000_000))
    environ = fake_gpus(tmp_path) | {"FAKE_ENGINE": json.dumps({"fault": "oom", "after": 4})}
    record = run_study(study, tmp_path / "max-batch.json", **environ)
    assert [(t["batch_size"], t["fits"]) for t in record.results] == [
        (1, True), (2, True), (4, False), (3, False), (2, False), (1, False),
    ]  # fmt: skip
    assert batch_limit(record.results) == (0, 1)
    assert record.device["kind"] == "cuda"


def test_after_a_try_that_may_have_failed_in_a_recording_the_search_goes_on_in_a_new_worker(tmp_path):
    """As in the test before, but that the count of calls begins anew."""
    study = ColumnStudy.of("max-batch", make_cell(device="cuda", memory_limit_bytes=300_000_000))
    recording = {"fault": "oom", "after": 4, "one_time": {"cuda_graphs_recorded": []}}
    record = run_study(study, tmp_path / "x.json", **fake_gpus(tmp_path), FAKE_ENGINE=json.dumps(recording))
    assert [(t["batch_size"], t["fits"]) for t in record.results] == [
        (1, True),
        (2, True),
        (4, False),
        (3, True),
        (3, True),
    ]


def test_a_model_that_does_not_fit_at_all_fits_no_batch(tmp_path):
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=100_000_000))
    record = run_study(study, tmp_path / "max-batch.json")
    assert (record.outcome, batch_limit(record.results)) == ("ok", (0, 1))
    assert record.results[0]["message"].startswith("during load: ")


def test_a_try_that_the_kernel_kills_counts_and_the_search_goes_on(tmp_path, memory_cgroup):
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
    environ = {"FAKE_ENGINE": json.dumps({"fault": "hog", "on_batch": 4})}
    done = measure_cli(study, tmp_path / "x.json", cgroup=memory_cgroup, **environ)
    assert done.returncode == 0, done.stderr
    record = load_for(study, tmp_path / "x.json")
    assert [(t["batch_size"], t["fits"]) for t in record.results] == [
        (1, True), (2, True), (4, False), (3, True), (3, True),
    ]  # fmt: skip
    assert record.results[2]["exception_type"] == "SIGKILL"
    assert record.results[2]["message"] == "during search: killed by the kernel's out-of-memory killer"


def test_a_library_that_fails_without_memory_counts_and_the_search_goes_on_in_a_new_worker(tmp_path):
    study = ColumnStudy.of("max-batch", make_cell(device="cuda", memory_limit_bytes=300_000_000))
    behaviour = {"FAKE_ENGINE": json.dumps({"fault": "cublas", "on_batch": 4})}
    full = fake_gpus(tmp_path, memory_used_bytes=80 * 10**9 - 10**8)
    record = run_study(study, tmp_path / "x.json", **full, **behaviour)
    assert [(t["batch_size"], t["fits"]) for t in record.results[:4]] == [(1, True), (2, True), (4, False), (3, True)]
    assert record.results[2]["evidence"] == {"device_free_bytes": 10**8}
    assert "CUBLAS_STATUS_NOT_INITIALIZED" in record.results[2]["message"]
    done = measure_cli(study, tmp_path / "y.json", **fake_gpus(tmp_path), **behaviour)
    assert (done.returncode, "CUBLAS_STATUS_NOT_INITIALIZED" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("fault", "exception_type", "message"),
    [
        ("abort", "SIGABRT", "std::bad_alloc"),
        ("no-thread", "exit status 1", "libgomp: Thread creation failed"),
        ("bitsandbytes", "exit status 1", "Error out of memory at line 82"),
        ("compile", "inference_benchmark.engines.fake.FakeMemoryError", "made-up memory is full"),
    ],
)
def test_a_try_that_a_library_ends_for_memory_counts_too(tmp_path, fault, exception_type, message):
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
    record = run_study(study, tmp_path / "x.json", FAKE_ENGINE=json.dumps({"fault": fault, "on_batch": 4}))
    assert [(t["batch_size"], t["fits"]) for t in record.results[:4]] == [(1, True), (2, True), (4, False), (3, True)]
    assert record.results[2]["exception_type"] == exception_type
    assert message in record.results[2]["message"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("error", "ValueError: made-up error"),
        ("kill", "killed by SIGKILL"),
        ("short", "WrongOutputError"),
        ("abort-silently", "killed by SIGABRT"),
    ],
)
def test_a_search_that_fails_for_another_reason_leaves_no_file(tmp_path, fault, message):
    study = ColumnStudy.of("max-batch", make_cell(memory_limit_bytes=300_000_000))
    done = measure_cli(study, tmp_path / "x.json", FAKE_ENGINE=json.dumps({"fault": fault, "on_batch": 4}))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "x.json").exists()


def test_the_largest_batch_of_a_real_limit_is_that_of_brute_force(tmp_path):
    """The largest batch that fits and the smallest that does not, as cells of their own, agree with the search."""
    # Between what 20 rows need and what 21 do: at 150 MB 20 fitted in three processes of four, at 152 MB 21 in two of
    # three, and the answer would be chance.
    cell = make_cell(
        engine="hf", model=WIDE, memory_limit_bytes=151_000_000, measurement=measurement(max_warmup_calls=2)
    )
    search = run_study(ColumnStudy.of("max-batch", cell), tmp_path / "max-batch.json")
    fits, fails = batch_limit(search.results)
    assert fits >= 8, "a limit to be found by halving"
    outcomes = {}
    for batch_size in (fits, fails):
        path = tmp_path / f"{batch_size}.json"
        done = measure_cli(replace(cell, batch_size=batch_size), path)
        assert done.returncode == 0, done.stderr
        outcomes[batch_size] = read_record(path)["outcome"]
    assert outcomes == {fits: "ok", fails: "oom"}


#: The same for an engine that has no bloom.
WIDE_LLAMA = {
    "name": "wide", "seed": 0,
    "architecture": {**MODELS["llama"], "hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 250_000},
}  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "model"),
    [
        ("ctranslate2", WIDE),  # keeps its own memory
        ("hf-continuous", WIDE_LLAMA),  # runs out of it in a thread
    ],
)
def test_other_engines_are_searched_too(tmp_path, engine, model):
    cell = make_cell(engine=engine, model=model, memory_limit_bytes=200_000_000, workload=Workload(4, 2))
    record = run_study(ColumnStudy.of("max-batch", cell, tolerance_percent=10), tmp_path / "max-batch.json")
    fits, fails = batch_limit(record.results)
    assert record.outcome == "ok"
    assert 8 <= fits < fails <= 1.1 * fits + 1
