"""Real Snakemake on small grids: what is planned, measured, kept and refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_engine_hf import MODELS

from conftest import DERIVED, FAKE_GRID, REPO, TINY_BLOOM, Workspace

NOTHING: dict[str, int] = {}


def measure_jobs(plan: dict[str, int]) -> int:
    return plan.get("measure", 0)


def test_a_run_leaves_every_record_tables_and_report_and_prints_a_line_per_cell(workspace):
    done = workspace.run()
    results = workspace.folder / "results/box"
    assert len(list(results.rglob("batch-*.json"))) == 6
    assert {"summary.csv", "provenance.json", "tables.md", "report.html"} <= {p.name for p in results.iterdir()}
    lines = [line for line in done.stderr.splitlines() if line.startswith("[")]
    order = [line.split("fake ")[1].split(":")[0] for line in lines]
    assert order == [f"{precision} batch {n}" for precision in ("fp32", "bf16") for n in (1, 2, 512)]
    assert lines[0].startswith("[1/6] tiny prompt4-new8 fake fp32 batch 1: ")
    assert "5 left, about" in lines[0]
    assert lines[2].split(": ")[1].startswith("oom during warm-up")
    assert workspace.plan() == NOTHING


def test_deleted_records_are_measured_again_and_no_others(measured):
    kept = measured.record_path("bf16", 1).read_bytes()
    measured.record_path("fp32", 1).unlink()
    measured.record_path("bf16", 2).unlink()
    plan = measured.plan()
    assert plan == {"measure": 2, "collect": 1, **DERIVED, "all": 1, "total": 8}
    measured.run()
    assert measured.record_path("bf16", 1).read_bytes() == kept
    assert measured.plan() == NOTHING


def test_a_new_batch_size_or_precision_plans_only_the_new_cells(measured):
    measured.grid["batch_sizes"] = [1, 2, 4, 512]
    measured.save()
    assert measure_jobs(measured.plan()) == 2
    measured.grid["precisions"] = ["fp32", "bf16", "int8"]
    measured.save()
    assert measure_jobs(measured.plan()) == 6


def test_other_token_counts_are_measured_in_a_new_place(measured):
    measured.grid["workloads"] = [{"prompt_tokens": 4, "new_tokens": 16}]
    measured.save()
    before = measured.record_path("fp32", 1).read_bytes()
    measured.run()
    assert measured.record("fp32", 1, workload="prompt4-new16")["cell"]["workload"]["new_tokens"] == 16
    assert measured.record_path("fp32", 1).read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["models"]["tiny"]["architecture"].update(n_layer=3),
        lambda config: config["models"]["tiny"].update(seed=1),
        lambda config: config["grid"]["cpu"].update(memory_limit="400 MB"),
    ],
    ids=["size", "seed", "limit"],
)
def test_changed_settings_plan_every_cell(measured, change):
    change(measured.config)
    measured.save()
    assert measure_jobs(measured.plan()) == 6


def test_cells_measured_again_keep_their_old_records(measured):
    measured.config["measurement"]["min_cycles"] = 5
    measured.save()
    assert measure_jobs(measured.plan()) == 6
    old = measured.record_path("fp32", 1).read_bytes()
    measured.run()
    folder = measured.record_path("fp32", 1).parent
    assert [p.read_bytes() for p in folder.glob("batch-1.superseded-*.json")] == [old]
    assert measured.record_path("fp32", 1).read_bytes() != old
    assert measured.plan() == NOTHING


def test_how_it_is_watched_decides_no_figure(measured):
    measured.config["watch"] = {"timeout_seconds": 60, "sample_hz": 5, "exclusive": "fail"}
    measured.save()
    assert measure_jobs(measured.plan()) == 0


def test_a_cell_out_of_time_is_named_so_and_the_others_go_on(workspace):
    workspace.config["watch"]["timeout_seconds"] = 5
    workspace.grid["precisions"] = ["fp32"]
    workspace.save()
    done = workspace.snakemake(FAKE_ENGINE=json.dumps({"fault": "hang", "on_batch": 2}))
    assert done.returncode != 0
    assert "fake fp32 batch 2: failed (timeout), see logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log" in done.stderr
    assert "timeout during warm-up: no end after 5 s; the worker, stopped by a signal, was killed" in done.stderr
    assert workspace.record_path("fp32", 512).exists()
    assert not workspace.record_path("fp32", 2).exists()


def test_records_of_different_hardware_or_software_are_refused_or_split(measured):
    path = measured.record_path("bf16", 2)
    record = json.loads(path.read_text())
    torch = record["software"]["torch"]
    record["software"]["torch"], record["environment"]["OMP_PROC_BIND"] = "2.11.0", "true"
    record["git"] = {"commit": "d" * 40, "dirty": False}
    path.write_text(json.dumps(record))
    done = measured.snakemake()
    said, name = done.stdout + done.stderr, "results/box/tiny/prompt4-new8/fake/bf16/batch-2.json"
    assert done.returncode != 0
    assert f"tiny prompt4-new8: torch differs: {torch} in 5 cells; 2.11.0 in {name}" in said
    assert f"tiny prompt4-new8: environment OMP_PROC_BIND differs: not set in 5 cells; true in {name}" in said
    assert "commit differs" not in said
    assert "or set mixed_provenance: split" in said
    measured.config["mixed_provenance"] = "split"
    measured.save()
    assert measure_jobs(measured.plan()) == 0
    measured.run()
    tables = (measured.folder / "results/box/tables.md").read_text()
    assert "bf16<br>torch 2.11.0, environment OMP_PROC_BIND true" in tables
    assert f"bf16<br>torch {torch}, environment OMP_PROC_BIND not set" in tables
    assert "OMP_PROC_BIND" in (measured.folder / "results/box/report.html").read_text()
    assert measured.plan() == NOTHING


def scramble(folder: Path) -> None:
    """Modification times in no order, as a clone leaves them."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    for index, path in enumerate(sorted(files, key=lambda p: p.name[::-1])):
        os.utime(path, (1_600_000_000 - index, 1_600_000_000 - index))


