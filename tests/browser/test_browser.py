"""The report in a real browser: offline, with and without scripts, in both themes, on a phone and on paper."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import (
    BATCH_SIZES,
    BLOOM,
    TEMPLATE,
    grid,
    make_cell,
    make_oom,
    records_of,
    report_page,
    results_of,
    sample_page,
    with_figures,
)
from playwright.sync_api import Browser, Page, sync_playwright
from running import PUBLISHED, REPO

from inference_benchmark.compare import comparing, result_set
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.records.collect import provenance_of
from inference_benchmark.render import choosing
from inference_benchmark.render import report as reports

AXE = REPO / "tests/browser/node_modules/axe-core/axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: As root in a container, and without the connections that Chromium makes for itself.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    missing = [name for name, there in (("Chromium", CHROMIUM), ("axe-core", AXE.exists())) if not there]
    if missing:
        message = f"{' and '.join(missing)} not found; sh envs/install-browser.sh installs what is needed"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The grid of the published table in two engines, with the published figures beside it."""
    experiment = grid()
    base = result_set.load(PUBLISHED, "a100-80gb")
    beside = [comparing.compare(base, result_set.of_records(records_of(experiment)))]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_page([experiment], TEMPLATE, beside))
    return path


@pytest.fixture(scope="module")
def contexts(tmp_path_factory) -> Path:
    """A model with prompts of three lengths, which do not all fit."""
    workloads = (Workload(9, 100), Workload(100, 100), Workload(1000, 100))
    path = tmp_path_factory.mktemp("contexts") / "report.html"
    path.write_text(report_page([grid(workloads=workloads, batch_sizes=(1, 64, 128))], TEMPLATE))
    return path


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> tuple[Path, int]:
    """Two thousand cells of two machines, models and workloads, and how many they are."""
    models = tuple({"name": f"model-{n}", "architecture": BLOOM, "seed": 0} for n in range(2))
    columns = {"engines": ("hf", "hf-static", "ctranslate2"), "precisions": ("fp32", "bf16", "int8", "fp16")}
    workloads = (Workload(9, 100), Workload(512, 100))
    of = [grid(machine=f"box-{n}", models=models, workloads=workloads, **columns) for n in range(2)]
    path = tmp_path_factory.mktemp("several") / "report.html"
    path.write_text(report_page(of, TEMPLATE))
    return path, sum(len(list(each.cells())) for each in of)


class Watched:
    """A page and everything that it asked for or complained of."""

    def __init__(self, browser: Browser, path: Path, **context) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(300_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def through(self) -> None:
        """Scroll to the end, so that every chart comes into view."""
        charts = self.page.locator(".grid .chart")
        for n in range(charts.count()):
            charts.nth(n).scroll_into_view_if_needed()
            charts.nth(n).locator(".vega-embed svg").wait_for()


@pytest.fixture
def opened(browser, report) -> Iterator[Watched]:
    watched = Watched(browser, report)
    yield watched
    watched.context.close()


@pytest.fixture(scope="module")
def alive(browser, report) -> Iterator[Watched]:
    """With every chart alive. Who changes something changes it back."""
    watched = Watched(browser, report, permissions=["clipboard-read", "clipboard-write"])
    watched.through()
    yield watched
    watched.context.close()


def test_every_chart_comes_to_life_and_nothing_is_asked_for_or_complained_of(alive, report):
    assert alive.page.locator(".chart .vega-embed svg").count() == 9
    assert alive.requests == [report.as_uri()]
    assert alive.complaints == []


def test_the_policy_holds_against_what_would_get_in(opened):
    wanted = ["script-src-elem", "img-src", "script-src-attr", "style-src-attr", "connect-src"]
    blocked = opened.page.evaluate(
        """async (wanted) => {
            const blocked = [];
            document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
            document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = 1" }));
            document.body.append(Object.assign(new Image(), { src: "https://example.org/x.png" }));
            document.body.firstElementChild.setAttribute("onclick", "window.ran = 1");
            document.body.firstElementChild.setAttribute("style", "color: red");
            await fetch("https://example.org/").catch(() => 0);
            const due = () => wanted.some((directive) => !blocked.includes(directive));
            for (let n = 0; n < 3000 && due(); n++) await new Promise((done) => setTimeout(done, 100));
            return blocked;
        }""",
        wanted,
    )
    assert set(blocked) >= set(wanted)
    assert opened.page.evaluate("window.ran") is None


def paper(page: Page) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))))[:3]


