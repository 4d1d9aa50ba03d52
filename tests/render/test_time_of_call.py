"""Where the time of a call goes, as tables and bars."""

from __future__ import annotations

import re

import pytest
from made_up import make_ceilings, make_cell, make_record, sample_page

from inference_benchmark.analysis.timeline import Profile, Work, profile_result
from inference_benchmark.experiment.studies import TimelineStudy
from inference_benchmark.records import summary
from inference_benchmark.records.parts import Note
from inference_benchmark.render import tables
from inference_benchmark.render.columns import rows_of
from inference_benchmark.render.time_of_call import time_bars, time_tables

STEPS = {
    "kind": "steps",
    "step_s": [[0.2, 0.1, 0.1, 0.1]] * 3,
    "plain_s": [0.5] * 3,
    "observed_s": [0.55] * 3,
}
MEMORY = {"kind": "memory", "bytes": [10**9, 10**9, 10**9, 1_002_000_000]}
PROFILE = profile_result(Profile(0.6, [Work("aten::mm", 0, 0.3), Work("aten::bmm", 0.3, 0.35)]), 4)


def timeline(cell, *results, **changes):
    """The record of a timeline of a cell."""
    return make_ceilings(study=TimelineStudy(cell, False), results=results or (STEPS, MEMORY, PROFILE), **changes)


def table(*timelines, **row_changes):
    """The rows of a summary of the cells that timelines are of; each took 0.5 s."""
    records = [make_record(each.study.cell, samples_s=[0.49, 0.5, 0.51]) for each in timelines]
    found = summary.summarise(records, {each.study.path: each for each in timelines})
    return [row | row_changes for row in rows_of(found)]


def test_steps_stand_in_a_table():
    steps, _ = time_tables(table(timeline(make_cell())))
    assert steps.cells == [
        ["fp32 batch 2", "200.00", "100.00", "100.00", "100.00", "100.00", "", "+2.0", "0.500 | 0.500", "+10.0%"]
    ]


def test_steps_that_are_not_those_of_the_latency_are_marked():
    slower = dict(STEPS, step_s=[[0.3, 0.1, 0.1, 0.1]] * 3)
    steps, *_ = time_tables(table(timeline(make_cell(), slower)))
    assert steps.cells[0][8] == "0.600 ≠ 0.500"


def test_the_parts_of_a_call_stand_beside_its_floor():
    _, parts = time_tables(table(timeline(make_cell()), whole_limit_share=0.25, whole_bound_by="memory"))
    assert parts.cells == [["fp32 batch 2", "60.0%", "10.0%", "0.0%", "0.0%", "0.0%", "30.0%", "25.0%m", "+20%"]]
    ((bar, _),) = time_bars(table(timeline(make_cell()), whole_limit_share=0.25, whole_bound_by="memory"))
    assert [(kind, begins, width) for kind, _, begins, width, _ in bar.parts] == [
        ("products", 0, pytest.approx(60)),
        ("attention", pytest.approx(60), pytest.approx(10)),
        *((kind, pytest.approx(70), 0) for kind in ("quantising", "copies", "other")),
        ("outside", pytest.approx(70), pytest.approx(30)),
    ]
    assert (bar.floor, bar.bound_by) == (25, "memory")


def test_what_is_not_known_is_blank():
    rows = table(timeline(make_cell(), STEPS))
    (steps,) = time_tables(rows)
    assert steps.cells[0][7] == ""
    assert time_bars(rows) == []
    assert time_tables(rows_of(summary.summarise([make_record()]))) == []
    ((bar, _),) = time_bars(table(timeline(make_cell())))
    assert bar.floor is None


def test_a_timeline_with_a_warning_is_marked_and_one_that_ran_out_of_memory_left_out():
    busy = timeline(make_cell(), flags=(Note("cpu-contended", "20 %"),))
    small = timeline(make_cell(batch_size=1))
    steps, parts = time_tables(table(busy, small))
    assert [row[0] for row in steps.cells] == [row[0] for row in parts.cells] == ["fp32 batch 1", "fp32 batch 2‡"]


def test_a_timeline_of_other_software_says_nothing_of_a_cell():
    assert time_tables(table(timeline(make_cell(), software={"python": "3.11", "torch": "1.0"}))) == []


def test_the_page_shows_a_bar_for_each_cell():
    cells = [make_cell(batch_size=size) for size in (1, 2)]
    timelines = {each.study.path: each for each in map(timeline, cells)}
    records = [make_record(cell) for cell in cells]
    assert "Where the time goes" in tables.document(summary.summarise(records, timelines))
    page = sample_page(records, timelines)
    assert len(re.findall(r'<rect class="products"', page)) == 3  # and the legend
    assert 'aria-label="matrix products 60.0%, attention 10.0%' in page
    assert "Where the time goes" not in sample_page([make_record()])