def test_a_copy_without_snakemakes_memory_plans_nothing(measured):
    shutil.rmtree(measured.folder / ".snakemake")
    assert measured.plan() == NOTHING
    shutil.rmtree(measured.folder / ".snakemake", ignore_errors=True)
    scramble(measured.folder)
    assert measured.plan() == NOTHING


def test_a_copy_without_memory_still_fills_only_what_is_missing(measured):
    shutil.rmtree(measured.folder / ".snakemake")
    measured.record_path("fp32", 2).unlink()
    scramble(measured.folder)
    assert measure_jobs(measured.plan()) == 1


def test_stale_records_are_refused_by_name_where_snakemake_remembers_nothing(measured):
    shutil.rmtree(measured.folder / ".snakemake")
    scramble(measured.folder)
    measured.config["measurement"]["min_cycles"] = 5
    measured.save()
    done = measured.snakemake()
    assert done.returncode != 0
    name = "results/box/tiny/prompt4-new8/fake/fp32/batch-1.json"
    said = done.stdout + done.stderr
    assert f"{name}: measured under another configuration: measurement.min_cycles was 3, is now 5" in said
    assert "each old one kept beside the new: snakemake --forcerun PATH ..." in said
    assert measured.record("fp32", 1)["cell"]["measurement"]["min_cycles"] == 3
    records = [str(p.relative_to(measured.folder)) for p in (measured.folder / "results").rglob("batch-*.json")]
    measured.run("--forcerun", *records)
    assert measured.record("fp32", 1)["cell"]["measurement"]["min_cycles"] == 5
    assert len(list((measured.folder / "results").rglob("*.superseded-*.json"))) == 6


