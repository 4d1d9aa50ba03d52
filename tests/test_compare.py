"""Two sides of a comparison: which cells are the same, which differences are more than noise, and what is said of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grids
import pytest
from test_record import OOM, make_record

from conftest import MEASUREMENT, REPO, make_cell
from inference_benchmark import files
from inference_benchmark.compare import comparison, result_set
from inference_benchmark.compare import text as comparison_text
from inference_benchmark.compare.comparison import Comparison, compare, regressions
from inference_benchmark.compare.result_set import Measured, Side
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.baselines import BaselineError
from inference_benchmark.records import summary
from inference_benchmark.render import tables

A100 = REPO / "reference/bloom_a100_80gb.csv"
SMALL = {"batch_sizes": (1, 2, 4, 8, 16, 32, 64), "precisions": ("fp32", "bf16"), "engines": ("hf",)}


def side(name: str = "box", faster: float = 1.0, processes: int = 8, seed: int = 0, **changes) -> Side:
    return result_set.of_records(grids.records(grids.experiment(**SMALL | changes), faster, processes, seed), name)


def verdicts(found: Comparison) -> list[str]:
    return [cell.verdict for cell in found.cells]


def cell_of(found: Comparison, engine: str, precision: str, batch: int) -> comparison.ComparedCell:
    wanted = {"engine": engine, "precision": precision, "batch_size": batch}
    return next(cell for cell in found.cells if wanted.items() <= cell.where.items())


# -- verdicts --------------------------------------------------------------------------------------


def test_the_same_again_is_called_the_same():
    found = compare(side(seed=1), side(seed=2))
    assert verdicts(found) == ["same"] * 14
    assert all(cell.low < cell.ratio < cell.high and cell.low < 1.02 and cell.high > 0.98 for cell in found.cells)
    assert regressions(found, 0.0) == []


@pytest.mark.parametrize(("faster", "verdict"), [(1.05, "faster"), (0.95, "slower")])
def test_a_planted_difference_is_called_and_its_size_is_in_the_interval(faster, verdict):
    found = compare(side(seed=1), side(seed=2, faster=faster))
    assert verdicts(found) == [verdict] * 14
    assert sum(cell.low < faster < cell.high for cell in found.cells) >= 12  # of 14 intervals at 95 %
    assert [column.geometric_mean for column in found.columns] == pytest.approx([faster] * 2, rel=0.01)
    assert found.judged == 14


def test_calls_of_one_process_show_perhaps_a_difference():
    found = compare(side(processes=1, seed=1), side(processes=1, seed=2, faster=1.5))
    assert verdicts(found) == ["perhaps faster"] * 14
    assert (found.judged, found.single_process) == (0, True)
    slower = compare(side(processes=1, seed=1), side(processes=8, seed=2, faster=0.5))
    assert verdicts(slower) == ["perhaps slower"] * 14
    assert regressions(slower, 0.05) == []
    assert any("in one process" in line for line in comparison_text.cautions(found))
    assert not any("in one process" in line for line in comparison_text.cautions(compare(side(), side())))


def test_noise_between_processes_is_not_taken_for_a_difference():
    """Calls agree within 0.1 %, processes within 5 %: by its calls alone any two would differ."""

    def measured(*centres: float) -> Side:
        groups = [[centre, centre * 1.001, centre * 0.999] for centre in centres]
        where = {"model": "m", "engine": "hf", "precision": "fp32", "batch_size": 1}
        return Side("x", [Measured(where, "ok", {"throughput_tok_per_s": 1 / centres[0]}, groups)])

    assert verdicts(compare(measured(1.0, 1.05, 0.95), measured(1.04, 0.99, 1.06))) == ["same"]
    assert verdicts(compare(measured(1.0), measured(1.04))) == ["perhaps slower"]


def test_more_cells_ask_for_more_certainty():
    """p = 0.02 for one cell is a difference; among twenty cells of which nothing else differs it is chance."""
    where = {"model": "m", "engine": "hf", "precision": "fp32"}
    base = [1.0, 1.01, 0.99, 1.0]
    new = [1.022, 1.012, 1.032, 1.006]

    def of(name: str, samples: list[float], n: int) -> Side:
        cells = [Measured(where | {"batch_size": 1}, "ok", {"throughput_tok_per_s": 1.0}, [samples])]
        more = [
            Measured(where | {"batch_size": b}, "ok", {"throughput_tok_per_s": 1.0}, [base]) for b in range(2, n + 1)
        ]
        return Side(name, cells + more)

    alone = compare(of("b", base, 1), of("n", new, 1)).cells[0]
    assert 0.01 < alone.p_value < 0.05
    assert alone.verdict == "perhaps slower"
    among = compare(of("b", base, 20), of("n", new, 20)).cells[0]
    assert among.p_value == alone.p_value
    assert among.verdict == "same"


def test_one_sample_a_side_is_not_judged():
    where = {"model": "m", "engine": "hf", "precision": "fp32", "batch_size": 1}
    one = Side("x", [Measured(where, "ok", {"throughput_tok_per_s": 2.0}, [[1.0]])])
    found = compare(one, one)
    assert (found.cells[0].verdict, found.cells[0].ratio, found.cells[0].low) == ("unknown", 1.0, None)


def test_first_tokens_are_compared_by_their_own_samples():
    found = compare(side(seed=1), side(seed=2, faster=1.1), "first-token")
    assert found.figure == "first_token_s"
    assert verdicts(found) == ["faster"] * 14
    assert "time to first token (msec)" in comparison_text.to_markdown(found)


# -- edges and cells that have no partner -------------------------------------------------------------


def test_edges_of_memory_stand_against_each_other():
    large = {**SMALL, "batch_sizes": (768, 896, 1024), "precisions": ("fp32",)}
    records = grids.records(grids.experiment(**large), processes=2)
    lost = [
        *records[:1],
        make_record(make_cell(**records[1]["cell"]), outcome="oom", samples_s=[], reason=OOM),
        records[2],
    ]
    found = compare(result_set.of_records(records), result_set.of_records(lost))
    assert verdicts(found) == ["same", "fits no longer", "neither fits"]
    assert found.columns[0][-2:] == (896, 768)
    assert [cell.where["batch_size"] for cell in regressions(found, 0.05)] == [896]
    assert verdicts(compare(result_set.of_records(lost), result_set.of_records(records)))[1] == "fits now"


def test_cells_of_one_side_are_listed_by_column():
    found = compare(side(batch_sizes=(1, 2, 4)), side("new", batch_sizes=(2, 4, 8, 16)))
    assert [cell.where["batch_size"] for cell in found.cells] == [2, 4, 2, 4]
    text = comparison_text.to_markdown(found)
    assert (
        "bloom-1b3 prompt9-new100 hf fp32 batch 1; bloom-1b3 prompt9-new100 hf bf16 batch 1."
        in text.split("## Only in box")[1]
    )
    assert "hf fp32 batch 8, 16; " in text.split("## Only in new")[1]
    assert compare(side(workloads=({"prompt_tokens": 9, "new_tokens": 50},)), side()).cells == []
    other = ({"name": "other", "architecture": {}, "seed": 0},)
    assert compare(side(models=other), side()).cells == []


def test_what_differs_is_said_first():
    new = grids.experiment(**SMALL, measurement={**MEASUREMENT, "seed": 7})
    records = grids.records(new, processes=2)
    for known in records:
        known["software"] = {**known["software"], "torch": "2.99"}
    found = compare(side(), result_set.of_records(records, "new"))
    told = {each.fact: (each.base, each.new) for each in found.differences}
    assert told["torch"] == (["2.13.0"], ["2.99"])
    assert told["measurement seed"] == ([0], [7])
    assert told["measurement processes"] == ([8], [2])
    text = comparison_text.to_markdown(found)
    assert text.index("## What differs") < text.index("## Cells")
    assert "| torch                 | 2.13.0 | 2.99 |" in text
    assert compare(side(), side("new")).differences == []


def test_a_variable_that_one_side_has_is_a_difference_and_what_one_side_cannot_know_is_none():
    records = grids.records(grids.experiment(**SMALL), processes=8)
    for known in records:
        known["environment"] = {"OMP_PROC_BIND": "true"}
    assert compare(side(), result_set.of_records(records)).differences == [
        ("environment OMP_PROC_BIND", ["not set"], ["true"])
    ]
    bare = Side("bare", side().cells, {"device": ["Made-up GPU"], "torch": ["2.0"]})
    assert compare(bare, side()).differences == [("torch", ["2.0"], ["2.13.0"])]


# -- the published figures ----------------------------------------------------------------------------


def test_the_published_figures_stand_beside_every_engine_of_their_model():
    found = compare(result_set.load(A100, "a100-80gb"), result_set.of_records(grids.records(grids.experiment())))
    assert len(found.cells) == 2 * 44
    assert {cell.where["engine"] for cell in found.cells} == {"hf", "hf-static"}
    cell = cell_of(found, "hf", "bf16", 1)
    assert cell.base["throughput_tok_per_s"] == 42.23
    assert cell.ratio == pytest.approx(cell.new["throughput_tok_per_s"] / 42.23)
    assert (cell.verdict, cell.low, cell.p_value) == ("unknown", None, None)
    assert cell_of(found, "hf", "fp32", 1024).verdict == "neither fits"
    edges = {(c.where["engine"], c.where["precision"]): c[-2:] for c in found.columns}
    assert edges["hf", "fp32"] == (896, 896)
    assert edges["hf", "bf16"] == (1792, 1792)
    text = comparison_text.to_markdown(found)
    assert "Significance is unknown" in text
    assert "as published" in text
    other_tokens = grids.experiment(workloads=({"prompt_tokens": 9, "new_tokens": 50},))
    assert compare(result_set.load(A100), result_set.of_records(grids.records(other_tokens))).cells == []
    smaller = grids.records(grids.experiment(**SMALL))
    for known in smaller:
        known["model"] = {"parameters": 51_000_000, "weights_bytes": 1}
    assert compare(result_set.load(A100), result_set.of_records(smaller)).cells == []


def test_the_published_figures_are_columns_of_the_tables():
    records = grids.records(grids.experiment(engines=("hf",)))
    beside = [compare(result_set.load(A100, "a100-80gb"), result_set.of_records(records))]
    text = tables.document(summary.summarise(records), beside)
    throughput = text.split("Throughput (")[1].split("Against")[0].splitlines()
    assert "a100-80gb<br>fp32 | a100-80gb<br>bf16 |" in " ".join(throughput[2].split())
    assert " ".join(throughput[4].split()).endswith("| 45.31 \\| 22.07 | 42.23 \\| 23.68 |")
    assert throughput[-2].split()[-5:] == ["|", "oom", "|", "oom", "|"]
    against = text.split("Against a100-80gb (times its throughput)")[1].split("\n\n")[1].splitlines()
    assert against[0].split() == ["|", "batch_size", "|", "fp32", "|", "bf16", "|"]
    ratio = records[0]["cell"]["batch_size"] * 100 / 45.31 / (sum(records[0]["runs"][0]["samples_s"]) / 5)
    assert against[2].split() == ["|", "1", "|", f"{ratio:.2f}x", "|", against[2].split()[5], "|"]
    assert [part.strip() for part in against[-1].split("|")[1:-1]] == [
        "largest batch",
        "896, was 896",
        "1792, was 1792",
    ]
    latency = text.split("Latency (sec)")[1].split("Time to first")[0]
    assert "| 2.21 " in latency  # 100 / 45.31
    assert "a100" not in text.split("Time to first token")[1]


# -- reading ------------------------------------------------------------------------------------------


def write(folder: Path, records: list[dict]) -> Path:
    for known in records:
        files.write_json(known, folder / make_cell(**known["cell"]).path)
    return folder / "results" / records[0]["cell"]["machine"]


def test_folders_and_summaries_are_read_for_their_samples(tmp_path):
    records = grids.records(grids.experiment(**SMALL), processes=2)
    folder = write(tmp_path, records)
    rows = summary.summarise(records)
    rows.to_csv(folder / "summary.csv", index=False)
    new = result_set.of_records(records)
    for path in (folder, folder / "summary.csv"):
        found = compare(result_set.load(path), new)
        assert found.base == "made-up-gpu"
        assert verdicts(found) == ["same"] * 14
        assert found.judged == 14
    elsewhere = tmp_path / "elsewhere.csv"
    rows.to_csv(elsewhere, index=False)
    found = compare(result_set.load(elsewhere), new)
    assert set(verdicts(found)) == {"unknown"}
    assert [cell.ratio for cell in found.cells] == pytest.approx([1.0] * 14)


def test_a_copied_summary_never_speaks_of_records_made_since(tmp_path):
    """As when results/box/summary.csv is kept as old/box/summary.csv, and box is measured again."""
    records = grids.records(grids.experiment(**SMALL), processes=2)
    rows = summary.summarise(records)
    folder = write(tmp_path, grids.records(grids.experiment(**SMALL), faster=2, processes=2))
    copied = tmp_path / "old" / folder.name / "summary.csv"
    copied.parent.mkdir(parents=True)
    rows.to_csv(copied, index=False)
    found = compare(result_set.load(copied), result_set.load(folder))
    assert set(verdicts(found)) == {"unknown"}
    assert found.cells[0].ratio == pytest.approx(2, rel=0.05)
    # Only some of the records came along: no mixture is made of them.
    write(tmp_path / "some", records[:3])
    rows.to_csv(tmp_path / "some/results" / folder.name / "summary.csv", index=False)
    side_of_some = result_set.load(tmp_path / "some/results" / folder.name / "summary.csv")
    assert "11 of its 14 records are not beside it" in side_of_some.notes[0]
    assert set(verdicts(compare(side_of_some, result_set.load(folder)))) == {"unknown"}


def test_superseded_records_are_left_out_and_broken_ones_named(tmp_path):
    records = grids.records(grids.experiment(**SMALL))
    folder = write(tmp_path, records)
    write(tmp_path, grids.records(grids.experiment(**SMALL), faster=2))
    sizes = [cell.where["batch_size"] for cell in result_set.load(folder).cells]
    assert sizes == [1, 2, 4, 8, 16, 32, 64] * 2
    path = next(folder.rglob("batch-2.json"))
    path.write_text("{")
    with pytest.raises(BaselineError, match=r"batch-2\.json: not JSON"):
        result_set.load(folder)


def test_records_of_several_machines_are_no_side(tmp_path):
    write(tmp_path, grids.records(grids.experiment(**SMALL)))
    write(tmp_path, grids.records(grids.experiment(**SMALL, machine="other")))
    with pytest.raises(BaselineError, match="holds records of made-up-gpu, other; give the folder of one of them"):
        result_set.load(tmp_path / "results")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("precision,batch_size\nfp32,1\n", "has no column outcome, throughput_tok_per_s"),
        ("precision,batch_size,outcome,throughput_tok_per_s\nfp32,1,ok,2\n", "neither a column model nor parameters"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,x,ok,2\n", "row 1: batch_size: 'x' is not allowed"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,ok,\n", "row 1: outcome ok without a throughput"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,OOM,\n", "row 1: outcome: 'OOM' is not allowed; allowed: ok, oom, unsupported"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,ok,nan\n", "row 1: throughput_tok_per_s: 'nan' is not allowed"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,,1,ok,2\n", "row 1: precision is blank"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,ok,2\nm,fp32,1,oom,\n", "row 2: the same cell as in row 1"),
        ("", "has no column"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_named_by_its_rows(tmp_path, text, said):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(BaselineError) as caught:
        result_set.load(path)
    assert said in str(caught.value)
    assert baselines.check(path) == caught.value.problems


def test_what_is_not_there_is_said():
    assert baselines.check(Path("no/such.csv")) == ["no/such.csv: No such file or directory"]


def test_a_comparison_comes_back_from_its_file():
    found = compare(result_set.load(A100), side())
    document = json.loads(json.dumps(found.to_document()))
    again = Comparison.from_document(document)
    assert comparison_text.to_markdown(again) == comparison_text.to_markdown(found)
    with pytest.raises(ValueError, match="version is 99"):
        Comparison.from_document(document | {"version": 99})


# -- the command line ---------------------------------------------------------------------------------


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPO / "scripts/compare.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Records of two runs at the same speed and of one at 90 % of it."""
    speeds = {"base": (1.0, 1), "again": (1.0, 2), "slower": (0.9, 3)}
    return {
        name: write(tmp_path_factory.mktemp(name), grids.records(grids.experiment(**SMALL), faster, 6, seed))
        for name, (faster, seed) in speeds.items()
    }


