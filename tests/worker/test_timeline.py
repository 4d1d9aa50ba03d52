"""Timelines of real engines."""

from __future__ import annotations

import gzip
import json
from operator import truediv

import pytest
from made_up import MODELS, make_cell, measurement
from running import run_study

from inference_benchmark.analysis.timeline import Profile, Timeline
from inference_benchmark.engines.fake import FakeEngine
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import TimelineStudy
from inference_benchmark.measure import run
from inference_benchmark.measure.worker_process import WorkerReport
from inference_benchmark.worker import timeline as worker
from inference_benchmark.worker.engine_session import EngineSession

#: Every layer takes a while to compile.
MODEL = {"name": "small", "architecture": {**MODELS["bloom"], "n_layer": 1}, "seed": 0}
LLAMA = {"name": "small", "architecture": MODELS["llama"], "seed": 0}


@pytest.mark.parametrize(
    ("engine", "precision", "kinds"),
    [
        ("hf", "fp32", {"products", "attention", "copies", "other", "outside"}),
        ("hf", "int8", {"products", "attention", "quantising", "copies", "other", "outside"}),
        ("hf-static", "fp32", {"products", "attention", "copies", "other"}),
        ("hf-continuous", "fp32", None),
        ("ctranslate2", "fp32", None),
    ],
)
def test_steps_and_kinds_of_work_add_up(tmp_path, engine, precision, kinds):
    model = LLAMA if engine == "hf-continuous" else MODEL
    cell = make_cell(engine=engine, precision=precision, model=model, workload=Workload(9, 12), batch_size=3)
    record = run_study(TimelineStudy(cell, trace=False), tmp_path / "timeline-batch-3.json")
    timeline = Timeline.of(record.results)
    steps = record.results[0]
    assert len(steps["plain_s"]) == len(steps["observed_s"]) == len(steps["step_s"]) == 3
    for call_s, of_steps in zip(steps["observed_s"], steps["step_s"], strict=True):
        assert len(of_steps) == 12
        assert min(of_steps) > 0
        assert sum(of_steps) <= call_s
    # A call may have to wait for a CPU after its last step.
    assert max(map(truediv, map(sum, steps["step_s"]), steps["observed_s"])) > 0.5
    assert len(timeline.memory_bytes) == 12
    assert min(timeline.memory_bytes) > 10**7
    assert record.conditions
    if kinds is None:
        assert timeline.shares is None
        return
    assert sum(timeline.shares.values()) == pytest.approx(1)
    assert {kind for kind, share in timeline.shares.items() if share > 0} >= kinds - {"outside"}
    assert timeline.shares["quantising"] == 0 or precision == "int8"
    profile = timeline.profile
    assert profile["new_tokens"] == 12
    assert sum(profile["kinds_s"].values()) < profile["call_s"]
    products = next(each for each in profile["longest"] if each["kind"] == "products")
    assert products["count"] >= 12


def test_a_trace_is_kept_beside_the_record_and_nothing_else(tmp_path):
    cell = make_cell(engine="hf", model=MODEL, workload=Workload(9, 2))
    run_study(TimelineStudy(cell, trace=True), tmp_path / "timeline-batch-2.json")
    assert {path.name for path in tmp_path.iterdir()} == {
        "timeline-batch-2.json",
        "timeline-batch-2.trace.json.gz",
    }
    with gzip.open(tmp_path / "timeline-batch-2.trace.json.gz") as trace:
        names = {event.get("name") for event in json.load(trace)["traceEvents"]}
    assert {"generate", "aten::addmm"} <= names


def test_a_timeline_under_a_limit_on_memory_is_out_of_memory_as_its_cell_is(tmp_path):
    cell = make_cell(engine="hf", model=MODEL, workload=Workload(9, 4), batch_size=4096, memory_limit_bytes=60_000_000)
    record = run_study(TimelineStudy(cell, trace=False), tmp_path / "timeline-batch-4096.json")
    assert (record.outcome, record.reason.phase) == ("oom", "warm-up")
    assert record.reason.limit == {"name": "memory_limit", "bytes": 60_000_000}


def test_made_up_steps_are_exact(tmp_path):
    record = run_study(TimelineStudy(make_cell(), trace=False), tmp_path / "timeline-batch-2.json")
    timeline = Timeline.of(record.results)
    assert timeline.step_s == pytest.approx([0.002 * (1 + 2 / 64)] * 8)
    assert timeline.growth == pytest.approx(0)
    assert timeline.observing_cost == pytest.approx(0)
    assert timeline.memory_growth_bytes == 7 * 2 * 50_000
    assert timeline.profile is None


def test_a_profile_without_kernels_is_none_and_the_record_says_why(monkeypatch):
    """Else all of the time would be outside kernels."""
    monkeypatch.setattr(FakeEngine, "profile", lambda *_: Profile(1.0, []))
    report = WorkerReport()
    session = EngineSession(lambda **facts: report.receive(facts), ())
    worker.run(session, TimelineStudy(make_cell(), trace=False).to_json(), None, None)
    assert [part["kind"] for part in report.results] == ["steps", "memory"]
    assert [(note.name, note.message) for note in run._errors(report)] == [
        ("profile-unknown", "torch's profiler recorded no kernel: CUPTI is missing, or another profiler has it")
    ]


def test_as_many_calls_as_a_round_of_the_cell_has(tmp_path):
    cell = make_cell(measurement=measurement(min_cycles=7))
    record = run_study(TimelineStudy(cell, trace=False), tmp_path / "timeline-batch-2.json")
    assert len(record.results[0]["step_s"]) == 7