def test_the_theme_is_the_systems_until_another_is_chosen(browser, report):
    dark = Watched(browser, report, color_scheme="dark")
    assert max(paper(dark.page)) < 60
    button = dark.page.locator("#theme")
    button.click()
    assert button.text_content() == "Theme: light"
    assert min(paper(dark.page)) > 240
    line = "getComputedStyle(document.querySelector('.chart svg text')).fill"
    dark.through()
    on_light = dark.page.evaluate(line)
    button.click()
    assert max(paper(dark.page)) < 60
    assert dark.page.evaluate(line) != on_light
    button.click()
    assert button.text_content() == "Theme: auto"
    dark.context.close()


def lines(page: Page) -> int:
    """How many lines the first chart draws."""
    return page.locator(".chart").first.locator(".mark-line path").count()


def test_a_line_is_switched_off_and_on_in_every_chart(alive):
    toggle = alive.page.locator(".legend button").first
    assert toggle.text_content().strip() == "hf fp32"
    before = lines(alive.page)
    assert before == 8  # two engines, three precisions; two of the baseline
    toggle.focus()
    alive.page.keyboard.press("Enter")
    alive.page.wait_for_function(
        "document.querySelectorAll('.chart')[0].querySelectorAll('.mark-line path').length === 7"
    )
    assert toggle.get_attribute("aria-pressed") == "false"
    assert alive.page.locator(".chart").last.locator(".mark-line path").count() == 5
    toggle.click()
    alive.page.wait_for_function(
        "document.querySelectorAll('.chart')[0].querySelectorAll('.mark-line path').length === 8"
    )
    assert alive.complaints == []


def ticks(page: Page) -> list[str]:
    """What stands at the y axis of the first chart."""
    labels = page.locator(".chart").first.locator(".mark-text.role-axis-label").first
    return labels.locator("text").all_text_contents()


def test_the_scale_is_linear_and_can_be_logarithmic(alive):
    linear = ticks(alive.page)
    assert "0" in linear
    alive.page.locator(".scale").click()
    alive.page.wait_for_function("document.querySelector('.scale').textContent === 'Scale: logarithmic'")
    labels = (
        "document.querySelectorAll('.chart')[0].querySelector('.mark-text.role-axis-label').querySelectorAll('text')"
    )
    alive.page.wait_for_function(f"[...{labels}].every(each => each.textContent !== '0')")
    alive.page.locator(".scale").click()
    alive.page.wait_for_function(f"[...{labels}].some(each => each.textContent === '0')")
    assert ticks(alive.page) == linear
    assert alive.complaints == []


def test_a_point_tells_every_figure_of_its_cell_and_the_evidence(alive):
    alive.page.locator(".chart").first.scroll_into_view_if_needed()
    # hf-static bf16 at its largest batch, above all others: 14, 21, 22, 14 points of other lines come before its own.
    alive.page.locator(".chart").first.locator(".mark-symbol path").nth(14 + 21 + 22 + 14 + 20).hover()
    tip = alive.page.locator("#tooltip")
    tip.wait_for()
    text = tip.inner_text()
    for wanted in (
        "hf-static bf16 batch 1792: ok",
        "tokens/sec ±",
        "median",
        "share of the limit",
        "peak memory",
        "joules/token",
        "calls in 1 process",
        "results/made-up-gpu/",
    ):
        assert wanted in text, wanted