def test_a_regression_fails_and_noise_does_not(folders, tmp_path):
    done = run(folders["base"], folders["again"], "--fail-on-regression", "5%")
    assert done.returncode == 0, done.stderr
    assert "14 cells in common: 14 same." in done.stdout
    done = run(folders["base"], folders["slower"], "--fail-on-regression", "5%", "--json", tmp_path / "c.json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "compare.py: bloom-1b3 prompt9-new100 hf fp32 batch 1: slower, 0.9" in done.stderr
    assert json.loads((tmp_path / "c.json").read_text())["cells"][0]["verdict"] == "slower"
    assert run(folders["base"], folders["slower"], "--fail-on-regression", "20%").returncode == 0
    assert run(folders["base"], folders["slower"]).returncode == 0


def test_nothing_judged_is_no_pass(folders):
    done = run(A100, folders["base"], "--fail-on-regression", "5%")
    assert done.returncode == 2
    assert "nothing could be judged: 14 cells in common: 14 unknown (one side has no samples)" in done.stderr


def test_one_process_is_no_pass_and_no_regression(tmp_path):
    base = write(tmp_path / "a", grids.records(grids.experiment(**SMALL)))
    new = write(tmp_path / "b", grids.records(grids.experiment(**SMALL), faster=0.5))
    done = run(base, new, "--fail-on-regression", "5%")
    assert done.returncode == 2
    assert "14 perhaps slower (perhaps: a side was measured in one process" in done.stderr


@pytest.mark.parametrize("percent", ["5", "x%", "-1%", "100%"])
def test_a_share_that_is_none_is_named(folders, percent):
    done = run(folders["base"], folders["again"], f"--fail-on-regression={percent}")
    assert done.returncode == 2
    assert "is no percentage such as 5%" in done.stderr


def test_what_cannot_be_compared_is_one_line(tmp_path, folders):
    done = run(folders["base"], tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"compare.py: {tmp_path}: holds no records (batch-N.json); give a folder below results/, or a CSV file\n"
    )
    assert (
        run(tmp_path / "no.csv", folders["base"]).stderr
        == f"compare.py: {tmp_path}/no.csv: No such file or directory\n"
    )


def test_the_page_of_a_comparison_is_safe(folders, tmp_path):
    hostile = "<script>alert(1)</script>"
    done = run(folders["base"], folders["again"], "--base-name", hostile, "--html", tmp_path / "c.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "c.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "script-src &#39;none&#39;" in page
