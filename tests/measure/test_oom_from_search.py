"""Cells that a search for the largest batch found not to fit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from made_up import make_cell
from running import REPO, read_record, run_study

from inference_benchmark.experiment.studies import ColumnStudy


def test_a_cell_beyond_the_limit_is_written_at_once_without_torch(tmp_path):
    cell = make_cell(memory_limit_bytes=300_000_000)
    study = ColumnStudy.of("max-batch", cell)
    search = run_study(study, tmp_path / study.path)

    def measured(batch_size: int, **changes) -> tuple[dict, str]:
        subject, output = replace(cell, batch_size=batch_size, **changes), tmp_path / f"{batch_size}.json"
        command = [sys.executable, "-X", "importtime", str(REPO / "scripts/measure.py"), "--subject", subject.to_json()]
        done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return read_record(output, subject), done.stderr

    record, printed = measured(167)
    assert (record["outcome"], record["runs"]) == ("oom", [])
    assert record["reason"]["phase"] == "max-batch"
    assert record["reason"]["message"].startswith("not measured: 166 fit and 167 do not; there: 300200000 bytes wanted")
    assert record["reason"]["evidence"]["search"] == study.path
    assert record["reason"]["evidence"]["try"]["batch_size"] == 167
    assert record["device"] == search.device
    assert "| torch" not in printed
    assert "oom, as the search for the largest batch showed" in printed
    assert measured(166)[0]["runs"], "below the edge it is measured as usual"
    # Another limit is another question: the search is named and not used.
    record, printed = measured(168, memory_limit_bytes=310_000_000)
    assert record["outcome"] == "ok"
    assert f"{study.path}: not used: measured under another configuration: memory_limit_bytes was 300000000" in printed