def column(page: Page, n: int) -> list[str]:
    return page.locator(".block table.figures").first.locator(f"tbody tr > :nth-child({n})").all_text_contents()


def test_tables_are_sorted_by_number_with_what_has_none_at_the_end(alive):
    sort = alive.page.locator(".block table.figures").first.locator("thead button").nth(1)
    by_batch_size = column(alive.page, 1)
    sort.click()
    first = [float(text.split()[0]) for text in column(alive.page, 2) if text != "oom"]
    assert first == sorted(first)
    assert column(alive.page, 2)[-8:] == ["oom"] * 8
    sort.click()
    assert alive.page.locator("th[aria-sort=descending]").count() == 1
    first = [float(text.split()[0]) for text in column(alive.page, 2) if text != "oom"]
    assert first == sorted(first, reverse=True)
    assert column(alive.page, 2)[-8:] == ["oom"] * 8
    alive.page.locator(".block table.figures").first.locator("thead button").first.click()
    assert column(alive.page, 1) == by_batch_size


def test_a_table_is_copied_as_markdown_and_saved_as_csv(alive):
    block = alive.page.locator(".block").first
    block.get_by_text("Copy as Markdown").click()
    copied = alive.page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0].startswith("| batch size | hf fp32 | hf bf16 | hf int8 LLM.int8() |")
    assert copied[1].startswith("| :---: |")
    assert copied[2].startswith("| 1 | ")
    assert " \\| " in copied[2]
    with alive.page.expect_download() as download:
        block.get_by_text("Download CSV").click()
    assert download.value.suggested_filename == "throughput.csv"
    rows = list(csv.reader(io.StringIO(Path(download.value.path()).read_text())))
    assert len(rows) == len(BATCH_SIZES) + 1
    assert len({len(row) for row in rows}) == 1
    with alive.page.expect_download() as download:
        alive.page.locator("#all-csv").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert len(rows) == 132
    assert rows[0]["record"].endswith("hf/fp32/batch-1.json")


def to_choose_from():
    """The grid in three rounds, with cells above their limit, unknown intervals, and cells without a figure, such as
    the quality of hf-static."""
    of = grid(batch_sizes=BATCH_SIZES[::2])
    records = records_of(of, rounds=3)
    results = []
    for each in results_of(records):
        column, figures = each.column, {}
        if (column.engine, column.precision) == ("hf-static", "bf16") and each.batch_size > 1500:
            each = replace(each, flags=("above-limit",))
        if each.batch_size == 384:
            figures |= {name: each.value(name) for name in ("throughput_tok_per_s", "first_token_s")}
        if each.batch_size == 896:
            figures |= {"decode_tok_per_s": None, "time_per_output_token_s": None}
        if column.engine == "hf":
            kl = {"fp32": (0, 0, 0), "bf16": (0.0014, 0.0012, 0.0016)}.get(column.precision, (0.024, 0.02, 0.028))
            ratio = [1 + value for value in kl]
            figures |= {"text_kl_mean_nats": kl, "text_perplexity_ratio": ratio, "token_agreement": 1 - 10 * kl[0]}
            figures["energy_per_token_j"] = None
        results.append(with_figures(each, **figures))
    return results, provenance_of(of, records)


def words_and_numbers(texts) -> tuple[str, list[float]]:
    """Apart, because the page rounds to four digits what it has with six: the fourth may differ by one."""
    number, text = r"\d[\d,]*(?:\.\d+)?", json.dumps(texts, indent=1)
    return re.sub(number, "#", text), [float(each.replace(",", "")) for each in re.findall(number, text)]


