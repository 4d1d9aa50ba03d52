"""Units, formulas, cells, paths and the lines of progress."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from conftest import make_cell
from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.experiment.cells import Cell, CellError, Experiment, difference
from inference_benchmark.records.attempts import Ledger
from inference_benchmark.render import progress
from inference_benchmark.render.readme import BEGIN, END, MarkerError, insert
from inference_benchmark.units import format_bytes, format_duration, parse_bytes


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("80 GB", 80 * 10**9), ("1.5 GiB", 1610612736), ("300MB", 3 * 10**8), (1024, 1024), (None, None), ("1 B", 1)],
)
def test_sizes_are_read(text, n_bytes):
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text", ["", "80", "80 gb", "-1 GB", "0 GB", "1e3 MB", "GB", "0.1 B", 0, -5, True, [], "1 GB\n2"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


def test_sizes_and_durations_for_a_person():
    assert [format_bytes(n) for n in (0, 999, 1000, 5246140416, 3 * 10**15)] == [
        "0 B",
        "999 B",
        "1 kB",
        "5.25 GB",
        "3e+03 TB",
    ]
    assert [format_duration(s) for s in (0.4, 59.4, 59.6, 125, 11520)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "2 min 05 s",
        "3 h 12 min",
    ]


def measured(whole, first, batch_size=4, new_tokens=10) -> dict:
    """What metrics needs of a record."""
    runs = [
        {"samples_s": w, "first_token_s": f, "energy": None, "memory": {}} for w, f in zip(whole, first, strict=True)
    ]
    cell = {"batch_size": batch_size, "workload": {"prompt_tokens": 4, "new_tokens": new_tokens}}
    return {"cell": cell, "runs": runs, "host": {"memory_limit": None, "memory_bytes": 10**9}}


def test_formulas_on_a_case_worked_by_hand():
    # Calls of 4 rows x 10 tokens in 10/3 s on average, of which a first token takes 1/3 s: 3 s for 9 more.
    found = metrics.figures(measured([[2.0, 3.0, 5.0]], [[0.2, 0.3, 0.5]]))
    assert found.latency_s.value == pytest.approx(10 / 3)
    assert found.throughput_tok_per_s.value == pytest.approx(12.0)
    assert metrics.ms_per_token(12.0) == pytest.approx(83.3333, abs=1e-4)
    assert found.first_token_s.value == pytest.approx(1 / 3)
    assert found.time_per_output_token_s.value == pytest.approx(1 / 3)
    assert found.decode_tok_per_s.value == pytest.approx(4 * 9 / 3)
    # t(0.975, 2) = 4.302653; s = sqrt(7/3); 4.302653 x s / sqrt(3) = 3.794583.
    assert found.latency_s.high - found.latency_s.value == pytest.approx(3.794583, abs=1e-6)
    assert found.throughput_tok_per_s.low is None, "the latency's interval reaches below zero"
    assert Estimate(2.0, 1.6, 2.5).per(40) == Estimate(20.0, 16.0, 25.0)
    assert Estimate(20.0, 16.0, 25.0).half_width == pytest.approx(0.225)


def test_of_one_token_there_is_no_decode():
    found = metrics.figures(measured([[2.0, 2.0]], [[]], new_tokens=1))
    assert (found.throughput_tok_per_s.value, found.first_token_s.value) == (2.0, 2.0)
    assert found.decode_tok_per_s is None
    slow_first = metrics.figures(measured([[2.0, 2.0]], [[3.0, 3.0]]))
    assert slow_first.time_per_output_token_s is None


def test_several_processes_count_alike_whatever_their_number_of_calls():
    found = metrics.figures(measured([[1.0] * 9, [2.0] * 3], [[0.5] * 3, [0.5] * 3]))
    assert found.latency_s.value == 1.5
    assert found.time_per_output_token_s.value == pytest.approx(1.0 / 9)


def test_energy_and_memory_on_cases_worked_by_hand():
    record = measured([[1.0, 1.0], [1.0, 1.0]], [[0.5] * 2] * 2)
    assert metrics.energy_per_token_j(record) is None
    for run in record["runs"]:
        run["energy"] = {"joules": 400.0, "resolution_j": 4.0}
        run["memory"] = {"peak_rss_bytes": 250_000_000}
    assert metrics.energy_per_token_j(record) == (5.0, 0.05)  # 800 J for 2 x 2 calls of 40 tokens
    record["runs"][0]["energy"] = None
    assert metrics.energy_per_token_j(record) is None, "half of the energy is not the energy"
    assert metrics.memory_share(record) == 0.25
    record["host"]["memory_limit"] = {"name": "memory.max", "bytes": 500_000_000}
    assert metrics.memory_share(record) == 0.5
    record["runs"][1]["memory"] = {"peak_reserved_bytes": 60, "device_total_bytes": 80}
    assert metrics.memory_share(record) == 0.75


def test_a_cell_survives_json_and_names_its_place():
    cell = make_cell()
    assert Cell.from_json(cell.to_json()) == cell
    assert cell.path == "results/box/tiny/prompt4-new8/fake/fp32/batch-2.json"
    assert "\n" not in cell.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("device"), "exactly the keys"),
        (lambda values: values.update(extra=1), "exactly the keys"),
        (lambda values: values.update(measure_version=0), "measure_version is 0"),
    ],
)
def test_a_text_that_is_no_cell_is_refused(change, message):
    values = json.loads(make_cell().to_json())
    change(values)
    with pytest.raises(CellError, match=message):
        Cell.from_json(json.dumps(values))


def test_an_experiment_spans_its_axes_in_the_order_of_the_configuration():
    cell = make_cell()
    experiment = Experiment(
        machine="box",
        device="cpu",
        models=(cell.model,),
        workloads=(cell.workload,),
        engines=("fake", "hf"),
        precisions=("int8", "fp32"),
        batch_sizes=(8, 1),
        memory_limit_bytes=None,
        measurement=cell.measurement,
    )
    order = [(c.engine, c.precision, c.batch_size) for c in experiment.cells()]
    assert order == [(e, p, b) for e in ("fake", "hf") for p in ("int8", "fp32") for b in (8, 1)]
    assert Experiment.from_json(experiment.to_json()) == experiment


def test_a_difference_is_told_leaf_by_leaf():
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4}
    assert difference(new, old) == "a.c was 2, is now 5; d was 3, is now 'absent'; e was 'absent', is now 4"


def test_readme_block_replaces_only_what_is_between_the_markers():
    readme = f"# Title\n{BEGIN}\nold\n{END}\nafter\n"
    assert insert(readme, "new\n") == f"# Title\n{BEGIN}\nnew\n{END}\nafter\n"
    assert insert(insert(readme, "new"), "new") == insert(readme, "new")


@pytest.mark.parametrize("readme", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_readme_without_one_place_for_the_results_is_refused(readme):
    with pytest.raises(MarkerError):
        insert(readme, "new")


def test_a_line_per_cell_counts_and_estimates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [make_cell(batch_size=1), make_cell(batch_size=2), make_cell(batch_size=4)]
    (tmp_path / cells[0].path).parent.mkdir(parents=True)
    ok = measured([[0.5, 0.5]], [[0.1, 0.1]], 1, 8) | {
        "outcome": "ok",
        "stability": {"reasons": [{"name": "drift"}]},
        "flags": [{"name": "gpu-shared"}],
    }
    oom = {"outcome": "oom", "reason": {"phase": "warm-up"}}
    (tmp_path / cells[0].path).write_text(json.dumps(ok))
    (tmp_path / cells[1].path).write_text(json.dumps(oom))
    lines, now = [], [100.0]
    handler = progress.CellLines({c.path: c for c in cells}, Ledger(), lambda: 0, lines.append, lambda: now[0])

    def tell(kind, **facts):
        record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", None, None)
        record.__dict__ |= {"event": SimpleNamespace(value=kind), **facts}
        handler.emit(record)

    tell("run_info", stats={"measure": 3, "total": 7})
    for jobid, cell in enumerate(cells):
        tell("job_info", jobid=jobid, rule_name="measure", output=[f"{cell.path} (update)"])
    tell("job_info", jobid=9, rule_name="collect", output=[])
    now[0] += 10
    tell("job_finished", job_id=0)
    tell("job_finished", job_id=9)
    now[0] += 10
    tell("job_finished", job_id=1)
    log = tmp_path / "logs/box/tiny/prompt4-new8/fake/fp32/batch-4.log"
    log.parent.mkdir(parents=True)
    log.write_text("measure.py: timeout during measure: no end after 5 s; not tried again\n")
    tell("job_error", jobid=2, aux={}, log=[log], rule_msg=None)
    assert lines == [
        "[1/3] tiny prompt4-new8 fake fp32 batch 1: 16.0 tok/s ± 0.0% (drift, gpu-shared), 2 left, about 20 s\n",
        "[2/3] tiny prompt4-new8 fake fp32 batch 2: oom during warm-up, 1 left, about 10 s\n",
        "[3/3] tiny prompt4-new8 fake fp32 batch 4: failed (timeout), see logs/box/tiny/prompt4-new8/fake/fp32/batch-4.log\n",
        "    measure.py: timeout during measure: no end after 5 s; not tried again\n",
    ]
