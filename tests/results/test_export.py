"""Results in the formats of other tools, checked against what those tools publish, and what the docs say to run."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from made_up import SMALL, grid, make_cell, make_oom, make_record, records_of, with_figures, write_records
from running import REPO, SHOWN, script

from inference_benchmark.analysis.figures import BY_NAME, FIGURES, PERFORMANCE
from inference_benchmark.compare import result_set
from inference_benchmark.records.results import cell_result, cell_results, without_record
from inference_benchmark.results import export
from inference_benchmark.results.cell_result import CellResult
from inference_benchmark.results.summary_csv import to_csv, to_long_csv

run = partial(script, "export")
DOCS = (REPO / "docs/export.md").read_text()
MACHINE = REPO / "results" / SHOWN[0]
#: Published at https://bencher.dev/bmf.json; from bencherdev/bencher, Apache-2.0 or MIT.
BMF = json.loads((REPO / "tests/data/bmf.json").read_text())
#: BenchmarkResult in src/extract.ts of benchmark-action/github-action-benchmark, which publishes no schema.
TEXT, NUMBER = {"type": "string", "minLength": 1}, {"type": "number"}
ENTRIES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"name": TEXT, "value": NUMBER, "unit": TEXT, "range": TEXT, "extra": TEXT},
        "required": ["name", "value", "unit"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def cell() -> CellResult:
    """With the three kinds of interval: known, unknown because nobody measured it, and none at all."""
    of = make_cell(workload=grid(**SMALL).workloads[0], batch_size=4)
    return with_figures(
        cell_result(make_record(of)),
        throughput_tok_per_s=(200, 190, 212),
        latency_s=(2.0, 1.9, 2.1),
        decode_tok_per_s=300,
        whole_limit_share=(0.45, 0.4, 0.5),
        decode_limit_share=None,
    )


def test_bencher_gets_every_value_with_exactly_its_interval(cell):
    document = json.loads(export.to_bmf([cell]))
    jsonschema.validate(document, BMF)
    (label, measures), *others = document.items()
    assert (label, others) == ("tiny prompt9-new100 fake fp32 batch 4", [])
    assert measures["throughput_tok_per_s"] == {"value": 200, "lower_value": 190, "upper_value": 212}
    assert measures["decode_tok_per_s"] == {"value": 300}
    assert "decode_limit_share" not in measures
    assert set(measures) == {figure.name for figure in PERFORMANCE if figure.name in cell.figures}
    # The longest names that Bencher takes.
    assert all(len(figure.name) <= 64 for figure in PERFORMANCE)


def test_github_action_benchmark_gets_a_file_for_each_direction(cell):
    files = {name: json.loads(text) for name, text in export.to_github_action_benchmark([cell]).items()}
    for entries in files.values():
        jsonschema.validate(entries, ENTRIES)
    bigger, smaller = (files[f"custom{which}IsBetter.json"] for which in ("Bigger", "Smaller"))
    assert bigger[0] == {
        "name": "tiny prompt9-new100 fake fp32 batch 4: Throughput",
        "unit": "tokens/sec",
        "value": 200,
        "range": "190.00 to 212.00",
        "extra": "box",
    }
    share = next(entry for entry in bigger if entry["unit"] == "% of limit")
    assert (share["value"], share["range"]) == (45, "40.0% to 50.0%")
    assert "range" not in next(entry for entry in bigger if entry["name"].endswith("Decode"))
    assert "Latency" in smaller[0]["name"] or "Time per token" in smaller[0]["name"]
    names = [entry["name"] for entry in (*bigger, *smaller)]
    assert len(names) == len(set(names)) == sum(figure.name in cell.figures for figure in PERFORMANCE)
    # It refuses an empty file.
    assert list(export.to_github_action_benchmark([cell], [BY_NAME["latency_s"]])) == ["customSmallerIsBetter.json"]


def test_llm_d_gets_a_report_that_its_own_models_accept(tmp_path):
    reports = pytest.importorskip("llmd_benchmark_report")
    folder = write_records(tmp_path, records_of(grid(**SMALL), rounds=2))
    done = run(folder, "--format", "llm-d", "--output", tmp_path / "reports")
    assert done.returncode == 0, done.stderr
    paths = sorted((tmp_path / "reports").iterdir())
    found = [reports.import_benchmark_report(str(path)) for path in paths]
    assert len({report.run.uid for report in found}) == len(found) == 14
    path = tmp_path / "reports/benchmark_report_v0.2,_bloom-1b3-prompt9-new100-hf-fp32-batch-8.yaml"
    document, report = yaml.safe_load(path.read_text()), found[paths.index(path)]
    (cell,) = (each for each in result_set.load(folder).cells if each.label == report.run.description)
    aggregate = report.results.request_performance.aggregate
    assert (aggregate.requests.total, aggregate.requests.output_length.mean) == (8 * 10, 100)
    request = aggregate.latency.request_latency
    assert (request.units, request.mean, request.p50) == ("s", cell.value("latency_s"), cell.value("latency_median_s"))
    assert aggregate.latency.time_to_first_token.mean == cell.value("first_token_s")
    assert aggregate.throughput.output_token_rate.mean == cell.value("throughput_tok_per_s")
    load, engine = report.scenario.load.standardized, report.scenario.stack[0].standardized
    assert (load.concurrency, load.input_seq_len.value, load.output_seq_len.value) == (8, 9, 100)
    assert (engine.tool, engine.tool_version, engine.model.name) == ("hf", "torch 2.13.0", "bloom-1b3")
    assert (engine.accelerator.model, engine.accelerator.count) == ("Made-up GPU", 1)
    assert report.run.keywords == list(cell.warnings) == ["interval"]
    # What is written is what was read: nothing in it is unknown to the models, which ignore some keys.
    assert _without_defaults(document, report.dump()) == document


def _without_defaults(document: Any, dumped: Any) -> Any:
    """What a dump has of the keys of a document."""
    if isinstance(document, Mapping):
        return {key: _without_defaults(document[key], dumped[key]) for key in document if key in dumped}
    if isinstance(document, list):
        return [_without_defaults(*pair) for pair in zip(document, dumped, strict=True)]
    if isinstance(document, str) and document.startswith("2026-"):  # a date, which the models write in another way
        return document
    return dumped


def test_the_long_form_has_every_figure_and_every_cell():
    cells = [make_cell(), make_cell(batch_size=4), make_cell(machine="=1+1", batch_size=8)]
    results = cell_results([make_record(cells[0]), make_record(cells[2])])
    results.insert(1, without_record(cells[1], "failed", "killed"))
    rows = list(csv.DictReader(io.StringIO(to_long_csv(results))))
    wide = list(csv.DictReader(io.StringIO(to_csv(results))))
    for row in rows:
        (same,) = (each for each in wide if each["batch_size"] == row["batch_size"])
        figure = BY_NAME.get(row["figure"])
        assert [float(row[key]) for key in ("value", "low", "high") if row[key]] == (
            [float(same[column]) for column in figure.columns if same[column]] if figure else []
        )
        assert row["machine"] == same["machine"]
    assert len(rows) == sum(bool(each[figure.name]) for each in wide for figure in FIGURES) + 1
    assert [(row["batch_size"], row["figure"]) for row in rows if row["outcome"] == "failed"] == [("4", "")]
    only = list(csv.DictReader(io.StringIO(to_long_csv(results, [BY_NAME["latency_s"]]))))
    assert [row["figure"] for row in only] == ["latency_s", "", "latency_s"]


def test_cells_without_a_figure_are_left_out_and_counted(tmp_path):
    done = run(MACHINE, "--format", "bmf", "--figures", "throughput", "latency")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    jsonschema.validate(document, BMF)
    with (MACHINE / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["outcome"] == "ok" and "above-limit" not in row["flags"]]
    assert len(document) == len(measured) < len(rows)
    assert all(list(measures) == ["throughput_tok_per_s", "latency_s"] for measures in document.values())
    n = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in ("oom", "unsupported")}
    for outcome, number in n.items():
        assert f"{number} {outcome}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--format", "llm-d"), 2, "--output: name a folder; llm-d is several files"),
        (("--format", "llm-d", "--output", "x", "--figures", "latency"), 2, "always has the same figures"),
        (("--format", "bmf", "--figures", "energy"), 1, "no cell has --figures energy; leave it out"),
        (("--format", "bmf", "--output", "."), 1, "Is a directory"),
    ],
)
def test_what_cannot_be_written_is_one_line(tmp_path, arguments, status, said):
    done = run(MACHINE, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr.splitlines()[-1]


def test_a_run_without_a_measured_cell_has_nothing_to_export(tmp_path):
    folder = write_records(tmp_path, [make_oom()])
    done = run(folder, "--format", "bmf")
    assert (done.returncode, done.stderr) == (1, f"export.py: {folder}: has no cell to export (1 oom)\n")


def test_what_the_docs_say_to_run_makes_the_files_that_the_next_steps_read(tmp_path):
    blocks = re.findall(r"```yaml\n(.+?)```", DOCS, re.DOTALL)
    commands = re.findall(r"python scripts/export\.py (.+)", DOCS)
    assert len(commands) >= 4
    for command in commands:
        done = run(
            *(str(MACHINE) if word.startswith("results/") else word for word in shlex.split(command, comments=True)),
            cwd=tmp_path,
        )
        assert done.returncode == 0, (command, done.stderr)
    steps = [step for block in blocks for job in yaml.safe_load(block)["jobs"].values() for step in job["steps"]]
    read = [step["with"]["output-file-path"] for step in steps if "output-file-path" in step.get("with", {})]
    read += re.findall(r"--file (\S+)", "\n".join(step.get("run", "") for step in steps))
    assert {Path(path).name for path in read} == {"customBiggerIsBetter.json", "customSmallerIsBetter.json", "bmf.json"}
    assert [path for path in read if not (tmp_path / path).is_file()] == []
    # Bencher would make a measure of a name that is misspelt, and watch nothing.
    watched = re.findall(r"--threshold-measure (\S+)", DOCS)
    assert watched
    assert set(watched) <= {name for of in json.loads((tmp_path / "bmf.json").read_text()).values() for name in of}