#: What a reader may ask for: the goal, the first of the limits, price per hour and grams of CO2 per kWh.
QUESTIONS = [
    ("throughput", (None, None, None), None, None),
    ("throughput", (25, None, None), 2.5, None),
    ("throughput", (None, 0.1, 30), 2.5, 400),
    ("throughput", (16.7, 0.031, None), None, 400),
    ("throughput", (2, 0.001, 4), 1, 1),
    ("throughput", (0.001, None, None), None, None),
    ("throughput", (62.1, None, None), 1, 1),
    ("latency", (None, None, 10), None, None),
    ("first-token", (20, None, None), None, None),
    ("decode", (20, None, None), None, None),
    ("time-per-output-token", (None, None, None), None, None),
    ("energy", (None, 1, None), None, 380),
    ("memory", (50, 2, None), 30, None),
    ("throughput", (None, None, None, 0.0015), None, None),
    ("throughput", (None, None, None, None, 1.02), None, None),
    ("latency", (None, None, None, 0.0001, 1.01), None, None),
]


def test_the_page_chooses_what_python_chooses_in_the_same_words(browser, tmp_path):
    results, provenance = to_choose_from()
    base = result_set.load(PUBLISHED, "a100-80gb")
    beside = [comparing.compare(base, result_set.of_records(records_of(grid())))]
    path = tmp_path / "choose.html"
    path.write_text(reports.render(results, [provenance], TEMPLATE, beside))
    watched = Watched(browser, path)
    panel = watched.page.locator(".choose")
    panel.locator("summary").click()
    panel.locator("table").wait_for()
    seen = set()
    for goal, limits, price, carbon in QUESTIONS:
        figure = choosing.GOALS[goal]
        panel.locator(".goal").select_option(label=figure.title.lower())
        limits += (None,) * (len(choosing.BOUNDS) - len(limits))
        inputs = [*panel.locator(".limit").all(), panel.locator(".price"), panel.locator(".carbon")]
        for box, value in zip(inputs, (*limits, price, carbon), strict=True):
            box.fill("" if value is None else str(value))
        given = {option: most for option, most in zip(choosing.BOUNDS, limits, strict=True) if most}
        question = choosing.Question(figure, given, price, carbon)
        expected = choosing.answer(results, question)
        shown = panel.locator(".answer").evaluate(
            """answer => [[...answer.querySelectorAll('p')].map(line => line.textContent),
                [...answer.querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.textContent))]"""
        )
        table = [expected.headings, *expected.cells] if expected.cells else []
        words, numbers = words_and_numbers([expected.lines, table])
        assert words_and_numbers(shown) == (words, pytest.approx(numbers, rel=1e-3)), question
        seen |= {cells[0] for cells in expected.cells} | {line.split(" ")[0] for line in expected.lines}
    # Every kind of answer was asked for.
    assert seen == {"best", "as good", "perhaps", "No", "Nearest:", "At", "Cells"}
    assert watched.complaints == []
    watched.context.close()


def test_without_scripts_everything_is_there_but_the_buttons(browser, report):
    plain = Watched(browser, report, java_script_enabled=False)
    assert plain.page.locator(".chart > svg").count() == 9
    assert plain.page.locator("button").count() == 0
    assert plain.page.locator(".legend li").count() == 8
    assert not plain.page.locator(".choose").is_visible()
    box = plain.page.locator(".chart > svg").first.bounding_box()
    assert box["width"] > 400
    assert plain.page.locator(".block table.figures tbody tr").count() > 100
    assert plain.requests == [report.as_uri()]
    plain.context.close()


#: The texts of each chart with their boxes, and the box of the chart; not the signs in lanes, which may touch.
TEXTS = """[...document.querySelectorAll('.chart svg')].map(svg => [svg.getBoundingClientRect().toJSON(),
    [...svg.querySelectorAll('text')].filter(text => text.textContent.length > 1 && getComputedStyle(text).opacity > 0)
        .map(text => [text.textContent, text.getBoundingClientRect().toJSON()])])"""


