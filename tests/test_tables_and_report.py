"""Golden tables from the published figures, and a page that is safe and needs no network."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from pathlib import Path

import pandas
import pytest
from test_record import DRIFTS, OOM, SHARED, make_record

from conftest import MEASUREMENT, REPO, make_cell
from inference_benchmark import markdown
from inference_benchmark.analysis import metrics
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.records import comparability, summary
from inference_benchmark.render import cell_texts, report, tables

DATA = Path(__file__).parent / "data"


def published_summary() -> pandas.DataFrame:
    """The A100 80GB figures as a summary. They obey seconds = batch x 100 / throughput; int8 was never filled."""
    figures = pandas.read_csv(REPO / "reference/bloom_a100_80gb.csv", comment="#")
    rows = []
    for _, row in figures.iterrows():
        values = {"model": "bloom-1b3", "workload": "prompt9-new100", "engine": "hf", "precision": row["precision"]}
        values |= {"batch_size": row["batch_size"], "outcome": row["outcome"]}
        if row["outcome"] == "ok":
            seconds = row["batch_size"] * 100 / row["throughput_tok_per_s"]
            throughput = Estimate(seconds).per(row["batch_size"] * 100).value
            values |= {"throughput_tok_per_s": throughput, "ms_per_token": metrics.ms_per_token(throughput)}
            values |= {"latency_s": seconds}
        rows.append(values)
    int8 = [{**r, "precision": "int8", "outcome": "missing"} for r in rows if r["precision"] == "fp32"]
    return pandas.DataFrame(rows + int8, columns=summary.COLUMNS)


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        (cell_texts.throughput_text, "expected_throughput_table.md"),
        (cell_texts.latency_text, "expected_latency_table.md"),
    ],
)
def test_the_published_tables_come_out_byte_for_byte(show, expected):
    assert markdown.table(*tables.table(published_summary(), show)) == (DATA / expected).read_text()


def sample_records(**model):
    cell = {"model": {"name": "m", "architecture": {}, "seed": 0, **model}}
    return [
        make_record(make_cell(batch_size=1, engine="hf", **cell)),
        make_record(make_cell(batch_size=2, engine="hf", **cell), outcome="oom", samples_s=[], reason=OOM),
        make_record(make_cell(batch_size=1, engine="fake", precision="int8", **cell)),
        make_record(
            make_cell(batch_size=2, engine="fake", precision="int8", **cell),
            outcome="unsupported",
            samples_s=[],
            reason=OOM,
        ),
    ]


def test_engines_are_named_where_there_are_several():
    rows = summary.summarise(sample_records())
    headings, cells = tables.table(rows, cell_texts.latency_text)
    assert headings == ["batch_size", "hf<br>fp32", "fake<br>int8"]
    assert cells == [["1", "0.50", "0.50"], ["2", "oom", "n/a"]]
    assert "no measurement" in tables.document(rows)
    assert "`oom`: out of memory." in tables.document(rows)


def page(records, **provenance) -> str:
    rows = summary.summarise(records)
    facts = {
        "machine": "box",
        "device": "cpu",
        "measured_from": "2026-01-01T00:00:00",
        "measured_to": "2026-01-02T00:00:00",
        "measurement": MEASUREMENT,
        "memory_limit_bytes": 420_000_000,
        "models": [records[0]["cell"]["model"]],
        "facts": comparability.all_facts(records),
    }
    return report.render(rows, [facts | provenance], REPO / "report/report.html.j2")


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_asks_for_nothing_and_forbids_itself_to():
    text = page(sample_records())
    tags = Tags(text).found
    assert not {tag for tag, _ in tags} & {"link", "img", "iframe", "object", "base", "form"}
    links = [value for _, attrs in tags for key, value in attrs.items() if key in ("src", "href", "action")]
    assert all(link.startswith("#") for link in links)
    assert not [attrs for _, attrs in tags if any(key.startswith("on") or key == "style" for key in attrs)]
    policy = next(attrs["content"] for tag, attrs in tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_scripts_and_style_are_those_whose_digests_the_policy_names():
    text = page(sample_records())
    policy = Tags(text).found[[tag for tag, _ in Tags(text).found].index("title") - 1][1]["content"]
    parts = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", text, re.DOTALL)
    assert len(parts) == 3
    for part in parts:
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_every_chart_is_there_without_scripts_and_has_its_definition_for_them():
    text = page(sample_records())
    holders = re.findall(r'data-chart="([\w-]+)"><svg', text)
    # Of memory, limits and energy these records know nothing that could be drawn, but for memory.
    assert holders == ["throughput", "latency", "frontier", "memory", "first-token", "decode"]
    data = json.loads(re.search(r'id="grid-0-data">(.*?)</script>', text)[1])
    assert list(data["specs"]) == holders
    assert all("datasets" not in spec or "cells" not in spec["datasets"] for spec in data["specs"].values())
    assert [point["outcome"] for point in data["points"]] == ["ok", "oom", "ok", "n/a"]
    assert data["points"][0]["tip"]["samples"] == "3 calls in 1 process"


def test_the_page_shows_figures_endings_and_origin():
    text = page(sample_records())
    for wanted in (
        "16.00 | 62.50",
        ">oom<",
        ">n/a<",
        "limited to 420 MB",
        "torch 2.13.0",
        "Some CPU",
        "c" * 10,
        "no measurement",
    ):
        assert wanted in text, wanted


def test_hostile_names_stay_text():
    hostile = "<script>alert(1)</script>\"'&"
    records = sample_records(name=hostile)
    for item in records:
        item["cell"]["machine"] = hostile
        item["device"] = {"kind": "cpu", "name": hostile}
        if item["reason"]:
            item["reason"] = {**item["reason"], "message": hostile}
    text = page(records, machine=hostile)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert sum(tag == "script" for tag, _ in Tags(text).found) == 4  # Vega, ours, two blocks of data
    assert json.loads(re.search(r'id="summary">(.*?)</script>', text)[1]).count("<script>alert(1)</script>") > 3


def test_what_is_to_be_taken_with_care_is_marked_and_explained():
    records = sample_records()
    records[0] |= {"stability": DRIFTS, "flags": SHARED}
    rows = summary.summarise(records)
    text = tables.document(rows)
    assert "16.00 \\| 62.50 ±66.0%†‡" in text
    assert "†: the samples do not repeat well" in text
    assert "‡: measured under conditions to know of" in text
    assert page(records).count("<td>drift, gpu-shared</td><td>slower; 2 others</td>") == 1
    plain = tables.document(summary.summarise(sample_records()))
    assert "†" not in plain
    assert "‡" not in plain


def test_prefill_and_decode_stand_apart_with_their_formulas():
    text = tables.document(summary.summarise(sample_records()))
    # 0.5 s for 8 tokens of which the first took 0.1 s: 0.4 s for 7 more.
    assert "tokens/sec = batch_size x new tokens / latency" in text
    assert "tokens/sec = batch_size x (new tokens - 1) / (latency - TTFT)" in text
    assert "100.0" in text.split("Time to first token")[1].split("Decode")[0]
    assert "17.50 \\| 57.14" in text.split("Decode (")[1]
    assert "Energy" not in text


def test_energy_has_a_table_where_there_is_a_counter():
    energy = {
        "source": "nvml",
        "scope": "GPU board",
        "joules": 48.0,
        "resolution_j": 0.96,
        "seconds": 1.5,
        "update_interval_s": 0.1,
    }
    text = tables.document(summary.summarise([make_record(make_cell(batch_size=2), energy=energy)]))
    assert "1 ± 0.02" in text.split("Energy (joules/token)")[1]  # 48 J for 3 calls of 2 x 8 tokens


def test_the_summary_says_the_same_read_back(tmp_path):
    records = sample_records()
    records[0] |= {"stability": DRIFTS, "flags": SHARED}
    rows = summary.summarise(records)
    rows.to_csv(tmp_path / "s.csv", index=False)
    assert tables.document(summary.read_summary(tmp_path / "s.csv")) == tables.document(rows)


def test_a_machine_where_nothing_was_measured_still_gets_tables_and_page():
    records = [make_record(make_cell(batch_size=b), outcome="oom", samples_s=[], reason=OOM) for b in (1, 2)]
    assert "| 1          | oom  |" in tables.document(summary.summarise(records))
    assert "<svg" in page(records)
