"""A llama that is split over two real processes, which gloo connects: the tokens of one, and how all end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_up import MODELS, make_cell, measurement
from running import ENGINES, drawn, measure_cli, read_record, run_study

from inference_benchmark.experiment.cells import Cell, Workload
from inference_benchmark.experiment.studies import ColumnStudy, TimelineStudy

SPLIT = {"engine": "hf-tensor", "options": {"engine": "hf", "placement": "tensor", "gpus": 2}}
#: The parent of a worker, which does something to it or its other process when a phase begins.
PARENT = """
import json, os, signal, sys, time
from pathlib import Path
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.supervision import Supervision
from inference_benchmark.machine import cgroups
from inference_benchmark.measure.held_device import hold_device
from inference_benchmark.measure.outcome import MeasurementError
from inference_benchmark.measure.worker_process import WorkerReport

def child(pid):
    (only,) = cgroups.read(Path(f"/proc/{pid}/task/{pid}/children")).split()
    return int(only)

def receive(report, facts, known=WorkerReport.receive):
    known(report, facts)
    if facts.get("phase") == phase:
        worker = child(os.getpid())
        pids.extend([worker, child(worker)])
        for number, whom in does:
            os.kill(pids[whom] if whom is not None else os.getpid(), number)

def is_there(pid):
    return cgroups.read(Path(f"/proc/{pid}/stat")).rpartition(")")[2][1:2] not in ("", "Z")

subject, weights, phase, does = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
WorkerReport.receive, pids, ended = receive, [], None
cell = Cell.from_json(subject)
inputs = {"subject": subject, "checkpoint": weights, "patience_s": 0}
try:
    with hold_device(cell, Supervision()) as device:
        device.run_worker("timed_calls", inputs)
except (MeasurementError, KeyboardInterrupt) as error:
    ended = str(error) or type(error).__name__
while any(map(is_there, pids)):
    time.sleep(0.05)
print(json.dumps([ended, len(pids)]))
"""


def llama(**changes) -> Cell:
    model = {"name": "llama", "architecture": MODELS["llama"], "seed": 0}
    return make_cell(**{"engine": "hf", "model": model, "workload": Workload(9, 12), "batch_size": 3} | changes)


def record_of(cell: Cell, path: Path) -> dict:
    done = measure_cli(cell, path)
    assert done.returncode == 0, done.stderr
    return read_record(path, cell)


def test_two_processes_give_the_tokens_of_one_and_say_what_each_holds(tmp_path):
    whole, split = (record_of(cell, tmp_path / f"{cell.engine}.json") for cell in (llama(), llama(**SPLIT)))
    assert split["outcome"] == "ok", split["reason"]
    assert split["runs"][0]["tokens_sha256"] == whole["runs"][0]["tokens_sha256"]
    facts, wanted = split["model"], whole["model"]
    same = ("class", "parameters", "weights_bytes", "dtypes", "quantised", "block_weights", "attention", "shapes")
    assert {name: facts[name] for name in (*same, "threads")} == {name: wanted[name] for name in (*same, "threads")}
    assert facts["quantised"] is None
    assert facts["activations"] == wanted["activations"] == ["float32"]
    assert facts["options"] == {"placement": "tensor", "gpus": 2}
    assert facts["threads_per_process"] == max(1, facts["threads"] // 2)
    parts = facts["placement"]
    assert parts.keys() == {"cpu:0", "cpu:1"}
    assert len({part["modules"] for part in parts.values()}) == 1, "each has a part of each"
    n_bytes = [part["bytes"] for part in parts.values()]
    # Only norms are held by both.
    assert sum(n_bytes) - facts["weights_bytes"] == 4 * 128 * 9
    assert max(n_bytes) < 0.51 * facts["weights_bytes"]
    memory, of_one = split["runs"][0]["memory"], whole["runs"][0]["memory"]
    assert memory.keys() == of_one.keys()
    assert memory["peak_rss_bytes"] > 1.5 * of_one["peak_rss_bytes"], "of both"
    assert split["runs"][0]["yardstick"].keys() == {"before", "after"}


def test_answers_and_steps_are_compared_as_those_of_one_process(tmp_path):
    drawn(llama().model)
    study = ColumnStudy.of("divergence", llama(**SPLIT, precision="bf16"))
    record = run_study(study, tmp_path / "divergence.json")
    assert record.outcome == "ok", record.reason
    assert 0 < record.results[0]["logits_error"]["mean"] < 0.1, "of bf16"
    steps, *_ = run_study(TimelineStudy(llama(**SPLIT), trace=False), tmp_path / "timeline.json").results
    assert len(steps["step_s"][0]) == 12


def test_a_process_that_runs_out_of_memory_is_named(tmp_path):
    crowded = llama(**SPLIT, batch_size=8192, memory_limit_bytes=100_000_000)
    record = record_of(crowded, tmp_path / "oom.json")
    assert (record["outcome"], record["reason"]["phase"]) == ("oom", "warm-up"), record["reason"]
    assert record["reason"]["evidence"]["process"] in ("1 of 2", "2 of 2")
    assert record["reason"]["limit"] == {"name": "memory_limit", "bytes": 100_000_000}


KILL, STOP, INT = 9, 19, 2
FIRST, OTHER, PARENT_ITSELF = 0, 1, None


@pytest.mark.parametrize(
    ("phase", "does", "ended"),
    [
        ("load", [(KILL, OTHER)], "process 2 of 2 was killed by SIGKILL during load"),
        ("warm-up", [(KILL, OTHER)], "process 2 of 2 was killed by SIGKILL during warm-up"),
        ("measure", [(KILL, OTHER)], "process 2 of 2 was killed by SIGKILL during measure"),
        # As when the time is up. The first waits for the one that is stopped.
        ("measure", [(STOP, OTHER), (KILL, FIRST)], "the worker was killed by SIGKILL during measure"),
        ("measure", [(INT, PARENT_ITSELF)], "KeyboardInterrupt"),
    ],
)
def test_no_process_waits_for_one_that_has_ended_or_outlives_the_worker(phase, does, ended):
    """In calls that would go on for an hour."""
    endless = measurement(min_seconds=3600, max_seconds=3600)
    cell = llama(**SPLIT, measurement=endless, workload=Workload(9, 100))
    command = ["-c", PARENT, cell.to_json(), drawn(cell.model), phase, json.dumps(does)]
    done = ENGINES.run(command)
    assert json.loads(done.stdout) == [ended, 2], done.stderr
