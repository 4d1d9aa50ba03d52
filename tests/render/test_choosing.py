"""The best cells of a summary as text, and scripts/choose.py."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from made_up import DRIFTS, make_cell, make_oom, make_record, with_figures, write_records
from running import script

from inference_benchmark.analysis.figures import BY_NAME
from inference_benchmark.records.results import cell_results
from inference_benchmark.render.choosing import BOUNDS, GOALS, Question, answer
from inference_benchmark.results.summary_csv import to_csv

TOKEN, FIRST, MEMORY, KL, PERPLEXITY = BOUNDS
ENERGY = {"source": "nvml", "scope": "GPU board", "joules": 4.8, "resolution_j": 0.0, "seconds": 1.5, "update_interval_s": 0.1}  # fmt: skip


def records():
    """Calls of exactly 0.4 s for 8 tokens per row, the first after 0.05 s; batch 4 scatters; batch 8 ran out of memory."""
    calls = {"samples_s": [0.4] * 3, "first_token_s": [0.05] * 3}
    scattered = {"samples_s": [0.45, 0.5, 0.55], "first_token_s": [0.05] * 3, "stability": DRIFTS}
    return [
        make_record(make_cell(batch_size=1), **calls),
        make_record(make_cell(batch_size=2), **calls, energy=ENERGY, memory={"peak_rss_bytes": 2 * 10**9}),
        make_record(make_cell(batch_size=4), **scattered, memory={"peak_rss_bytes": 4 * 10**9}),
        make_oom(make_cell(batch_size=8)),
    ]


def asked(goal: str = "throughput", bounds=(), results=None, **more):
    return answer(results or cell_results(records()), Question(GOALS[goal], dict(bounds), **more))


def test_goals_are_figures_in_a_unit_of_their_own():
    assert list(GOALS) == [
        "throughput",
        "latency",
        "first-token",
        "prompt-throughput",
        "decode",
        "time-per-output-token",
        "energy",
        "memory",
    ]


def test_the_best_cell_has_its_figures_price_co2_and_warnings():
    found = asked(price_per_hour=14.4, grams_co2_per_kwh=360)
    assert found.headings == [
        "choice",
        "cell",
        "Throughput (tokens/sec)",
        "Time per output token (msec/token of a row)",
        "Time to first token (msec)",
        "Peak memory (GB)",
        "price per million tokens",
        "g CO2 per million tokens",
        "warnings",
    ]
    # 32 tokens in 0.5 s, by a factor of exp(4.303 x 0.1 / sqrt(3)) = 1.282 to either side; batch 2 with exactly 40
    # tokens/sec does not reach its 49.92.
    assert found.cells == [
        ["best", "fp32 batch 4", "64 (49.92 to 82.05)", "64.29 (48.78 to 84.72)", "50", "4", "62.5 (48.75 to 80.12)", "", "drift"]
    ]  # fmt: skip
    assert found.lines == []


def test_energy_is_a_goal_of_the_cells_that_have_it():
    found = asked("energy", grams_co2_per_kwh=360)
    # 4.8 J for 3 calls of 16 tokens.
    assert [row[:3] for row in found.cells] == [["best", "fp32 batch 2", "0.1"]]
    assert found.cells[0][-2:] == ["10", ""]
    assert found.lines == ["Cells without the figure of the goal: 2."]


def test_a_limit_that_only_the_mean_meets_makes_a_cell_perhaps():
    found = asked(bounds={TOKEN: 70.0})
    assert [row[:2] for row in found.cells] == [["best", "fp32 batch 2"], ["perhaps", "fp32 batch 4"]]
    assert found.lines == []
    found = asked(bounds={TOKEN: 84.73})
    assert [row[:2] for row in found.cells] == [["best", "fp32 batch 4"]]


def test_what_excludes_every_cell_is_said_with_the_nearest():
    found = asked(bounds={TOKEN: 55, FIRST: 0.04, MEMORY: 1.5})
    assert found.cells == []
    assert found.lines == [
        "No cell meets the limits.",
        "Nearest: fp32 batch 1, 0.05 s to the first token, 1.25 times the limit.",
        "At most 55 ms per output token: excludes 1 of 3 cells.",
        "At most 0.04 s to the first token: excludes 3 of 3 cells.",
        "At most 1.5 GB of memory: excludes 2 of 3 cells.",
    ]


def test_no_cell_for_certain():
    found = asked(bounds={TOKEN: 70}, results=cell_results(records()[2:]))
    assert [row[:2] for row in found.cells] == [["perhaps", "fp32 batch 4"]]
    assert found.lines == ["No cell meets the limits for certain."]


def test_a_figure_that_is_noise_excludes_its_cell_from_a_limit_on_it():
    noise = make_record(make_cell(batch_size=1), samples_s=[0.4, 0.5, 0.6], first_token_s=[0.1, 0.4, 0.5])
    found = asked(bounds={TOKEN: 1e6}, results=cell_results([noise]))
    assert found.lines == [
        "No cell meets the limits.",
        "At most 1,000,000 ms per output token: excludes 1 of 1 cells, 1 of them because the figure is unknown.",
    ]


def test_a_cell_faster_than_its_machine_can_be_is_never_chosen():
    results = cell_results(records())
    results[2] = replace(results[2], flags=("machine-slower", "above-limit"))
    found = asked(results=results)
    assert [row[1] for row in found.cells] == ["fp32 batch 2"]
    assert found.lines == ["Cells left out because they are faster than their machine can be (above-limit): 1."]


def of_precisions(**quality):
    """Three columns, each faster than the one before. quality: figures by the name of the precision."""
    cells = {"fp32": 0.4, "bf16": 0.2, "int8": 0.1}
    made = [make_record(make_cell(precision=name), samples_s=[latency_s] * 3) for name, latency_s in cells.items()]
    return [with_figures(each, **quality.get(each.column.precision, {})) for each in cell_results(made)]


def test_a_limit_on_quality_is_met_by_the_upper_end_of_its_interval():
    quality = {
        "fp32": {"text_kl_mean_nats": (0, 0, 0), "text_perplexity_ratio": (1, 1, 1)},
        "bf16": {"text_kl_mean_nats": (0.001, 0.0008, 0.0012), "text_perplexity_ratio": (1.006, 1.002, 1.01)},
        "int8": {"text_kl_mean_nats": (0.02, 0.018, 0.022)},
    }
    results = of_precisions(**quality)

    def best(bounds):
        found = asked(bounds=bounds, results=results)
        return [row[:2] for row in found.cells], found.lines

    assert best({KL: 0.0012}) == (
        [["best", "bf16 batch 2"]],
        ["At most 0.0012 nats of KL divergence over the text: excludes 1 of 3 cells."],
    )
    assert best({KL: 0.0011})[0] == [["best", "fp32 batch 2"], ["perhaps", "bf16 batch 2"]]
    assert best({PERPLEXITY: 1.01}) == (
        [["best", "bf16 batch 2"]],
        [
            "At most 1.01 times the perplexity of hf fp32: excludes 1 of 3 cells, 1 of them because the figure is unknown.",
        ],
    )
    assert best({}) == ([["best", "int8 batch 2"]], ["No limit on the quality of answers is given."])


def test_quality_stands_beside_speed_where_it_is_known():
    found = asked(results=of_precisions(int8={"token_agreement": 0.1}))
    assert dict(zip(found.headings, found.cells[0], strict=True))["same tokens (%)"] == "10"
    assert found.lines == ["No limit on the quality of answers is given."]
    found = asked(results=of_precisions())
    assert "same tokens (%)" not in found.headings
    assert found.lines == ["The quality of answers is not known."]


# -- the script ----------------------------------------------------------------------------------------


run = partial(script, "choose")


@pytest.fixture(scope="module")
def summary(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("choose") / "summary.csv"
    other = [
        make_record(make_cell(batch_size=size, model={"name": "other", "architecture": {}, "seed": 0}))
        for size in (1, 2)
    ]
    path.write_text(to_csv(cell_results([*records(), *other])))
    return path


def test_the_script_prints_a_part_for_each_model_and_workload(summary):
    done = run(summary, "--max-ms-per-token", "70", "--max-memory-gb", "3", "--price-per-hour", "2.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "## tiny prompt4-new8 on box\n\n"
        "Goal: throughput (tokens/sec), higher is better. Limits: at most 70 ms per output token; at most 3 GB of memory.\n\n"
        "At most 3 GB of memory: excludes 1 of 3 cells.\n\n"
    )
    assert "| best   | fp32 batch 2 | 40 " in done.stdout
    assert "| 17.36 " in done.stdout  # 2.5 / (40 x 3600) x 1e6
    assert "\n## other prompt4-new8 on box\n" in done.stdout
    assert "as good: its interval overlaps that of the best" in done.stdout
    done = run(summary, "--model", "other", "--goal", "memory")
    assert done.stdout.startswith("## other")
    assert "tiny" not in done.stdout
    assert f"Goal: peak memory ({BY_NAME['peak_memory_bytes'].unit}), lower is better. Limits: none." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--model", "huge"], "choose.py: {summary}: has no model 'huge'; give one of tiny, other"),
        (["--workload", "long"], "choose.py: {summary}: has no workload 'long'; give one of prompt4-new8"),
        (["--max-memory-gb", "0"], "choose.py: error: argument --max-memory-gb: '0' is not a number above 0"),
        (["--price-per-hour", "nan"], "choose.py: error: argument --price-per-hour: 'nan' is not a number above 0"),
        (
            ["--max-ms-per-token", "50ms"],
            "choose.py: error: argument --max-ms-per-token: '50ms' is not a number above 0",
        ),
        (["--goal", "speed"], "choose.py: error: argument --goal: invalid choice: 'speed'"),
    ],
)
def test_bad_input_is_one_clear_line(summary, arguments, problem):
    done = run(summary, *arguments)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(problem.format(summary=summary))


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "# A page\n\nof words, with commas,\nwithout.\n", ""])
def test_a_file_that_is_no_summary_is_one_line(tmp_path, content):
    path = tmp_path / "other.csv"
    path.write_text(content)
    done = run(path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert f"{path}: has no column machine" in done.stderr


def test_a_folder_has_its_summary_or_its_records(tmp_path):
    folder = write_records(tmp_path, records())
    of_records = run(folder)
    assert (of_records.returncode, of_records.stderr) == (0, "")
    (folder / "summary.csv").write_text(to_csv(cell_results(records())))
    assert run(folder).stdout == run(folder / "summary.csv").stdout == of_records.stdout
    assert "| best " in of_records.stdout
    assert run(tmp_path / "results/none").stderr == f"choose.py: {tmp_path}/results/none: No such file or directory\n"
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty").stderr.startswith(f"choose.py: {tmp_path}/empty: holds no records (batch-N.json)")
