"""A page that is safe and needs no network."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from dataclasses import replace

import pytest
from made_up import (
    DRIFTS,
    as_config,
    epyc_ceilings,
    epyc_record,
    make_cell,
    make_record,
    make_yardstick,
    sample_page,
    sample_records,
)

from inference_benchmark.records import machine_speed
from inference_benchmark.records.parts import Note
from inference_benchmark.records.results import cell_results
from inference_benchmark.render import report
from inference_benchmark.render.charts import CHARTS


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_asks_for_nothing_and_forbids_itself_to():
    text = sample_page(sample_records())
    tags = Tags(text).tags
    assert not {tag for tag, _ in tags} & {"link", "img", "iframe", "object", "base", "form"}
    links = [value for _, attrs in tags for key, value in attrs.items() if key in ("src", "href", "action")]
    assert all(link.startswith("#") for link in links)
    assert not [attrs for _, attrs in tags if any(key.startswith("on") or key == "style" for key in attrs)]
    policy = next(attrs["content"] for tag, attrs in tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_scripts_and_style_are_those_whose_digests_the_policy_names():
    text = sample_page(sample_records())
    policy = Tags(text).tags[[tag for tag, _ in Tags(text).tags].index("title") - 1][1]["content"]
    parts = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", text, re.DOTALL)
    assert len(parts) == 4
    for part in parts:
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_axis_of_short_times_has_different_numbers():
    records = [make_record(make_cell(batch_size=size), samples_s=[0.0016 * size] * 3) for size in (1, 2)]
    chart = re.search(r'data-chart="latency"><svg.*?</svg>', sample_page(records), re.DOTALL)[0]
    numbers = re.findall(r"<text[^>]*>(0\.\d+)<", chart)
    assert "0.0020" in numbers
    assert len(set(numbers)) == len(numbers) > 4


def test_every_chart_is_there_without_scripts_and_has_its_definition_for_them():
    text = sample_page(sample_records())
    holders = re.findall(r'data-chart="([\w-]+)"><svg', text)
    # These records have no limits, no energy and no quality to draw.
    assert holders == [chart.name for chart in CHARTS if chart.name not in ("limit", "energy", "quality")]
    data = json.loads(re.search(r'id="grid-0-data">(.*?)</script>', text)[1])
    assert list(data["specs"]) == holders
    assert all("datasets" not in spec or "cells" not in spec["datasets"] for spec in data["specs"].values())
    assert [point["outcome"] for point in data["points"]] == ["ok", "oom", "ok", "n/a"]
    assert data["points"][0]["tooltip"]["samples"].startswith("3 calls in 1 process; median 0.5 sec")


def test_the_page_shows_figures_endings_and_origin():
    text = sample_page(sample_records())
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


def test_the_tile_of_reliability_says_what_to_do():
    def tile(*reasons: str, **provenance) -> str:
        stability = replace(DRIFTS, reasons=tuple(Note(name, "why") for name in reasons))
        text = sample_page([make_record(stability=stability)], **provenance)
        tile = re.search(r'<li><span class="name">reliable.*?</li>', text, re.DOTALL)[0]
        assert bool(reasons) == ('href="#grid-0-warned"' in tile) == ('id="grid-0-warned"' in text)
        return " ".join(re.sub("<.*?>", "", tile).split())

    above = {"cells": 2, "of": 25, "rounds": 14, "seconds": 180.0}
    advice = "measurement.rounds: {least: 1, most: 14} would narrow them, in about 3 min 00 s."
    assert tile("interval", "spread", above_target=above).endswith(advice)
    assert "rounds" not in tile("drift")
    assert "no warnings" in tile()


def test_the_page_shows_the_speed_of_the_machine_over_the_run():
    quick, slow = make_yardstick(0.2, 0.25), make_yardstick(0.4, 0.25)
    records = [
        make_record(
            make_cell(batch_size=size),
            yardstick={"before": quick, "after": after},
            started_at=f"2026-01-01T0{size}:00:00.000+00:00",
            ended_at=f"2026-01-01T0{size}:30:00.000+00:00",
        )
        for size, after in ((1, quick), (2, slow))
    ]
    text = sample_page(records, machine_speed=machine_speed.facts(records))
    part = text.split("<h2>Conditions and provenance</h2>")[1]
    figure = re.search("<figure>.*?</figure>", part, re.DOTALL)[0]
    assert "median 50 GB/s and 400 Gflop/s" in figure
    assert "20% below" in figure
    # Two lines, and a point where a kernel was slower.
    chart = figure.split("<svg")[1]
    lines = re.findall(r'<path d="(M[^"]*)" stroke="var\(--series-[01]\)"', chart)
    assert [line.count("L") for line in lines] == [3, 3]
    assert len(re.findall(r'd="M[^"]*A[^"]*" fill="var\(--series-[01]\)"', chart)) == 1
    assert {"memory", "arithmetic", "% of the median", "time (UTC)"} <= set(re.findall(r">([^<>]+)</text>", chart))
    assert {"01:00", "01:30", "02:00"} <= set(re.findall(r">([^<>]+)</text>", chart))  # whatever the zone of the reader
    assert "machine-slower" in text.split("Cells with warnings", 1)[1].split("</table>")[0]
    # Records without a yardstick have no chart.
    assert "<figure>" not in sample_page(sample_records()).split("<h2>Conditions and provenance</h2>")[1]


def test_hostile_names_stay_text():
    hostile = "<script>alert(1)</script>\"'&"
    records = sample_records(name=hostile)
    device = {"kind": "cpu", "name": hostile}
    records = [replace(each, cell=replace(each.cell, machine=hostile), device=device) for each in records]
    records = [
        each if each.reason is None else replace(each, reason=replace(each.reason, message=hostile)) for each in records
    ]
    text = sample_page(records, machine=hostile)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert sum(tag == "script" for tag, _ in Tags(text).tags) == 6  # Vega, two of ours, three blocks of data
    assert json.loads(re.search(r'id="summary">(.*?)</script>', text)[1]).count("<script>alert(1)</script>") > 3


def test_no_best_figure_is_of_a_cell_faster_than_its_machine_can_be():
    records = [make_record(make_cell(batch_size=size), samples_s=[0.1 * size] * 3) for size in (1, 2, 4)]
    results = cell_results(records)
    results[0] = replace(results[0], flags=("above-limit",))

    by_name = {tile["name"]: tile["of"] for tile in report.best(results, 0.1)}
    assert by_name["lowest latency"].endswith("batch 2"), by_name


def test_a_cell_above_its_limit_has_no_share_anywhere_and_is_no_headline():
    """Batch 2 is faster than its machine can be; batch 1 is not."""
    ceilings = epyc_ceilings()
    records = [epyc_record(31.0, 31.0, batch_size=1), epyc_record(80.0, 80.0, batch_size=2)]
    studies = {ceilings.study.path: ceilings}
    results = cell_results(records, studies)
    tiles = report.best(results, 0.1)
    assert {tile["name"] for tile in tiles} > {"best throughput", "nearest to the limit"}
    assert all(tile["of"].endswith("batch 1") for tile in tiles), tiles
    assert next(tile["value"] for tile in tiles if tile["name"] == "nearest to the limit") == "46.3"

    page = sample_page(records, studies)
    data = json.loads(re.search(r'id="grid-0-data">(.*?)</script>', page)[1])
    assert ["whole_limit_share" in point for point in data["points"]] == [True, False]
    assert [point["tooltip"]["share of the limit"] for point in data["points"]] == [
        "46.3% (arithmetic) ±0.0%",
        "limit unknown",
    ]
    assert "? | ? | ?‡" in page
    assert "limit unknown: prefill took" in page
    assert not [share for share in re.findall(r"([\d.]+)% [am]\b", page) if float(share) > 100]
    column = re.search(r"Best of each column.*?</table>", page, re.DOTALL)[0]
    assert re.findall(r"<td>([\d.,]+)</td><td>(\d+)</td>", column)[0][1] == "1"

    # Where no cell has a limit, the table says so all the same.
    assert "? | ? | ?‡" in sample_page(records[1:], studies)


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        (1, ["in 1 round, each", "The intervals only say how well one process repeats itself"]),
        (3, ["in 3 rounds, one after the other", "The intervals include the differences between processes.</p>"]),
        ("3 or more", ["in 3 or more rounds", "The intervals include the differences between processes.</p>"]),
        ("1 or more", ["in 1 or more rounds", "The intervals of cells with several rounds include", "; those of others only say"]),
    ],
)  # fmt: skip
def test_the_page_says_what_its_intervals_include(rounds, said):
    page = sample_page(sample_records(), measurement={**as_config(), "rounds": rounds})
    for text in said:
        assert text in page


def test_the_page_says_what_its_limits_rest_on():
    ceilings, records = epyc_ceilings(), [epyc_record(31.0, 31.0, batch_size=1)]
    said = "Limits rest on ceilings with warnings (cpu-contended)"
    assert said not in sample_page(records, {ceilings.study.path: ceilings})
    disturbed = replace(ceilings, flags=(Note("cpu-contended", "others used the CPUs"),))
    again = "snakemake --forcerun results/box/ceilings.json measures them again."
    assert f"{said}; {again}" in sample_page(records, {ceilings.study.path: disturbed})


def test_chance_makes_no_best_figure():
    """Batch 1 is the quickest in the mean of rounds that do not agree."""
    means_s = {1: (0.02, 0.1, 0.2), 2: (0.1, 0.1, 0.1), 4: (0.4, 0.4, 0.4)}
    records = [
        make_record(make_cell(batch_size=size, round=number), samples_s=[seconds] * 3)
        for size, of in means_s.items()
        for number, seconds in enumerate(of, start=1)
    ]
    tile = next(tile for tile in report.best(cell_results(records), 0.1) if tile["name"] == "lowest latency")
    assert (tile["of"], tile["width"]) == ("fp32 batch 2", " ±0.0%"), tile
    (tile,) = (tile for tile in report.best(cell_results(records[:3]), 0.1) if tile["name"] == "lowest latency")
    assert tile["width"].startswith(" ±"), "the only cell is the best, and says how uncertain it is"
