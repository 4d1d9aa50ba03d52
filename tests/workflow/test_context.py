"""What fits over the length of prompts: with a real limit against brute force, and in a preview."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path

from made_up import make_cell, measurement
from running import Workspace, fake_grid, measure_cli, run_study

from inference_benchmark.experiment.cells import Cell, Workload
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.records import record_file
from inference_benchmark.records.record import Record
from inference_benchmark.records.results import cell_results, without_record
from inference_benchmark.render.fits import fit_maps

#: Its memory is that of the attention scores: heads x prompt tokens squared, a few times over.
MANY_HEADS = {
    "name": "many-heads", "seed": 0,
    "architecture": {"model_type": "bloom", "hidden_size": 64, "n_head": 8, "n_layer": 1, "vocab_size": 1000},
}  # fmt: skip


def measured_alone(folder: Path, like: Cell, lengths: Iterable[int], sizes: Iterable[int]) -> list[Record]:
    """Every cell measured, none of which knows of another or of a search."""
    records = []
    for length, size in product(lengths, sizes):
        cell = replace(like, workload=Workload(length, 2), batch_size=size)
        path = folder / f"{length}-{size}.json"
        done = measure_cli(cell, path)
        assert done.returncode == 0, done.stderr
        records.append(record_file.load_for(cell, path))
    return records


def test_the_map_of_a_real_limit_is_what_every_cell_shows_by_itself(tmp_path):
    # At 150 MB 16 rows of 256 tokens fit, and 4 of 512.
    limited = {"memory_limit_bytes": 150_000_000, "measurement": measurement(max_warmup_calls=2)}
    records = measured_alone(tmp_path, make_cell(engine="hf", model=MANY_HEADS, **limited), (256, 512), (1, 8, 32))
    assert [each.outcome for each in records] == ["ok", "ok", "oom", "ok", "oom", "oom"]
    (found,) = fit_maps(cell_results(records))
    assert found.prompt_tokens == [256, 512]
    assert [(size, [fit.text for fit in row]) for size, row in found.fits] == [
        (1, ["✓ fits", "✓ fits"]),
        (8, ["✓ fits", "× oom"]),
        (32, ["× oom", "× oom"]),
    ]
    assert found.largest == ["8", "1"]


def test_the_map_by_searches_alone_is_that_of_brute_force(tmp_path):
    """The batch sizes to both sides of each limit: 333 rows of 4 + 2 tokens, and 47 of 40 + 2."""
    like, lengths = make_cell(memory_limit_bytes=300_000_000), (4, 40)
    records = measured_alone(tmp_path, like, lengths, (1, 47, 48, 333, 334))
    (brute_force,) = fit_maps(cell_results(records))
    assert brute_force.largest == ["333", "47"]
    studies = {}
    for length in lengths:
        study = ColumnStudy.of("max-batch", replace(like, workload=Workload(length, 2)))
        studies[study.path] = run_study(study, tmp_path / study.path)
    # As in a preview where only the smallest cells have a record yet.
    smallest = [each for each in records if each.cell.batch_size == 1]
    missing = [without_record(each.cell, "missing", "") for each in records if each.cell.batch_size > 1]
    (searched,) = fit_maps(cell_results(smallest, studies) + missing)
    assert [[fit.searched for fit in row] for _, row in searched.fits] == [[False] * 2, *[[True] * 2] * 4]
    assert [[fit.state for fit in row] for _, row in searched.fits] == [
        [fit.state for fit in row] for _, row in brute_force.fits
    ]
    assert searched.largest == ["333 (searched)", "47 (searched)"]


def test_a_preview_shows_which_cells_of_the_map_nobody_tried(tmp_path):
    workloads = [{"prompt_tokens": length, "new_tokens": 8} for length in (4, 40)]
    run = Workspace.make(tmp_path, fake_grid(workloads=workloads, precisions=["fp32"], batch_sizes=[1, 64, 512]))
    run.run("results/box/summary.csv")
    run.record_path("fp32", 64).unlink()
    run.run("preview")
    page = (run.folder / "results/box/preview/report.html").read_text()
    rows = re.search(r'<table class="map">.*?</table>', page, re.DOTALL)[0]
    cells = re.findall(r'<td class="(\w+)">([^<]+)</td>', rows)
    assert cells == [
        ("fits", "✓ fits"), ("fits", "✓ fits"),
        ("untried", "? untried"), ("oom", "× oom"),
        ("oom", "× oom"), ("oom", "× oom"),
    ]  # fmt: skip
    tables = (run.folder / "results/box/preview/tables.md").read_text()
    assert "### tiny on box over the prompt length" in tables
