"""Tables of figures that cannot be used are named by their rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_benchmark.compare import result_set
from inference_benchmark.experiment import baselines
from inference_benchmark.experiment.baselines import BaselineError


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
