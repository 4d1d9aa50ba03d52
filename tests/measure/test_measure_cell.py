"""scripts/measure.py as the rule runs it: outcomes, faults, and what they leave behind."""

from __future__ import annotations

import json
import re

import pytest
from made_up import make_cell, measurement
from running import fault, flag_names, measure_cli, read_record

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.machine import hardware
from inference_benchmark.measure import run as runs
from inference_benchmark.records.parts import Note


def test_answers_that_change_from_call_to_call_are_flagged(tmp_path):
    done = measure_cli(make_cell(), tmp_path / "moody.json", FAKE_ENGINE=json.dumps({"fault": "moody"}))
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "moody.json")
    (flag,) = (flag for flag in record["flags"] if flag["name"] == "nondeterministic")
    assert len(record["runs"][0]["tokens_sha256"]) == 5
    assert flag["message"].startswith("5 different answers to the same prompts")
    done = measure_cli(make_cell(), tmp_path / "steady.json")
    assert len(read_record(tmp_path / "steady.json")["runs"][0]["tokens_sha256"]) == 1
    assert not flag_names(read_record(tmp_path / "steady.json"), ("nondeterministic",))


def test_a_measured_cell_leaves_samples_and_provenance(tmp_path):
    cell = make_cell()
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    (run,) = record["runs"]
    # The fake engine's clock: 0.002 s x 8 tokens x (1 + 2/64).
    assert run["samples_s"] == pytest.approx([0.0165] * 3, abs=1e-12)
    assert run["first_token_s"] == pytest.approx([0.0165 / 8] * 3, abs=1e-12)
    assert run["warmup_s"] == pytest.approx([0.0165] * 2)
    assert record["stability"] == {"stable": True, "reasons": [], "outliers": None, "drift": None}
    assert run["conditions"]["n_samples"] >= 2
    assert run["conditions"]["usable_cpus"] == record["host"]["usable_cpus"]
    assert record["environment"]["OMP_NUM_THREADS"] == str(hardware.default_threads())
    # Snakemake sets these to 1, which must not tell its cells from those measured by hand.
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
    assert measure_cli(cell, tmp_path / "again.json", **counts).returncode == 0
    assert read_record(tmp_path / "again.json")["environment"] == record["environment"]
    assert record["software"]["torch"] is not None
    assert record["started_at"] <= record["ended_at"]
    assert record["host"]["memory_bytes"] > 0


def test_the_yardstick_is_timed_before_and_after(tmp_path):
    cell, passes = make_cell(), {"moved_bytes": 10**8, "flop": 10**9}
    assert measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=fault(machine_slow=[1, 2], slow=3)).returncode == 0
    (run,) = read_record(tmp_path / "r.json", cell)["runs"]
    assert run["samples_s"] == pytest.approx([3 * 0.0165] * 3)
    assert run["yardstick"] == {
        "before": {"memory_s": [0.01] * 2, "arithmetic_s": [0.01] * 2, **passes},
        "after": {"memory_s": [0.02] * 2, "arithmetic_s": [0.02] * 2, **passes},
    }
    # A cell that runs out of memory ends before the second.
    assert measure_cli(cell, tmp_path / "oom.json", FAKE_ENGINE=fault(fault="oom")).returncode == 0
    assert list(read_record(tmp_path / "oom.json")["runs"][0]["yardstick"]) == ["before"]


def test_warm_up_ends_when_two_calls_agree_or_their_number_is_spent(tmp_path):
    drifting = fault(drift=-0.1)
    cell = make_cell(measurement=measurement(warmup_tolerance_percent=20))
    assert measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=drifting).returncode == 0
    assert len(read_record(tmp_path / "r.json")["runs"][0]["warmup_s"]) == 2
    cell = make_cell(measurement=measurement(warmup_tolerance_percent=5, max_warmup_calls=4))
    assert measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=drifting).returncode == 0
    record = read_record(tmp_path / "r.json")
    assert len(record["runs"][0]["warmup_s"]) == 4
    assert "warm-up" in [reason["name"] for reason in record["stability"]["reasons"]]
    assert "compiled_calls" not in record["runs"][0]