def test_records_laid_in_from_elsewhere_reach_the_tables(measured):
    """As after a campaign on another machine: newer content, older times."""
    path = measured.record_path("fp32", 1)
    record = json.loads(path.read_text())
    record["runs"][0]["samples_s"] = [1.0, 1.0, 1.0]
    path.write_text(json.dumps(record))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert measured.plan() == {"collect": 1, **DERIVED, "all": 1, "total": 6}
    measured.run()
    assert "8.00 \\| 125.00" in (measured.folder / "results/box/tables.md").read_text()
    assert measured.plan() == NOTHING


def test_a_changed_template_makes_the_report_again_and_nothing_else(measured):
    template = measured.folder / "report/report.html.j2"
    template.write_text(template.read_text().replace("Conditions and provenance", "Origin"))
    assert measured.plan() == {"report": 1, "all": 1, "total": 2}


def test_a_changed_formula_makes_the_summary_again_and_measures_nothing(measured):
    formula = measured.folder / "scripts/inference_benchmark/analysis/metrics.py"
    text = formula.read_text()
    assert text.count("return 1000 / throughput") == 1
    formula.write_text(text.replace("return 1000 / throughput", "return 1e6 / throughput"))
    assert measured.plan() == {"collect": 1, **DERIVED, "all": 1, "total": 6}
    measured.run()
    assert "\\| 2031.25" in (measured.folder / "results/box/tables.md").read_text()


@pytest.mark.parametrize("content", ["{", '{"schema_version": 0}', ""], ids=["half", "old", "empty"])
def test_corrupt_and_old_records_are_refused_by_name(measured, content):
    measured.record_path("bf16", 2).write_text(content)
    done = measured.snakemake()
    assert done.returncode != 0
    assert "results/box/tiny/prompt4-new8/fake/bf16/batch-2.json: " in done.stdout + done.stderr
    assert measured.record_path("bf16", 2).read_text() == content


def test_a_failing_cell_names_its_log_and_the_others_go_on(workspace):
    environ = {"FAKE_ENGINE": json.dumps({"fault": "error", "on_batch": 2})}
    done = workspace.snakemake(**environ)
    assert done.returncode != 0
    assert "fake fp32 batch 2: failed, see logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log" in done.stderr
    assert "made-up error" in (workspace.folder / "logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log").read_text()
    assert workspace.record_path("bf16", 512).exists()
    assert not workspace.record_path("fp32", 2).exists()
    assert measure_jobs(workspace.plan()) == 2
    workspace.run()
    assert workspace.plan() == NOTHING


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("kill", "the worker was killed by SIGKILL during warm-up"),
        ("io-error", "OSError during warm-up: made-up error of a disk"),
    ],
)
def test_an_attempt_that_something_else_ended_is_repeated_and_stands_in_the_record(workspace, fault, why):
    fault = {"fault": fault, "on_batch": 2, "once": str(workspace.folder / "been-here")}
    workspace.grid["precisions"] = ["fp32"]
    workspace.save()
    done = workspace.run("--retries", "2", FAKE_ENGINE=json.dumps(fault))
    assert f"[1/3] tiny prompt4-new8 fake fp32 batch 2: failed ({why}), attempt 2 of 3 follows" in done.stderr
    (lost,) = workspace.record("fp32", 2)["attempts"]
    assert lost.pop("ended_at") < workspace.record("fp32", 2)["ended_at"]
    nowhere = dict.fromkeys(("job", "state", "node"))
    assert lost == {"attempt": 1, "said": f"measure.py: {why}", **nowhere}
    assert "attempts" not in workspace.record("fp32", 1)
    kept = workspace.folder / "logs/box/tiny/prompt4-new8/fake/fp32/batch-2.attempt-1.log"
    assert why in kept.read_text()
    assert workspace.plan() == NOTHING