@pytest.fixture(scope="module")
def long_names(tmp_path_factory) -> Path:
    """Long names of lanes and long numbers at an axis."""
    of = grid(batch_sizes=BATCH_SIZES[::3])
    records = records_of(of, faster=0.0002)
    base = result_set.load(PUBLISHED, "the-a100-80gb-of-the-other-cluster")
    path = tmp_path_factory.mktemp("long") / "long.html"
    beside = [comparing.compare(base, result_set.of_records(records))]
    path.write_text(reports.render(results_of(records), [provenance_of(of, records)], TEMPLATE, beside))
    return path


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_texts_of_a_chart_are_inside_it_and_apart(browser, long_names, scripts, width):
    """Without scripts in a font as wide as readers may have."""
    size = {"width": width, "height": 900}
    watched = Watched(browser, long_names, java_script_enabled=scripts, viewport=size, bypass_csp=True)
    if scripts:
        watched.through()
    else:
        wide = "document.head.appendChild(document.createElement('style')).textContent = '.chart text { letter-spacing: .04em; }'"
        watched.page.evaluate(wide)
    charts = watched.page.evaluate(TEXTS)
    assert len(charts) == 9
    assert any(text.startswith("the-a100") for _, texts in charts for text, _ in texts)
    for chart, texts in charts:
        outside = [text for text, box in texts if box["left"] < chart["left"] or box["right"] > chart["right"]]
        assert not outside
        for (one, a), (other, b) in itertools.combinations(texts, 2):
            apart = (
                a["right"] <= b["left"] or b["right"] <= a["left"] or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
            )
            assert apart, f"{one} is over {other}"
    watched.context.close()


def test_no_chart_stands_alone_in_its_row(browser, alive, tmp_path):
    odd = tmp_path / "odd.html"
    odd.write_text(sample_page(records_of(grid()), machine="made-up-gpu"))  # nobody measured a limit
    boxes = "[...document.querySelectorAll('.charts > *')].map(each => each.getBoundingClientRect().toJSON())"
    other = Watched(browser, odd)
    for page, count in ((alive.page, 9), (other.page, 8)):
        *charts, last, key = page.evaluate(boxes)
        assert len(charts) + 1 == count
        beside = key if count % 2 else charts[-1]
        assert beside["top"] < last["bottom"]
        assert beside["bottom"] > last["top"]
        assert abs(beside["left"] - last["left"]) > last["width"]
    other.context.close()


def test_it_prints(opened, tmp_path):
    folded = "[...document.querySelectorAll('details:not(.choose)')].filter(fold => !fold.open).length"
    assert opened.page.evaluate(folded) == 1  # eighteen cells without a figure
    pdf = opened.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type ?/Page\b", pdf)) in range(4, 30)
    assert opened.page.evaluate(folded) == 0
    opened.page.emulate_media(media="print")
    assert min(paper(opened.page)) == 255
    assert not opened.page.locator("#theme").is_visible()
    assert not opened.page.locator(".tools").first.is_visible()


def shown(page: Page) -> list[str]:
    """The batch sizes over the prompt length whose charts can be seen."""
    views = page.locator("#context-0 .view")
    return [
        views.nth(n).locator("label").inner_text().strip()
        for n in range(views.count())
        if views.nth(n).locator(".charts").is_visible()
    ]


@pytest.mark.parametrize("scripts", [True, False])
def test_charts_over_the_prompt_length_switch_by_batch_size_with_and_without_scripts(browser, contexts, scripts):
    watched = Watched(browser, contexts, java_script_enabled=scripts)
    page = watched.page
    assert shown(page) == ["128"]
    assert page.locator("#context-0 .chart > svg").count() == 3 * 7
    page.locator("#context-0 .view label").nth(1).click()
    assert shown(page) == ["64"]
    page.keyboard.press("ArrowLeft")
    assert shown(page) == ["1"]
    assert watched.complaints == []
    watched.context.close()