def test_no_call_is_compared_with_one_that_compiled(tmp_path):
    """Each call takes half as long as the one before."""
    compiling = fault(drift=-0.5, one_time={"graphs": [1]})
    cell = make_cell(measurement=measurement(warmup_tolerance_percent=5))
    assert measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=compiling).returncode == 0
    record = read_record(tmp_path / "r.json")
    assert (len(record["runs"][0]["warmup_s"]), record["runs"][0]["compiled_calls"]) == (2, 1)
    assert "warm-up" not in [reason["name"] for reason in record["stability"]["reasons"]]


@pytest.mark.parametrize(
    ("one_time", "warmup_calls", "messages"),
    [
        # Calls: warm-up from 1 on, then 3 timed ones, an untimed and 3 timed ones of one token.
        ({"graphs": [1]}, 2, {}),
        ({"graphs": [1, 2], "cuda_graphs_recorded": [1, 2, 3], "cuda_graphs_skipped": []}, 4, {}),
        ({"graphs": [1, 6]}, 2, {}),
        ({"graphs": [1, 4, 5, 7]}, 2, {"compiled-while-timed": "in timed calls: 3 graphs compiled"}),
        (
            {"graphs": [1], "cuda_graphs_recorded": [1, 3], "cuda_graphs_skipped": [4]},
            2,
            {"compiled-while-timed": "in timed calls: 1 CUDA graphs recorded, 1 CUDA graphs given up"},
        ),
        (
            {"graphs": [1], "cuda_graphs_recorded": [], "cuda_graphs_skipped": [2]},
            3,
            {"without-cuda-graphs": "0 CUDA graphs recorded, 1 given up: the launches of kernels are in the figures"},
        ),
        (
            {"graphs": list(range(1, 6)), "cuda_graphs_recorded": [], "cuda_graphs_skipped": []},
            5,
            {"without-cuda-graphs": "0 CUDA graphs recorded, 0 given up: the launches of kernels are in the figures"},
        ),
    ],
)
def test_warm_up_ends_after_a_call_without_one_time_work_and_timed_calls_with_it_are_flagged(
    tmp_path, one_time, warmup_calls, messages
):
    process = measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(one_time=one_time))
    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "r.json")
    assert len(record["runs"][0]["warmup_s"]) == warmup_calls
    found = {flag["name"]: flag["message"] for flag in record["flags"] if flag["name"] in FLAGS_OF_COMPILATION}
    assert found == messages
    assert set(record["model"]) >= {f"{name}_while_timed" for name in one_time}


FLAGS_OF_COMPILATION = ("compiled-while-timed", "without-cuda-graphs", "not-compiled")


@pytest.mark.parametrize(
    ("engine", "graphs", "flagged"), [("hf-static", 0, True), ("hf-static", 1, False), ("hf", 0, False)]
)
def test_a_call_without_a_step_to_compile_is_flagged(engine, graphs, flagged):
    cell = make_cell(engine=engine, workload=Workload(4, 1))
    notes = list(runs._compilation_flags({"compilation": {"graphs": graphs, "seconds": 0.0}}, cell))
    message = "hf-static compiled nothing: a call of one token has no step"
    assert notes == [Note("not-compiled", message)] * flagged


def test_calls_are_repeated_until_they_are_enough(tmp_path):
    """Of exact calls of 0.0165 s, min_seconds decides; of scattered ones, max_seconds."""
    cell = make_cell(measurement=measurement(min_seconds=0.1, max_seconds=1))
    assert measure_cli(cell, tmp_path / "r.json").returncode == 0
    run = read_record(tmp_path / "r.json")["runs"][0]
    assert (len(run["samples_s"]), len(run["first_token_s"])) == (7, 49)
    scattered = fault(scatter=[0, 0.3])
    assert measure_cli(cell, tmp_path / "r.json", FAKE_ENGINE=scattered).returncode == 0
    run = read_record(tmp_path / "r.json")["runs"][0]
    assert 1.0 <= sum(run["samples_s"]) < 1.1
    assert len(run["samples_s"]) > 40