def test_a_cell_that_failed_by_itself_is_not_measured_again_in_a_retry(workspace):
    """A second measurement would leave a record: the fault comes once."""
    fault = {"fault": "error", "on_batch": 2, "once": str(workspace.folder / "been-here")}
    workspace.grid["precisions"] = ["fp32"]
    workspace.save()
    done = workspace.snakemake("--retries", "2", FAKE_ENGINE=json.dumps(fault))
    assert done.returncode != 0
    assert not workspace.record_path("fp32", 2).exists()
    assert done.stderr.count("batch 2: failed, see logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log") == 1
    assert "follows" not in done.stderr
    log = (workspace.folder / "logs/box/tiny/prompt4-new8/fake/fp32/batch-2.log").read_text()
    assert "Traceback" in log
    assert log.endswith("measure.py: ValueError during warm-up: made-up error; not tried again\n")
    workspace.run()
    assert "attempts" not in workspace.record("fp32", 2)


def test_cells_that_failed_when_measured_again_are_due_the_next_time(measured):
    """Snakemake itself takes the earlier record, which it restores, for the new one."""
    measured.config["measurement"]["min_cycles"] = 5
    measured.save()
    old = measured.record_path("fp32", 2).read_bytes()
    done = measured.snakemake(FAKE_ENGINE=json.dumps({"fault": "error", "on_batch": 2}))
    assert done.returncode != 0
    assert measure_jobs(measured.plan()) == 2
    (kept,) = measured.record_path("fp32", 2).parent.glob("batch-2.superseded-*.json")
    assert kept.read_bytes() == old
    measured.run()
    assert measured.record("fp32", 2)["cell"]["measurement"]["min_cycles"] == 5


