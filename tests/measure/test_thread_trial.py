"""A cell with fewer threads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up import make_cell, make_oom, make_record, measurement
from running import ENGINES, PROGRAMS, REPO

from inference_benchmark.machine import hardware
from inference_benchmark.measure.thread_trial import ROUNDS, thread_counts
from inference_benchmark.records import threads
from inference_benchmark.render.one_line import threads_text


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12])]
)
def test_numbers_of_threads_are_powers_of_two_and_the_most(most, counts):
    assert thread_counts(most) == counts


def test_a_real_cell_is_tried_with_each_number_of_threads(tmp_path):
    output = tmp_path / "threads.json"
    command = [REPO / "scripts/threads.py", "--subject", make_cell(engine="hf").to_json(), "--output", output]
    done = ENGINES.run(command)
    assert done.returncode == 0, done.stderr
    records = threads.load(output)
    counts = thread_counts(hardware.default_threads())
    assert [(record.cell.round, record.model["threads"]) for record in records] == [
        (number, n) for number in range(1, ROUNDS + 1) for n in counts
    ]
    assert list(threads.throughputs(records)) == counts
    assert done.stdout.startswith("tiny prompt4-new8 hf fp32 batch 2, by threads: 1: ")


def test_a_cell_that_cannot_be_measured_is_one_line(tmp_path):
    cell = make_cell(engine="hf", precision="fp1")
    done = PROGRAMS.run([REPO / "scripts/threads.py", "--subject", cell.to_json(), "--output", tmp_path / "t.json"])
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "there is no precision 'fp1'" in done.stderr
    assert not (tmp_path / "t.json").exists()


def tried(n: int, *latencies_s: float):
    cell = make_cell(measurement=measurement(threads=n))
    return [
        make_record(replace(cell, round=number), samples_s=[seconds] * 3)
        for number, seconds in enumerate(latencies_s, start=1)
    ]


def test_the_text_names_a_number_of_threads_only_where_it_is_certain():
    """16 tokens a call: 16 tok/s and about 1.3 tok/s."""
    quick, slow = tried(1, 1.0, 1.01, 0.99), tried(2, 12.0, 12.5, 11.5)
    text = threads_text([*quick, *slow])
    assert text == (
        "tiny prompt4-new8 fake fp32 batch 2, by threads: 1: 16.0 tok/s ± 2.5%; 2: 1.3 tok/s ± 10.4%. "
        "measurement.threads: 1 would be 12.0 times as fast here, and measure all cells again."
    )
    assert "would be" not in threads_text([*quick, *tried(2, 1.0, 1.02, 0.97)])
    assert "would be" not in threads_text([*tried(1, 12.0, 12.5, 11.5), *tried(2, 1.0, 1.01, 0.99)]), (
        "it is the default"
    )
    assert threads_text([make_oom()]).endswith("by threads: oom during load.")