def test_one_new_token_is_prefill_alone(tmp_path):
    cell = make_cell(workload=Workload(4, 1))
    assert measure_cli(cell, tmp_path / "r.json").returncode == 0
    assert read_record(tmp_path / "r.json")["runs"][0]["first_token_s"] == []


def test_logits_that_are_no_numbers_are_flagged(tmp_path):
    assert measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(fault="nan-logits")).returncode == 0
    flags = {flag["name"]: flag["message"] for flag in read_record(tmp_path / "r.json")["flags"]}
    assert "in 1 of 2 rows" in flags["non-finite-logits"]


@pytest.mark.parametrize(
    ("behaviour", "phase", "samples"),
    [
        ({"at_load": True}, "load", (0, 0, 0)),
        ({}, "warm-up", (0, 0, 0)),
        ({"after": 4}, "measure", (2, 2, 0)),
        ({"after": 7}, "first-token", (2, 3, 1)),
    ],
    ids=["load", "warm-up", "measure", "first-token"],
)
def test_out_of_memory_is_a_result_wherever_it_comes(tmp_path, behaviour, phase, samples):
    done = measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(fault="oom", **behaviour))
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json")
    assert (record["outcome"], record["reason"]["phase"], record["stability"]) == ("oom", phase, None)
    (run,) = record["runs"]
    assert tuple(len(run[name]) for name in ("warmup_s", "samples_s", "first_token_s")) == samples


def test_out_of_memory_and_unsupported_are_results(tmp_path):
    cell = make_cell(batch_size=512, memory_limit_bytes=300_000_000)
    assert measure_cli(cell, tmp_path / "oom.json").returncode == 0
    oom = read_record(tmp_path / "oom.json")
    assert oom["outcome"] == "oom"
    assert oom["reason"]["phase"] == "warm-up"
    assert oom["reason"]["exception_type"].endswith("FakeMemoryError")
    assert oom["reason"]["limit"] == {"name": "memory_limit", "bytes": 300_000_000}
    assert measure_cli(make_cell(precision="fp16"), tmp_path / "u.json").returncode == 0
    unsupported = read_record(tmp_path / "u.json")
    assert (unsupported["outcome"], unsupported["reason"]["message"]) == ("unsupported", "fake has no fp16")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"fault": "error"}, "ValueError during warm-up: made-up error"),
        ({"fault": "error", "after": 3}, "ValueError during measure: made-up error"),
        ({"fault": "short"}, r"WrongOutputError during warm-up: asked for \(2, 8\) \(rows, new tokens\), got \(2, 7\)"),
        ({"fault": "padded", "after": 2}, "WrongOutputError during measure: 1 of 2 rows ended before 8 new tokens"),
        ({"fault": "nan-clock", "after": 3}, "the clock advanced by nan s"),
        ({"fault": "back-clock", "after": 3}, "WrongOutputError during measure: the clock advanced by -1.0 s"),
        ({"fault": "kill", "after": 2}, "the worker was killed by SIGKILL during measure"),
        ({"fault": "kill", "at_load": True}, "the worker was killed by SIGKILL during load"),
    ],
)
def test_any_other_ending_fails_and_leaves_no_record(tmp_path, behaviour, message):
    done = measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(**behaviour))
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_earlier_record_as_it_was(tmp_path):
    assert measure_cli(make_cell(), tmp_path / "r.json").returncode == 0
    before = (tmp_path / "r.json").read_bytes()
    assert measure_cli(make_cell(), tmp_path / "r.json", FAKE_ENGINE=fault(fault="error")).returncode == 1
    assert (tmp_path / "r.json").read_bytes() == before


def test_prompts_that_do_not_fit_on_the_host_are_out_of_memory_in_their_own_phase(tmp_path):
    cell = make_cell(batch_size=10**15)
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert (record["outcome"], record["reason"]["phase"]) == ("oom", "prompts")
    assert "Unable to allocate" in record["reason"]["message"]
