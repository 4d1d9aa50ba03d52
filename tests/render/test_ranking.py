"""The columns of a machine by their best throughput."""

from __future__ import annotations

from made_up import make_cell, make_oom, make_record

from inference_benchmark.records.results import cell_results
from inference_benchmark.render.ranking import ranked


def measured(precision: str, *means_s: float, batch_size: int = 2):
    """A cell in several rounds."""
    cells = [make_cell(precision=precision, batch_size=batch_size, round=n) for n in range(1, len(means_s) + 1)]
    return [make_record(cell, samples_s=[mean_s] * 3) for cell, mean_s in zip(cells, means_s, strict=True)]


def test_the_best_cell_of_each_column_comes_with_how_much_faster_the_first_is():
    records = [
        *measured("fp32", 0.8, 0.8, 0.8, batch_size=1),
        *measured("fp32", 0.8, 0.8, 0.8),
        *measured("bf16", 0.4, 0.4, 0.4),
        *measured("int8", 0.21, 0.2, 0.19),
        make_oom(make_cell(precision="nf4")),
    ]
    heading, *rows, sentence = ranked(cell_results(records), 0.2)
    assert heading.split() == ["tok/s", "msec/token", "of", "a", "row", "memory", "(GB)"]
    assert [row.split()[:7] for row in rows] == [
        ["tiny", "prompt4-new8", "fake", "int8", "batch", "2", "80.07"],
        ["tiny", "prompt4-new8", "fake", "bf16", "batch", "2", "40.00"],
        ["tiny", "prompt4-new8", "fake", "fp32", "batch", "2", "20.00"],
    ]
    assert sentence.startswith("tiny prompt4-new8 fake int8 batch 2 is 2.002 (1.")
    assert ") times as fast as tiny prompt4-new8 fake bf16 batch 2, and 4.0" in sentence
    assert sentence.endswith(") times as fast as tiny prompt4-new8 fake fp32 batch 2.")


def test_what_cannot_be_told_apart_is_said():
    records = [*measured("fp32", 0.4, 0.5, 0.6), *measured("bf16", 0.41, 0.5, 0.58)]
    *_, sentence = ranked(cell_results(records), 0.1)
    assert sentence.endswith(" times as fast as tiny prompt4-new8 fake fp32 batch 2, which may be as fast.")


def test_models_are_not_ranked_among_each_other():
    cells = [
        make_cell(precision=name, model={"name": f"m{n}", "architecture": {}})
        for n in (1, 2)
        for name in ("fp32", "bf16")
    ]
    records = [make_record(cell, samples_s=[0.1 + n] * 3) for n, cell in enumerate(cells)]
    lines = ranked(cell_results(records), 0.2)
    assert [line.split()[0] for line in lines] == ["tok/s", "m1", "m1", "m1", "tok/s", "m2", "m2", "m2"]
    assert all(" times as fast as m" in line for line in (lines[3], lines[7]))


def test_of_many_columns_a_few_are_shown():
    records = [record for n in range(12) for record in measured(f"p{n}", 0.1 + n)]
    *rows, more, sentence = ranked(cell_results(records), 0.1)
    assert (len(rows), more) == (11, "and 2 more")
    assert sentence.endswith("as fast as tiny prompt4-new8 fake p11 batch 2.")
    assert ranked(cell_results([make_oom()]), 0.1) == []