def test_on_paper_charts_of_every_batch_size_are_there_with_their_batch_size(browser, contexts):
    watched = Watched(browser, contexts)
    watched.page.emulate_media(media="print")
    assert shown(watched.page) == ["1", "64", "128"]
    before = "getComputedStyle(document.querySelector('#context-0 .view label'), '::before').content"
    assert watched.page.evaluate(before) == '"Batch size "'
    watched.context.close()


@pytest.mark.parametrize("of", ["report", "contexts"])
def test_on_a_phone_only_charts_and_tables_scroll_sideways(browser, request, of):
    page = request.getfixturevalue(of)
    phone = Watched(browser, page, viewport={"width": 390, "height": 844}, has_touch=True)
    phone.through()
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    scrolls = "[...document.querySelectorAll('.chart')].filter(c => c.clientWidth).every(c => c.scrollWidth >= c.clientWidth && getComputedStyle(c).overflowX === 'auto')"
    assert phone.page.evaluate(scrolls)
    phone.context.close()


@pytest.mark.parametrize("of", ["report", "contexts"])
def test_axe_has_nothing_serious_to_say(browser, request, of):
    # The rules are put in from outside, which the page's own policy rightly forbids.
    watched = Watched(browser, request.getfixturevalue(of), color_scheme="light", bypass_csp=True)
    watched.through()
    watched.page.add_script_tag(path=AXE)
    # In dark, those that depend on colours.
    for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast", "link-in-text-block"]})):
        watched.page.emulate_media(color_scheme=scheme)
        assert (min(paper(watched.page)) > 240) == (scheme == "light")
        violations = watched.page.evaluate("rules => axe.run(rules)", rules)["violations"]
        grave = {
            each["id"]: [node["html"][:200] for node in each["nodes"]][:3]
            for each in violations
            if each["impact"] in ("serious", "critical")
        }
        assert grave == {}, scheme
    watched.context.close()


def test_hostile_names_run_nothing(browser, tmp_path):
    hostile = "</script><img src=x onerror=window.ran=1><script>window.ran=1</script>"
    of = grid(
        batch_sizes=(1, 2),
        precisions=("fp32",),
        engines=("hf",),
        models=({"name": hostile, "architecture": {}, "seed": 0},),
    )
    page = tmp_path / "hostile.html"
    page.write_text(report_page([of], TEMPLATE, notes=[hostile]))
    watched = Watched(browser, page)
    watched.through()
    assert watched.page.evaluate("window.ran") is None
    assert watched.complaints == []
    assert watched.page.locator("img").count() == 0
    assert hostile in watched.page.locator("h2").first.text_content()
    watched.context.close()


def test_sixty_six_cells_of_two_engines_are_under_two_megabytes(report):
    assert report.stat().st_size < 2e6


def test_two_thousand_cells_are_under_twenty_megabytes_and_stay_usable(browser, several):
    path, cells = several
    assert cells > 2000
    assert path.stat().st_size < 20e6
    watched = Watched(browser, path)
    assert watched.page.locator("nav p a").count() == 4
    links = watched.page.locator("nav tbody a")
    assert links.count() == 8
    links.last.click()
    last = watched.page.locator(".grid[id^=grid]").last
    assert "model-1" in last.locator("h2").text_content()
    last.locator(".chart .vega-embed svg").first.wait_for()
    assert watched.page.locator(".vega-embed").count() < 60  # those far away are left alone
    last.locator(".legend button").first.click()
    assert watched.complaints == []
    watched.context.close()


def test_a_page_of_nothing_but_oom_still_opens(browser, tmp_path):
    records = [make_oom(make_cell(batch_size=b)) for b in (1, 2)]
    path = tmp_path / "oom.html"
    path.write_text(sample_page(records))
    watched = Watched(browser, path)
    watched.through()
    assert "Nothing was measured here" in watched.page.content()
    assert watched.complaints == []
    watched.context.close()
