"""Where the time of a call goes, as tables and bars."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from made_up import make_ceilings, make_cell, make_record, sample_page, with_figures

from inference_benchmark.analysis.timeline import Profile, Work, profile_result
from inference_benchmark.experiment.studies import TimelineStudy
from inference_benchmark.records.parts import Note
from inference_benchmark.records.results import cell_results
from inference_benchmark.render import tables
from inference_benchmark.render.one_line import study_text
from inference_benchmark.render.timelines import timeline_bars, timeline_tables

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


def results(*timelines):
    """The results of the cells that timelines are of; each took 0.5 s."""
    records = [make_record(each.study.cell, samples_s=[0.49, 0.5, 0.51]) for each in timelines]
    return cell_results(records, {each.study.path: each for each in timelines})


def test_steps_stand_in_a_table():
    steps, _ = timeline_tables(results(timeline(make_cell())))
    assert steps.cells == [
        ["fp32 batch 2", "200.00", "100.00", "100.00", "100.00", "100.00", "", "+2.0", "0.500 | 0.500", "+10.0%"]
    ]


def test_steps_that_are_not_those_of_the_latency_are_marked():
    slower = dict(STEPS, step_s=[[0.3, 0.1, 0.1, 0.1]] * 3)
    steps, *_ = timeline_tables(results(timeline(make_cell(), slower)))
    assert steps.cells[0][8] == "0.600 ≠ 0.500"


def test_the_parts_of_a_call_stand_beside_its_floor():
    (cell,) = results(timeline(make_cell()))
    limited = replace(with_figures(cell, whole_limit_share=0.25), bound_by={"whole": "memory"})
    _, parts = timeline_tables([limited])
    assert parts.cells == [["fp32 batch 2", "60.0%", "10.0%", "0.0%", "0.0%", "0.0%", "30.0%", "25.0%m", "+20%"]]
    ((bar, _),) = timeline_bars([limited])
    assert [(kind, begins, width) for kind, _, begins, width, _ in bar.parts] == [
        ("products", 0, pytest.approx(60)),
        ("attention", pytest.approx(60), pytest.approx(10)),
        *((kind, pytest.approx(70), 0) for kind in ("quantising", "copies", "other")),
        ("outside", pytest.approx(70), pytest.approx(30)),
    ]
    assert (bar.floor, bar.bound_by) == (25, "memory")


def test_what_is_not_known_is_blank():
    unprofiled = results(timeline(make_cell(), STEPS))
    (steps,) = timeline_tables(unprofiled)
    assert steps.cells[0][7] == ""
    assert timeline_bars(unprofiled) == []
    assert timeline_tables(cell_results([make_record()])) == []
    ((bar, _),) = timeline_bars(results(timeline(make_cell())))
    assert bar.floor is None


def test_a_timeline_with_a_warning_is_marked_and_one_that_ran_out_of_memory_left_out():
    busy = timeline(make_cell(), flags=(Note("cpu-contended", "20 %"),))
    small = timeline(make_cell(batch_size=1))
    steps, parts = timeline_tables(results(busy, small))
    assert [row[0] for row in steps.cells] == [row[0] for row in parts.cells] == ["fp32 batch 1", "fp32 batch 2‡"]
    assert study_text(busy).endswith(" (cpu-contended)")


def test_a_timeline_of_other_software_says_nothing_of_a_cell():
    assert timeline_tables(results(timeline(make_cell(), software={"python": "3.11", "torch": "1.0"}))) == []


def test_the_page_shows_a_bar_for_each_cell():
    cells = [make_cell(batch_size=size) for size in (1, 2)]
    timelines = {each.study.path: each for each in map(timeline, cells)}
    records = [make_record(cell) for cell in cells]
    assert "Where the time goes" in tables.document(cell_results(records, timelines))
    page = sample_page(records, timelines)
    assert len(re.findall(r'<rect class="products"', page)) == 3  # and the legend
    assert 'aria-label="matrix products 60.0%, attention 10.0%' in page
    assert "Where the time goes" not in sample_page([make_record()])