def test_a_valid_record_stays_where_measuring_it_again_fails(measured):
    old = measured.record_path("fp32", 2).read_bytes()
    target = str(measured.record_path("fp32", 2).relative_to(measured.folder))
    done = measured.snakemake("--forcerun", target, FAKE_ENGINE=json.dumps({"fault": "error", "on_batch": 2}))
    assert done.returncode != 0
    assert measured.record_path("fp32", 2).read_bytes() == old


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_does_the_rest(workspace):
    environ = {**os.environ, "FAKE_ENGINE": json.dumps({"sleep_s": 0.4})}
    run = subprocess.Popen(
        workspace.command(), cwd=workspace.folder, env=environ, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(600):
        if workspace.record_path("fp32", 2).exists():
            break
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode != 0
    finished = {p: p.read_bytes() for p in (workspace.folder / "results").rglob("batch-*.json")}
    assert 2 <= len(finished) < 6
    for path in finished:
        json.loads(path.read_text())
    assert not list((workspace.folder / "results").rglob(".batch*"))
    plan = measure_jobs(workspace.plan())
    assert plan == 6 - len(finished)
    workspace.run()
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert workspace.plan() == NOTHING


def test_a_wrong_configuration_is_told_in_lines_without_traceback(workspace):
    workspace.config["machnie"] = workspace.config.pop("machine")
    workspace.grid["batch_sizes"] = [1, 1, 0]
    workspace.save()
    done = workspace.snakemake()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "machnie: unknown key" in said
    assert "machine: missing" in said
    assert "batch_sizes: 1 stands there 2 times" in said
    assert "batch_sizes[2]: 0 is not allowed" in said
    assert "Traceback" not in said
    assert not (workspace.folder / "results").exists()


@pytest.mark.parametrize("name", ["; rm -rf x", "../up", "<script>", "a b", "$(touch pwned)", "", "x" * 65])
def test_hostile_names_never_reach_a_path_or_a_shell(workspace, name):
    workspace.config["machine"] = name
    workspace.config["models"] = {name: {"architecture": dict(TINY_BLOOM)}}
    workspace.grid["models"] = [name]
    workspace.save()
    done = workspace.snakemake()
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("is not allowed") == 2
    assert not (workspace.folder / "results").exists()
    assert not list(workspace.folder.rglob("pwned"))


def test_hostile_text_where_text_is_free_stays_text(tmp_path):
    """A folder's name is the user's own; it goes through the shell, a record, the tables and the page."""
    hostile = tmp_path / "it's $(touch pwned) <b> {x} ; rm"
    (tmp_path / "w").mkdir()
    hostile.mkdir()
    (hostile / "config.json").write_text('{"model_type": "bloom"}')
    (hostile / "model.safetensors").write_bytes(b"weights")
    grid = json.loads(json.dumps(FAKE_GRID)) | {"models": ["mine"], "precisions": ["fp32"], "batch_sizes": [1]}
    workspace = Workspace.make(tmp_path / "w", grid, {"mine": {"checkpoint": str(hostile)}})
    workspace.run()
    assert not list(tmp_path.rglob("pwned"))
    page = (workspace.folder / "results/box/report.html").read_text()
    assert " <b> {x}" not in page.replace("\\u003c", "")
    assert "&lt;b&gt;" in page


def test_readme_block_and_its_check(measured):
    shutil.copy(REPO / "README.md", measured.folder / "README.md")
    measured.run("readme")
    text = (measured.folder / "README.md").read_text()
    assert "### tiny on box" in text
    assert "no measurement" in text
    for chart in re.findall(r'(?:src|srcset)="([^"]+)"', text):
        assert (measured.folder / chart).exists()
    assert text.count("<picture>") == 2
    assert text.index("Measured on") < text.index("<picture>") < text.index("Throughput (")
    command = ["python", "scripts/readme.py", "--check", "--readme", "README.md"]
    command += ["--summary", "results/box/summary.csv", "--provenance", "results/box/provenance.json"]
    command += ["--comparison", "results/box/comparison/a100-80gb.json", "--charts", "results/box/charts"]
    environ = {**os.environ, "PATH": f"{REPO}/.venv/bin:{os.environ['PATH']}"}
    assert subprocess.run(command, cwd=measured.folder, env=environ).returncode == 0
    (measured.folder / "README.md").write_text(text.replace("### tiny", "### huge"))
    assert subprocess.run(command, cwd=measured.folder, env=environ, capture_output=True).returncode == 1


def test_the_printed_command_runs_by_hand(measured):
    """What -p prints for a cell is the way to debug it."""
    measured.record_path("fp32", 1).unlink()
    done = measured.run("-n", "-p", "--quiet", "host")
    lines = (done.stdout + done.stderr).splitlines()
    command = next(line for line in lines if "scripts/measure.py" in line and "batch-1.json" in line)
    command = command.partition("Shell command: ")[2] or command
    subprocess.run(command, shell=True, cwd=measured.folder, check=True)
    assert measured.record("fp32", 1)["outcome"] == "ok"


def test_no_command_grows_with_the_grid(workspace):
    """A command line has a limit, and so has each word of it."""

    def commands() -> dict[str, int]:
        done = workspace.run("-n", "-p", "--forceall")
        longest: dict[str, int] = {}
        for line, name in re.findall(r"(.*python scripts/(\w+)\.py.*)", done.stdout + done.stderr):
            longest[name] = max(longest.get(name, 0), len(line))
        return longest

    small = commands()
    workspace.grid["batch_sizes"] = list(range(1, 10)) + list(range(100, 600))
    workspace.save()
    large = commands()
    assert {"measure", "collect", "tables", "charts", "report"} <= set(small)
    assert large == small


def test_real_models_through_configuration_alone(tmp_path):
    """Three families, real torch and bitsandbytes: nothing but the configuration names them."""
    grid = {
        "models": list(MODELS),
        "workloads": [{"prompt_tokens": 5, "new_tokens": 6}],
        "engines": ["hf"],
        "precisions": ["int8"],
        "batch_sizes": [2],
        "memory_limit": None,
        "max_batch": False,
        "divergence": True,
    }
    workspace = Workspace.make(tmp_path, grid, {name: {"architecture": sizes} for name, sizes in MODELS.items()})
    workspace.run()
    tables = (tmp_path / "results/box/tables.md").read_text()
    for name in MODELS:
        record = json.loads((tmp_path / f"results/box/{name}/prompt5-new6/hf/int8/batch-2.json").read_text())
        assert record["outcome"] == "ok"
        assert len(record["runs"][0]["samples_s"]) == 3
        assert record["model"]["dtypes"][-1] == "int8"
        assert f"### {name} on box" in tables
    assert workspace.plan() == NOTHING


# -- baselines, comparison, preview, Snakemake's own report ------------------------------------------


def test_a_baseline_stands_in_tables_charts_and_page(measured):
    shutil.copytree(measured.folder / "results/box", measured.folder / "before")
    for path in (measured.folder / "before").rglob("batch-1.json"):
        record = json.loads(path.read_text())
        for run in record["runs"]:
            run["samples_s"] = [2 * seconds for seconds in run["samples_s"]]
        path.write_text(json.dumps(record))
    measured.config["baselines"] = {"before": "before", "a100-80gb": None}
    measured.save()
    plan = measured.plan()
    assert measure_jobs(plan) == 0
    assert plan["comparison"] == 1
    measured.run()
    results = measured.folder / "results/box"
    text = (results / "tables.md").read_text()
    assert "| before<br>fake fp32 |" in text
    against = text.split("Against before (times its throughput)")[1].split("\n\n")[1]
    assert against.splitlines()[2].split("|")[2].strip() == "2.00x △"
    assert "both oom" in against
    assert "△ ▽ perhaps: a side was measured in one process" in text
    assert "before fake fp32" in (results / "charts/tiny-prompt4-new8-throughput-light.svg").read_text()
    assert "before fake fp32" in (results / "report.html").read_text()
    assert measured.plan() == NOTHING
    shown = measured.run("compare")
    assert "6 cells in common: 2 perhaps faster" in shown.stdout
    # A baseline that changes is noticed, also where its times tell nothing.
    path = next((measured.folder / "before").rglob("batch-2.json"))
    record = json.loads(path.read_text())
    record["runs"][0]["samples_s"] = [9.0, 9.0, 9.0]
    path.write_text(json.dumps(record))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert measured.plan().get("comparison") == 1


def test_a_baseline_that_cannot_be_used_is_named_before_any_job(workspace):
    (workspace.folder / "bad.csv").write_text(
        "model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,ok,-3\n"
    )
    workspace.config["baselines"] = {"gone": "no/where", "bad": "bad.csv"}
    workspace.save()
    said = (done := workspace.snakemake()).stdout + done.stderr
    assert done.returncode != 0
    assert "baselines.gone: no/where: No such file or directory" in said
    assert "baselines.bad: bad.csv: row 1: throughput_tok_per_s: '-3' is not allowed; allowed: a number > 0" in said
    assert "Traceback" not in said
    assert not (workspace.folder / "results").exists()


def test_without_a_baseline_there_is_nothing_to_compare_with(measured):
    measured.config["baselines"] = {"a100-80gb": None}
    measured.save()
    done = measured.snakemake("compare")
    assert done.returncode != 0
    assert "baselines: names nothing to compare with" in done.stdout + done.stderr
    measured.run()
    assert "Against" not in (measured.folder / "results/box/tables.md").read_text()


def test_a_preview_shows_what_there_is_while_others_measure(workspace):
    environ = {**os.environ, "FAKE_ENGINE": json.dumps({"sleep_s": 0.4})}
    run = subprocess.Popen(
        workspace.command(), cwd=workspace.folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    for _ in range(600):
        if workspace.record_path("fp32", 2).exists():
            break
        time.sleep(0.05)
    done = workspace.run("preview")
    assert run.poll() is None, "the measurement was over too early for this test to say anything"
    folder = workspace.folder / "results/box/preview"
    assert "missing. See results/box/preview/report.html." in done.stdout
    page = (folder / "report.html").read_text()
    assert "of 6 cells have a record" in page
    row = next(line for line in (folder / "tables.md").read_text().splitlines() if line.startswith("| 1 "))
    assert row.count("|") == 5  # with the one inside the figure
    assert row.split("|")[-2].strip() == ""
    _, said = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert len(list((workspace.folder / "results/box/tiny").rglob("batch-*.json"))) == 6
    assert workspace.plan() == NOTHING


def test_a_preview_names_what_failed_and_what_is_refused(measured):
    measured.record_path("bf16", 2).unlink()
    measured.snakemake(
        str(measured.record_path("bf16", 2).relative_to(measured.folder)), FAKE_ENGINE='{"fault": "error"}'
    )
    measured.record_path("fp32", 1).write_text("{")
    measured.record_path("fp32", 512).unlink()
    (measured.folder / "logs/box/tiny/prompt4-new8/fake/fp32/batch-512.log").unlink()
    done = measured.run("preview")
    assert "Preview: 3 of 6 cells have a record, 1 failed, 1 refused, 1 missing." in done.stdout
    log = "logs/box/tiny/prompt4-new8/fake/bf16/batch-2.log"
    assert f"batch-2.json: failed: {log}: " in done.stdout
    assert "batch-1.json: refused: not JSON" in done.stdout
    page = (measured.folder / "results/box/preview/report.html").read_text()
    assert f"<td>failed</td><td>{log}: " in page
    assert "<td>refused</td><td>not JSON" in page
    rows = (measured.folder / "results/box/preview/summary.csv").read_text().splitlines()
    assert len(rows) == 7


def test_a_preview_of_nothing_says_so(workspace):
    assert "0 of 6 cells have a record, 6 missing. There is nothing to show yet." in workspace.run("preview").stdout


def test_snakemakes_own_report_has_captions_and_categories(measured):
    measured.run("--report", "account.html")
    page = (measured.folder / "account.html").read_text()
    for wanted in ("Tables", "Charts", "Comparisons", "Report", "report.html", "tables.md", "throughput-light.svg"):
        assert wanted in page, wanted
    assert "lane per column shows the batch sizes that did not fit" in page
    assert "{{ snakemake" not in page


# -- several machines --------------------------------------------------------------------------------


def named(device_name) -> dict:
    """A machine of the configuration, with what its jobs would ask Slurm for."""
    asked = dict.fromkeys(("partition", "account", "gpu_model", "gres", "constraint"))
    return {"device_name": device_name, "slurm": {**asked, "cpus": 1, "mem_mb": 500, "runtime_minutes": 1}}


def test_a_cell_on_other_hardware_than_its_label_says_is_refused(measured):
    """Measured here or brought from elsewhere."""
    shutil.move(measured.folder / "results/box", measured.folder / "results/ours")
    for path in (measured.folder / "results/ours").rglob("batch-*.json"):
        record = json.loads(path.read_text())
        record["cell"]["machine"] = "ours"
        path.write_text(json.dumps(record))
    shutil.rmtree(measured.folder / ".snakemake")
    measured.config |= {"machine": "auto", "machines": {"ours": named(None), "theirs": named("No Such Device")}}
    measured.save()
    done = measured.snakemake()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "machines.theirs.device_name asks for 'No Such Device'; nothing was measured" in said
    assert not list((measured.folder / "results").glob("theirs/**/batch-*.json"))
    assert (measured.folder / "results/ours/report.html").exists()
    measured.config["machines"]["ours"]["device_name"] = "No Such Device"
    measured.save()
    done = measured.snakemake("results/ours/summary.csv")
    assert done.returncode != 0
    name = "results/ours/tiny/prompt4-new8/fake/fp32/batch-1.json"
    assert f"{name}: measured on " in done.stdout + done.stderr
    measured.config["machines"]["theirs"]["device_name"] = None
    measured.config["machines"]["ours"]["device_name"] = None
    measured.save()
    measured.run()
    assert "<h1>Text generation on ours, theirs" in (measured.folder / "results/report.html").read_text()
    assert measured.plan() == NOTHING
    shutil.rmtree(measured.folder / ".snakemake")
    scramble(measured.folder)
    assert measured.plan() == NOTHING
    shutil.copy(REPO / "README.md", measured.folder / "README.md")
    measured.run("readme")
    text = (measured.folder / "README.md").read_text()
    assert "### tiny on ours" in text
    assert "### tiny on theirs" in text
    assert "results/theirs/charts/" in text
    assert measured.run("preview").stdout.count("6 of 6 cells have a record") == 2
