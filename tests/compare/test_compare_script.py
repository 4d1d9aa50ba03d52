"""scripts/compare.py: exit status and messages."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from made_up import SMALL, grid, records_of, write_records
from markdown_reader import shown
from running import PUBLISHED, REPO, script

run = partial(script, "compare")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Records of two runs at the same speed and of one at 90 % of it."""
    speeds = {"base": (1.0, 1), "again": (1.0, 2), "slower": (0.9, 3)}
    return {
        name: write_records(tmp_path_factory.mktemp(name), records_of(grid(**SMALL), faster, 6, seed))
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
    done = run(PUBLISHED, folders["base"], "--fail-on-regression", "5%")
    assert done.returncode == 2
    assert (
        "nothing could be judged: 14 cells in common: 14 unknown. One side has no samples, or too few." in done.stderr
    )


def test_one_process_is_no_pass_and_no_regression(tmp_path):
    base = write_records(tmp_path / "a", records_of(grid(**SMALL)))
    new = write_records(tmp_path / "b", records_of(grid(**SMALL), faster=0.5))
    done = run(base, new, "--fail-on-regression", "5%")
    assert done.returncode == 2
    assert "14 perhaps slower. perhaps: one side was measured in a single process" in done.stderr


@pytest.mark.parametrize("percent", ["5", "x%", "-1%", "100%"])
def test_a_share_that_is_none_is_named(folders, percent):
    done = run(folders["base"], folders["again"], f"--fail-on-regression={percent}")
    assert done.returncode == 2
    assert "is not a percentage such as 5%" in done.stderr


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


ROW = {
    "model": "m", "parameters": "1000", "prompt_tokens": "9", "new_tokens": "50", "engine": "hf", "precision": "fp32",
    "batch_size": "4", "outcome": "ok", "throughput_tok_per_s": "12.5",
}  # fmt: skip


def table(path: Path, *lacking: str, **changes: str) -> Path:
    """A table of one row, without these columns."""
    row = {name: text for name, text in (ROW | changes).items() if name not in lacking}
    path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    return path


@pytest.mark.parametrize(
    ("lacking", "name"),
    [
        ((), "m prompt9-new50 hf fp32 batch 4"),
        (("model",), "1,000 parameters prompt9-new50 hf fp32 batch 4"),
        (("parameters",), "m prompt9-new50 hf fp32 batch 4"),
        (("prompt_tokens",), "m new50 hf fp32 batch 4"),
        (("new_tokens",), "m prompt9 hf fp32 batch 4"),
        (("engine",), "m prompt9-new50 fp32 batch 4"),
        (("model", "prompt_tokens", "new_tokens", "engine"), "1,000 parameters fp32 batch 4"),
    ],
)
def test_a_table_may_lack_columns_on_either_side(tmp_path, lacking, name):
    base, new = table(tmp_path / "base.csv", *lacking), table(tmp_path / "new.csv", *lacking)
    files = ("--markdown", tmp_path / "c.md", "--html", tmp_path / "c.html", "--json", tmp_path / "c.json")
    done = run(base, new, *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"| {name} | unknown " in (tmp_path / "c.md").read_text()
    assert name in (tmp_path / "c.html").read_text()
    # A cell that becomes slower or is only on one side is named the same.
    worse = table(tmp_path / "worse.csv", *lacking, outcome="oom", throughput_tok_per_s="")
    assert f"{name}: fits no longer" in run(base, worse, "--fail-on-regression", "5%").stderr
    other = table(tmp_path / "other.csv", *lacking, batch_size="8")
    assert f"## Only in base\n\n{name}." in run(base, other).stdout  # and exits with 2


@pytest.mark.parametrize(
    ("lacking", "changes", "said"),
    [
        ((), {"model": "n"}, "model is m in base and n in new (new)."),
        ((), {"engine": "x", "batch_size": "8"}, "engine is hf in base and x in new (new); batch_size is 4 in base and 8 in new (new)."),
        (("engine", "prompt_tokens"), {}, "prompt_tokens is 9 in base and not given in new (new); engine is hf in base and not given in new (new)."),
    ],
)  # fmt: skip
def test_sides_without_a_cell_in_common_are_no_comparison(tmp_path, lacking, changes, said):
    base, new = table(tmp_path / "base.csv"), table(tmp_path / "new.csv", *lacking, **changes)
    for options in ([], ["--fail-on-regression", "5%"]):
        done = run(base, new, *options)
        assert (done.returncode, done.stderr) == (
            2,
            f"compare.py: new and base have no cell in common: {said}\n",
        )
        assert "## Only in new" in done.stdout
    done = run(base, new, "--allow-disjoint")
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


def test_values_that_are_on_both_sides_but_never_together_are_no_common_cell(tmp_path):
    lines = ["fp32,1", "bf16,2"], ["fp32,2", "bf16,1", "int8,3", "nf4,4", "fp16,5", "x,6", "y,7"]
    for name, rows in zip(("base", "new"), lines, strict=True):
        text = "".join(f"m,{row},ok,2\n" for row in rows)
        (tmp_path / f"{name}.csv").write_text(f"model,precision,batch_size,outcome,throughput_tok_per_s\n{text}")
    done = run(tmp_path / "base.csv", tmp_path / "new.csv")
    assert "in common: no combination of model, prompts, precision, batch_size is in both." in done.stderr
    other = (tmp_path / "new.csv").read_text().replace("m,", "n,")
    (tmp_path / "new.csv").write_text(other.replace("fp32", "z").replace("bf16", "w"))
    done = run(tmp_path / "base.csv", tmp_path / "new.csv")
    assert "precision is fp32, bf16 in base and z, w, int8, nf4, fp16 and 2 more in new (new)." in done.stderr


def test_cells_without_a_figure_are_the_reason_where_there_is_none(tmp_path):
    oom = table(tmp_path / "oom.csv", outcome="oom", throughput_tok_per_s="")
    done = run(oom, oom, "--fail-on-regression", "5%")
    assert done.returncode == 2
    assert "1 neither fits. No cell has a figure on both sides: throughput (tokens/sec)." in done.stderr


def test_small_figures_and_ratios_keep_their_digits(tmp_path):
    base, new = table(tmp_path / "a.csv"), table(tmp_path / "b.csv", throughput_tok_per_s="0.0041")
    lines = run(base, new).stdout.splitlines()
    assert [" ".join(line.split()) for line in lines if line.startswith("| m ")] == [
        "| m prompt9-new50 hf fp32 | 1 | 0.000328 | 4 | 4 |",
        "| m prompt9-new50 hf fp32 batch 4 | unknown | 0.000328 | | 12.50 | 0.0041 |",
    ]


def test_the_published_figures_are_compared_with_themselves():
    done = run(PUBLISHED, PUBLISHED)
    assert done.returncode == 0, done.stderr
    assert "44 cells in common: 35 unknown, 9 neither fits." in done.stdout
    assert "1,311,535,104 parameters new100 fp32 batch 1 " in done.stdout


def test_names_are_plain_text_in_markdown(tmp_path):
    name = "*m* `c` [l](http://e) <b>x</b> _y_\x1b[2J"
    for path in (tmp_path / "base.csv", tmp_path / "new.csv"):
        table(path, model=name, engine="**e**")
    other = table(tmp_path / "other.csv", model=name, batch_size="8")
    for done in (
        run(tmp_path / "base.csv", tmp_path / "new.csv", "--base-name", name),
        run(tmp_path / "base.csv", other),
    ):
        read, tags = shown(done.stdout)
        assert name.replace("\x1b", "\N{REPLACEMENT CHARACTER}") in read
        assert "**e**" in read
        assert not {"em", "strong", "code", "a", "b"} & set(tags)


@pytest.mark.parametrize(
    ("beside", "missing"),
    [
        (["page.css", "base.html.j2"], "compare.html.j2"),
        (["page.css", "compare.html.j2"], "base.html.j2"),
        (["base.html.j2", "compare.html.j2"], "page.css"),
    ],
)
def test_a_missing_template_is_named_and_so_is_what_it_needs(tmp_path, beside, missing):
    for name in beside:
        shutil.copy(REPO / "report" / name, tmp_path)
    both = table(tmp_path / "t.csv")
    done = run(both, both, "--html", tmp_path / "c.html", "--template", tmp_path / "compare.html.j2")
    assert (done.returncode, done.stderr) == (1, f"compare.py: {tmp_path}/{missing}: No such file or directory\n")
    assert not (tmp_path / "c.html").exists()


def test_the_page_of_a_comparison_is_safe(folders, tmp_path):
    hostile = "<script>alert(1)</script>"
    done = run(folders["base"], folders["again"], "--base-name", hostile, "--html", tmp_path / "c.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "c.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "script-src &#39;none&#39;" in page
