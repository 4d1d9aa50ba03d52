"""Real Snakemake: what docs/extend.md says, done as it says."""

from __future__ import annotations

import re
import textwrap

from running import REPO, REPORT, TABLES, measure_jobs


def code_blocks(heading: str) -> list[str]:
    """The code of a section of docs/extend.md."""
    section = (REPO / "docs/extend.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL)]


def test_a_metric_is_a_formula_and_a_row_and_comes_out_everywhere(measured):
    formula, row = code_blocks("A metric")
    analysis = measured.folder / "scripts/inference_benchmark/analysis"
    with (analysis / "metrics.py").open("a") as file:
        file.write(f"\n\n{formula}")
    figures = (analysis / "figures.py").read_text()
    assert figures.count("*_OTHERS)\n") == 1
    (analysis / "figures.py").write_text(figures.replace("*_OTHERS)\n", f"*_OTHERS, {row})\n"))
    plan = measured.plan()
    assert measure_jobs(plan) == 0
    assert plan["collect"] == 1, "a changed formula makes the summary again"
    measured.run(TABLES, REPORT)
    results = measured.folder / "results/box"
    assert "sequences_per_s,sequences_low_per_s,sequences_high_per_s" in (results / "summary.csv").read_text()
    tables, page = (results / "tables.md").read_text(), (results / "report.html").read_text()
    assert "Sequences (sequences/sec): sequences/sec = batch_size / latency." in tables
    assert re.search(r"^\| 1 +\| 61\.54 ±0\.0% +\|", tables.split("Sequences (")[1], re.MULTILINE)
    assert 'data-chart="sequences"' in page
    assert "<li>Sequences: sequences/sec = batch_size / latency.</li>" in page
    assert '"sequences":"61.54 sequences/sec' in page, "a line of the tooltip"
