"""Real Snakemake on small grids: what is planned, measured and kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
from made_up import MODELS
from running import DERIVED, NOTHING, REPO, SUMMARY, TABLES, Workspace, measure_jobs

from inference_benchmark.render.readme import CHARTS, RESULTS


def test_a_run_leaves_every_record_tables_and_report_and_prints_a_line_per_cell(measured_once, measured):
    results = measured_once.folder / "results/box"
    assert len(list(results.rglob("batch-*.json"))) == 6
    assert {"summary.csv", "provenance.json", "tables.md", "report.html"} <= {p.name for p in results.iterdir()}
    said = (measured_once.folder / "run.log").read_text()
    lines = [line for line in said.splitlines() if line.startswith("[")]
    order = [line.split("fake ")[1].split(":")[0] for line in lines]
    assert order == [f"{precision} batch {n}" for precision in ("fp32", "bf16") for n in (1, 2, 512)]
    assert lines[0].startswith("[1/6] tiny prompt4-new8 fake fp32 batch 1: ")
    assert lines[0].endswith(", 5 left")
    assert ", 3 left, about " in lines[2]
    ending = said[said.index("The best of each column on box, by throughput:") :].splitlines()
    assert [line.partition("  ")[0] for line in ending[2:4]] == [
        f"tiny prompt4-new8 fake {precision} batch 2" for precision in ("bf16", "fp32")
    ]
    assert ending[4].startswith("tiny prompt4-new8 fake bf16 batch 2 is ")
    assert ending[5] == "Report: results/box/report.html; tables: results/box/tables.md"
    assert lines[2].split(": ")[1].startswith("oom during warm-up")
    assert measured.plan() == NOTHING


def test_deleted_records_are_measured_again_and_no_others(measured, tmp_path):
    kept = measured.record_path("bf16", 1).read_bytes()
    deleted = [measured.record_path("fp32", 1), measured.record_path("bf16", 2)]
    for path in deleted:
        path.unlink()
    plan = measured.plan()
    assert plan == {"measure": 2, "collect": 1, **DERIVED, "all": 1, "total": 8}
    (temporary := tmp_path / "tmp").mkdir()
    measured.run(*(str(path.relative_to(measured.folder)) for path in deleted), SUMMARY, TMPDIR=str(temporary))
    assert all(path.exists() for path in deleted)
    assert list(temporary.glob("inference-benchmark-*")) == [], "what jobs of a run tell each other ends with it"
    assert measured.record_path("bf16", 1).read_bytes() == kept
    assert measured.plan(SUMMARY) == NOTHING


def test_a_dry_run_ends_with_an_estimate_by_earlier_records(measured):
    def last_line(*arguments):
        return measured.run("-n", *arguments).stderr.splitlines()[-1]

    assert "Estimated time" not in last_line()
    measured.record_path("fp32", 1).unlink()
    measured.record_path("fp32", 2).unlink()  # 512, which runs out of memory, is what is left of this column
    line = r"Estimated time: \d+ s for 2 cells and studies, one after the other\. By earlier records: 2\."
    assert re.fullmatch(line, last_line())
    new = last_line("--config", "machine=new")
    # Six cells, each with 10 s to start and no limit to the time of its timed parts.
    assert new.startswith(
        "Estimated time: 1 min 00 s for 6 cells and studies, one after the other. By earlier records: 0;"
    )


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
    measured.run(SUMMARY)
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
    measured.run(SUMMARY)
    folder = measured.record_path("fp32", 1).parent
    assert [p.read_bytes() for p in folder.glob("batch-1.superseded-*.json")] == [old]
    assert measured.record_path("fp32", 1).read_bytes() != old
    assert measure_jobs(measured.plan()) == 0


def test_how_it_is_watched_decides_no_figure(measured):
    measured.config["watch"] = {"timeout_seconds": 60, "sample_hz": 5, "exclusive": "fail"}
    measured.save()
    assert measure_jobs(measured.plan()) == 0


def test_readme_block_and_its_check(measured):
    shutil.copy(REPO / "README.md", measured.folder / "README.md")
    measured.run("readme")
    text = (measured.folder / "README.md").read_text()
    charts, block = (text.split(begin)[1].split(end)[0] for begin, end in (CHARTS, RESULTS))
    assert "### tiny on box" in block
    assert "no measurement" in block
    for chart in re.findall(r'(?:src|srcset)="([^"]+)"', charts):
        assert (measured.folder / chart).exists()
    assert charts.count("<picture>") == 2
    assert block.index("Measured on") < block.index("Throughput (")
    command = ["python", "scripts/readme.py", "--check", "--readme", "README.md"]
    command += ["--summary", "results/box/summary.csv", "--provenance", "results/box/provenance.json"]
    command += ["--charts", "results/box/charts"]
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
    workspace.grid["batch_sizes"] = list(range(1, 10)) + list(range(100, 160))
    workspace.save()
    large = commands()
    assert {"measure", "collect", "tables", "charts", "report"} <= set(small)
    assert large == small


def test_real_models_through_configuration_alone(tmp_path, ceilings_once):
    """Three families, real torch and bitsandbytes: nothing but the configuration names them."""
    grid = {
        "models": list(MODELS),
        "workloads": [{"prompt_tokens": 5, "new_tokens": 6}],
        "engines": ["hf"],
        "precisions": ["int8"],
        "batch_sizes": [2],
        "memory_limit": None,
        "max_batch": False,
        "divergence": False,
    }
    workspace = Workspace.make(tmp_path, grid, {name: {"architecture": sizes} for name, sizes in MODELS.items()})
    (tmp_path / "results/box").mkdir(parents=True)
    shutil.copy(ceilings_once, tmp_path / "results/box/ceilings.json")
    workspace.run("results/box/bloom/prompt5-new6/hf/int8/divergence.json")
    workspace.run(TABLES)
    tables = (tmp_path / "results/box/tables.md").read_text()
    for name in MODELS:
        record = json.loads((tmp_path / f"results/box/{name}/prompt5-new6/hf/int8/batch-2.json").read_text())
        assert record["outcome"] == "ok"
        assert len(record["runs"][0]["samples_s"]) == 3
        assert record["model"]["dtypes"][-1] == "int8"
        assert f"### {name} on box" in tables
    assert "same tokens" in tables.split("### gpt2")[0], (
        "the one comparison of answers is used, though it is switched off"
    )
    plan = workspace.plan()
    assert not {"measure", "ceilings", "divergence"} & plan.keys()


def test_snakemakes_own_report_has_captions_and_categories(measured):
    measured.run("--report", "account.html")
    page = (measured.folder / "account.html").read_text()
    for wanted in ("Tables", "Charts", "Comparisons", "Report", "report.html", "tables.md", "throughput-light.svg"):
        assert wanted in page, wanted
    assert "lanes below each chart show the batch sizes that did not fit" in page
    assert "{{ snakemake" not in page


def test_snakemake_sleeps_while_a_job_measures(measured):
    """Its scheduler would wake up once a second for every job that has ended."""
    (target := measured.record_path("fp32", 1)).unlink()
    snakefile = measured.folder / "Snakefile"
    count = "sum(isinstance(thread, threading.Timer) for thread in threading.enumerate())"
    snakefile.write_text(f"import threading\n{snakefile.read_text()}\n\nonsuccess:\n    print({count}, 'timers')\n")
    assert "0 timers" in measured.run(str(target.relative_to(measured.folder))).stdout
