"""Tables of figures that cannot be used are named by their rows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference_benchmark.cli import ProblemsError
from inference_benchmark.compare import result_set
from inference_benchmark.compare.comparing import compare
from inference_benchmark.experiment import baselines


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
        ("model,precision,batch_size,outcome,throughput_tok_per_s\n", "has a header, but no rows"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\n,fp32,1,ok,2\n", "row 1: model and parameters are blank"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,ok,1,234.5\n", "row 1: 6 fields under a header of 5"),
        ('model;precision;batch_size;outcome;throughput_tok_per_s\nm;fp32;1;ok;1,5\n', "row 1: throughput_tok_per_s: '1,5' is not allowed; allowed: a number from 1e-15 to 1e+15, as 1234.5"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,ok,1e-320\n", "row 1: throughput_tok_per_s: '1e-320' is not allowed"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,ok,1e308\n", "row 1: throughput_tok_per_s: '1e308' is not allowed"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,1,ok,inf\n", "row 1: throughput_tok_per_s: 'inf' is not allowed"),
        (f"model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,{'9' * 400},ok,2\n", "row 1: batch_size: '999999999999...9999999999999' is not allowed; allowed: a whole number from 1 to 1e+15"),
        (f"model,precision,batch_size,outcome,throughput_tok_per_s\nm,fp32,{'9' * 5000},ok,2\n", "row 1: batch_size: '999999999999...9999999999999' is not allowed"),
        ("model,parameters,precision,batch_size,outcome,throughput_tok_per_s\nm,1,fp32,1,ok,2\nm,2,fp32,1,ok,3\n", "row 2: the same cell as in row 1"),
        ("model,precision,batch_size,outcome,throughput_tok_per_s\nmod\xe8le,fp32,1,ok,2\n".encode("latin-1"), "line 2: not UTF-8"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_named_by_its_rows(tmp_path, text, said):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProblemsError) as caught:
        result_set.load(path)
    assert said in str(caught.value)
    assert baselines.check(path) == caught.value.problems


def test_what_is_not_there_is_said():
    assert baselines.check(Path("no/such.csv")) == ["no/such.csv: No such file or directory"]


def test_a_pipe_is_no_baseline(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert baselines.check(tmp_path / "pipe.csv") == [f"{tmp_path}/pipe.csv: Not a regular file"]


@pytest.mark.parametrize("extreme", ["1e-15", "1e15"])
def test_the_extremes_of_what_is_allowed_can_be_compared(tmp_path, extreme):
    header = "model,prompt_tokens,new_tokens,precision,batch_size,outcome,throughput_tok_per_s"
    sides = []
    for name, speed in (("base", "1e-15"), ("new", extreme)):
        (tmp_path / f"{name}.csv").write_text(f"{header}\nm,{10**15},{10**15},fp32,{10**15},ok,{speed}\n")
        sides.append(result_set.load(tmp_path / f"{name}.csv"))
    compared = compare(*sides)
    assert compared.cells[0].ratio.value == pytest.approx(float(extreme) / 1e-15)
    assert compared.columns[0].geometric_mean == pytest.approx(float(extreme) / 1e-15)


def test_a_path_that_snakemake_would_not_take_as_it_is_is_named(tmp_path):
    path = tmp_path / "of {x}.csv"
    path.write_text("")
    assert baselines.check(path) == [f"{path} has {{ and }}, which Snakemake takes for a part of a rule; rename it"]
