"""Which cells are the same, and which differences are more than noise."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pandas
import pytest
from made_up import OLD, SMALL, grid, make_oom, make_yardstick, measurement, records_of, small_set
from running import PUBLISHED

from inference_benchmark.analysis.figures import COMPARED
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.compare import result_set
from inference_benchmark.compare import text as comparison_text
from inference_benchmark.compare.comparing import compare
from inference_benchmark.compare.comparison import ComparedCell, Comparison, regressions
from inference_benchmark.compare.result_set import ResultSet
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.records.results import cell_results
from inference_benchmark.render import tables
from inference_benchmark.render.charts import chart_data
from inference_benchmark.results import summary_csv
from inference_benchmark.results.cell_result import CellResult


def cell_of(comparison: Comparison, engine: str, precision: str, batch: int) -> ComparedCell:
    wanted = {"engine": engine, "precision": precision, "batch_size": batch}
    return next(cell for cell in comparison.cells if wanted.items() <= cell.new.key.items())


def result(batch_size: int, throughput: float, whole_s: list[list[float]]) -> CellResult:
    where = {"model": "m", "engine": "hf", "precision": "fp32", "batch_size": batch_size}
    return replace(CellResult.of_key(where, "ok", {"throughput_tok_per_s": throughput}), whole_s=whole_s)


def verdicts(comparison: Comparison) -> list[str]:
    return [cell.verdict for cell in comparison.cells]


def test_the_same_again_is_called_the_same():
    comparison = compare(small_set(seed=1), small_set(seed=2))
    assert verdicts(comparison) == ["same"] * 14
    assert all(
        low < ratio < high and low < 1.02 and high > 0.98
        for ratio, low, high in (cell.ratio for cell in comparison.cells)
    )
    assert regressions(comparison, 0.0) == []


@pytest.mark.parametrize(("faster", "verdict"), [(1.05, "faster"), (0.95, "slower")])
def test_a_planted_difference_is_called_and_its_size_is_in_the_interval(faster, verdict):
    comparison = compare(small_set(seed=1), small_set(seed=2, faster=faster))
    assert verdicts(comparison) == [verdict] * 14
    assert sum(cell.ratio.low < faster < cell.ratio.high for cell in comparison.cells) >= 12  # of 14 intervals at 95 %
    assert [column.geometric_mean for column in comparison.columns] == pytest.approx([faster] * 2, rel=0.01)
    assert comparison.judged == 14


def test_calls_of_one_process_show_perhaps_a_difference():
    comparison = compare(small_set(rounds=1, seed=1), small_set(rounds=1, seed=2, faster=1.5))
    assert verdicts(comparison) == ["perhaps faster"] * 14
    assert (comparison.judged, comparison.single_process) == (0, True)
    slower = compare(small_set(rounds=1, seed=1), small_set(rounds=8, seed=2, faster=0.5))
    assert verdicts(slower) == ["perhaps slower"] * 14
    assert regressions(slower, 0.05) == []
    assert any("in a single process" in line for line in comparison_text.cautions(comparison))
    assert not any(
        "in a single process" in line for line in comparison_text.cautions(compare(small_set(), small_set()))
    )


def test_noise_between_processes_is_not_taken_for_a_difference():
    """Calls agree within 0.1 %, processes within 5 %: by its calls alone any two would differ."""

    def measured(*centres: float) -> ResultSet:
        groups = [[centre, centre * 1.001, centre * 0.999] for centre in centres]
        return ResultSet("x", [result(1, 1 / centres[0], groups)])

    assert verdicts(compare(measured(1.0, 1.05, 0.95), measured(1.04, 0.99, 1.06))) == ["same"]
    assert verdicts(compare(measured(1.0), measured(1.04))) == ["perhaps slower"]


def test_more_cells_ask_for_more_certainty():
    """p = 0.02 for one cell is a difference; among twenty cells of which nothing else differs it is chance."""
    base = [1.0, 1.01, 0.99, 1.0]
    new = [1.022, 1.012, 1.032, 1.006]

    def of(name: str, samples: list[float], n: int) -> ResultSet:
        return ResultSet(name, [result(1, 1.0, [samples]), *(result(b, 1.0, [base]) for b in range(2, n + 1))])

    alone = compare(of("b", base, 1), of("n", new, 1)).cells[0]
    assert 0.01 < alone.p_value < 0.05
    assert alone.verdict == "perhaps slower"
    among = compare(of("b", base, 20), of("n", new, 20)).cells[0]
    assert among.p_value == alone.p_value
    assert among.verdict == "same"


def test_one_sample_a_side_is_not_judged():
    one = ResultSet("x", [result(1, 2.0, [[1.0]])])
    comparison = compare(one, one)
    assert (comparison.cells[0].verdict, comparison.cells[0].ratio) == ("unknown", Estimate(1.0))


def test_first_tokens_are_compared_by_their_own_samples():
    comparison = compare(small_set(seed=1), small_set(seed=2, faster=1.1), COMPARED["first-token"])
    assert comparison.figure == "first_token_s"
    assert verdicts(comparison) == ["faster"] * 14
    assert "time to first token (msec)" in comparison_text.to_markdown(comparison)


def test_edges_of_memory_stand_against_each_other():
    large = {**SMALL, "batch_sizes": (768, 896, 1024), "precisions": ("fp32",)}
    records = records_of(grid(**large), rounds=2)
    lost = [
        *records[:1],
        make_oom(records[1].cell),
        records[2],
    ]
    comparison = compare(result_set.of_records(records), result_set.of_records(lost))
    assert verdicts(comparison) == ["same", "fits no longer", "neither fits"]
    assert comparison.columns[0][-2:] == (896, 768)
    assert [cell.new.batch_size for cell in regressions(comparison, 0.05)] == [896]
    assert verdicts(compare(result_set.of_records(lost), result_set.of_records(records)))[1] == "fits now"


def test_cells_of_one_side_are_listed_by_column():
    comparison = compare(small_set(batch_sizes=(1, 2, 4)), small_set("new", batch_sizes=(2, 4, 8, 16)))
    assert [cell.new.batch_size for cell in comparison.cells] == [2, 4, 2, 4]
    text = comparison_text.to_markdown(comparison)
    assert (
        "bloom-1b3 prompt9-new100 hf fp32 batch 1; bloom-1b3 prompt9-new100 hf bf16 batch 1."
        in text.split("## Only in box")[1]
    )
    assert "hf fp32 batch 8, 16; " in text.split("## Only in new")[1]
    assert compare(small_set(workloads=(Workload(9, 50),)), small_set()).cells == []
    other = ({"name": "other", "architecture": {}, "seed": 0},)
    assert compare(small_set(models=other), small_set()).cells == []
    of_text = small_set(workloads=(Workload(9, 100, "python", "0" * 64),))
    assert compare(of_text, small_set()).cells == compare(small_set(), of_text).cells == []
    other_text = small_set("new", workloads=(Workload(9, 100, "python", "1" * 64),))
    comparison = compare(of_text, other_text)
    assert len(comparison.cells) == 14
    assert [each.fact for each in comparison.differences] == ["prompts of prompt9-new100-text"]


def test_what_differs_is_said_first():
    new = grid(**SMALL, measurement=measurement(seed=7))
    records = [replace(each, software={"torch": "2.99"}) for each in records_of(new, rounds=2)]
    comparison = compare(small_set(), result_set.of_records(records, "new"))
    differences = {each.fact: (each.base, each.new) for each in comparison.differences}
    assert differences["torch"] == (["2.13.0"], ["2.99"])
    assert differences["measurement seed"] == ([0], [7])
    assert differences["measurement rounds"] == ([8], [2])
    text = comparison_text.to_markdown(comparison)
    assert text.index("## What differs") < text.index("## Cells")
    assert "| torch              | 2.13.0 | 2.99 |" in text
    assert compare(small_set(), small_set("new")).differences == []


def test_a_variant_that_chooses_something_else_under_the_same_name_is_said():
    def with_variant(attention: str):
        return small_set(engines=("hf-x",), variants={"hf-x": {"engine": "hf", "attention": attention}})

    (difference,) = compare(with_variant("eager"), with_variant("sdpa")).differences
    assert difference == ("hf-x attention", ["eager"], ["sdpa"])
    assert compare(with_variant("eager"), with_variant("eager")).differences == []


def with_yardstick(name, memory_s, arithmetic_s):
    """A result set whose machine had these times before each cell."""
    yardstick = {"before": make_yardstick(memory_s, arithmetic_s)}
    records = records_of(grid(**SMALL), rounds=2)
    records = [replace(each, runs=(replace(each.runs[0], yardstick=yardstick),)) for each in records]
    return result_set.of_records(records, name)


def test_a_machine_that_was_itself_slower_is_said():
    base = with_yardstick("base", 0.2, 0.25)
    comparison = compare(base, with_yardstick("new", 0.4, 0.3))
    (difference,) = comparison.differences
    assert difference == ("speed of the machine (memory, median)", ["50 GB/s"], ["25 GB/s, 0.50x"])
    text = comparison_text.to_markdown(comparison)
    assert "| speed of the machine (memory, median) | 50 GB/s | 25 GB/s, 0.50x |" in text
    assert "ratios are also those of the machine" in text.split("## What differs")[0]
    # Faster is different, too.
    assert [each.fact for each in compare(base, with_yardstick("new", 0.2, 0.1)).differences] == [
        "speed of the machine (arithmetic, median)"
    ]
    same = compare(base, with_yardstick("new", 0.22, 0.24))
    assert same.differences == []
    assert "those of the machine" not in comparison_text.to_markdown(same)
    assert compare(base, small_set(rounds=2)).differences == []  # whose speed nobody knows


def in_states(results: ResultSet, state_of_first: int, has_yardsticks: bool = True) -> ResultSet:
    """The same on a machine that is in two states in turn: in the second its memory is twice as fast, and all calls take
    1.3 times as long. All rounds of the first cell fall into one of them."""
    records = []
    for n, each in enumerate(results.records.values()):
        states = [state_of_first if n == 0 else number % 2 for number in range(len(each.runs))]
        runs = [
            replace(
                run,
                samples_s=[seconds * (1.3 if state else 1) for seconds in run.samples_s],
                yardstick={"before": make_yardstick(0.1 if state else 0.2, 0.25)} if has_yardsticks else None,
            )
            for run, state in zip(each.runs, states, strict=True)
        ]
        records.append(replace(each, runs=tuple(runs)))
    return result_set.of_records(records)


def test_a_state_of_the_machine_that_one_side_did_not_see_is_no_difference():
    """A virtual machine whose CPUs are moved apart has a faster memory and slower products."""
    base, new = (in_states(small_set(seed=seed), seed) for seed in (0, 1))
    comparison = compare(base, new)
    assert verdicts(comparison) == ["same"] * 14
    first, *others = (cell.ratio for cell in comparison.cells)
    assert first.low < 1 < first.high
    assert max(each.half_width for each in others) < first.half_width
    unknown = compare(*(in_states(small_set(seed=seed), seed, has_yardsticks=False) for seed in (0, 1)))
    assert verdicts(unknown) == ["slower", *["same"] * 13]
    assert unknown.cells[0].ratio.value == first.value, "figures are the same; only what is known of them is not"
    # A cell that is slower by more than the machine is slower.
    slower = compare(base, in_states(small_set(seed=1, faster=0.3), 1))
    assert verdicts(slower) == ["slower"] * 14


def test_only_cells_that_both_have_say_what_differs():
    """As where a folder holds more than the other: cells of another engine with other threads, on a busy machine."""

    def records_with(engines, threads, memory_s, arithmetic_s):
        yardstick = {"before": make_yardstick(memory_s, arithmetic_s)}
        return [
            replace(each, runs=(replace(each.runs[0], yardstick=yardstick),), model={**each.model, "threads": threads})
            for each in records_of(grid(**SMALL | {"engines": engines}), rounds=2)
        ]

    own = records_with(("hf",), 2, 0.2, 0.25)
    more = [*own, *records_with(("fake",), 1, 4.4, 5.5)]
    for pair in ((own, more), (more, own)):
        comparison = compare(*map(result_set.of_records, pair))
        assert {cell.ratio.value for cell in comparison.cells} == {1}
        assert comparison.differences == []
    others = compare(result_set.of_records(own), result_set.of_records(records_with(("hf",), 1, 4.4, 5.5)))
    assert [each.fact for each in others.differences] == [
        "threads", "speed of the machine (memory, median)", "speed of the machine (arithmetic, median)",
    ]  # fmt: skip


def test_a_variable_that_one_side_has_is_a_difference_and_what_one_side_cannot_know_is_none():
    bound = {"OMP_PROC_BIND": "true"}
    records = [replace(each, variables=bound) for each in records_of(grid(**SMALL), rounds=8)]
    assert compare(small_set(), result_set.of_records(records)).differences == [
        ("environment OMP_PROC_BIND", ["not set"], ["true"])
    ]
    bare = ResultSet("bare", small_set().cells, {"device": ["Made-up GPU"], "torch": ["2.0"]})
    assert compare(bare, small_set()).differences == [("torch", ["2.0"], ["2.13.0"])]


def test_the_published_figures_stand_beside_every_engine_of_their_model():
    comparison = compare(result_set.load(PUBLISHED, "a100-80gb"), result_set.of_records(records_of(grid())))
    assert len(comparison.cells) == 2 * 44
    assert {cell.new.column.engine for cell in comparison.cells} == {"hf", "hf-static"}
    cell = cell_of(comparison, "hf", "bf16", 1)
    assert cell.base.value("throughput_tok_per_s") == 42.23
    assert cell.ratio.value == pytest.approx(cell.new.value("throughput_tok_per_s") / 42.23)
    assert (cell.verdict, cell.ratio.low, cell.p_value) == ("unknown", None, None)
    assert cell_of(comparison, "hf", "fp32", 1024).verdict == "neither fits"
    largest = {(c.column.engine, c.column.precision): c[-2:] for c in comparison.columns}
    assert largest["hf", "fp32"] == (896, 896)
    assert largest["hf", "bf16"] == (1792, 1792)
    text = comparison_text.to_markdown(comparison)
    assert "Significance is unknown" in text
    assert "as published" in text
    other_tokens = grid(workloads=(Workload(9, 50),))
    assert compare(result_set.load(PUBLISHED), result_set.of_records(records_of(other_tokens))).cells == []
    small_model = {"parameters": 51_000_000, "weights_bytes": 1}
    smaller = [replace(each, model=small_model) for each in records_of(grid(**SMALL))]
    assert compare(result_set.load(PUBLISHED), result_set.of_records(smaller)).cells == []


def test_a_small_ratio_keeps_its_digits_in_the_tables():
    records = records_of(grid(**SMALL), faster=0.0001)
    beside = [compare(result_set.load(PUBLISHED, "a100-80gb"), result_set.of_records(records))]
    against = tables.document(cell_results(records), beside).split("Against a100-80gb")[1]
    assert "| 0.00x" not in against
    assert re.search(r"\| 0\.000\d+x +\|", against)


def test_the_published_figures_are_columns_of_the_tables():
    records = records_of(grid(engines=("hf",)))
    beside = [compare(result_set.load(PUBLISHED, "a100-80gb"), result_set.of_records(records))]
    text = tables.document(cell_results(records), beside)
    throughput = text.split("Throughput (")[1].split("Against")[0].splitlines()
    assert "a100-80gb<br>fp32 | a100-80gb<br>bf16 |" in " ".join(throughput[2].split())
    assert " ".join(throughput[4].split()).endswith("| 45.31 \\| 22.07 | 42.23 \\| 23.68 |")
    assert throughput[-2].split()[-5:] == ["|", "oom", "|", "oom", "|"]
    against = text.split("Against a100-80gb (times its throughput)")[1].split("\n\n")[1].splitlines()
    assert against[0].split() == ["|", "batch_size", "|", "fp32", "|", "bf16", "|"]
    ratio = records[0].cell.batch_size * 100 / 45.31 / (sum(records[0].runs[0].samples_s) / 5)
    assert against[2].split() == ["|", "1", "|", f"{ratio:.2f}x", "|", against[2].split()[5], "|"]
    assert [part.strip() for part in against[-1].split("|")[1:-1]] == [
        "largest batch",
        "896, was 896",
        "1792, was 1792",
    ]
    latency = text.split("Latency (sec)")[1].split("Time to first")[0]
    assert "| 2.21 " in latency  # 100 / 45.31
    assert "a100" not in text.split("Time to first token")[1]


@pytest.mark.parametrize(
    "unknown",
    [{"model": ""}, {"prompt_tokens": None}, {"new_tokens": None}, {"engine": ""}],
    ids=lambda each: next(iter(each)),
)
def test_cells_without_a_place_in_the_tables_are_left_out_of_them(unknown):
    records = records_of(grid(**SMALL))
    new = result_set.of_records(records)
    lacking = replace(new, cells=[replace(each, column=replace(each.column, **unknown)) for each in new.cells])
    comparison = compare(lacking, lacking)
    assert len(comparison.cells) == 14
    rows = cell_results(records)
    assert tables.document(rows, [comparison]) == tables.document(rows)
    assert chart_data(rows, [comparison]) == chart_data(rows)


def test_a_comparison_comes_back_from_its_file():
    comparison = compare(result_set.load(PUBLISHED), small_set())
    document = json.loads(json.dumps(comparison.to_document()))
    again = Comparison.from_document(document)
    assert comparison_text.to_markdown(again) == comparison_text.to_markdown(comparison)
    with pytest.raises(ValueError, match="version is 99"):
        Comparison.from_document(document | {"version": 99})


def test_a_cell_is_compared_with_that_of_the_same_environment():
    both = small_set(seed=1, environments=({}, OLD))
    comparison = compare(both, small_set(seed=2))
    assert {cell.new.column.environment for cell in comparison.cells} == {"current"}
    assert len(comparison.only_base) == len(comparison.cells) == 14
    (_, line) = next(part for part in comparison_text.parts(comparison) if part.title == "Only in box")[:2]
    assert line[0].startswith("bloom-1b3 prompt9-new100 old hf fp32 batch 1, 2")
    assert compare(small_set(environments=(OLD,)), small_set()).cells == []


def test_the_summary_of_a_run_before_environments_is_of_the_current_one(tmp_path):
    records = records_of(grid(**SMALL))
    table = pandas.read_csv(io.StringIO(summary_csv.to_csv(cell_results(records))))
    table.drop(columns="environment").to_csv(tmp_path / "summary.csv", index=False)
    both = result_set.of_records(records_of(grid(**SMALL, environments=({}, OLD))))
    comparison = compare(both, result_set.load(tmp_path / "summary.csv"))
    assert {cell.new.column.environment for cell in comparison.cells} == {"current"}
    assert len(comparison.cells) == 14


def test_published_figures_name_no_environment_and_are_compared_with_each():
    records = records_of(grid(**SMALL, environments=({}, OLD)))
    comparison = compare(result_set.load(PUBLISHED, "a100"), result_set.of_records(records))
    assert {cell.new.column.environment for cell in comparison.cells} == {"current", "old"}
    rows = cell_results(records)
    views = {view.title: view for view in tables.tables(rows, [comparison])}
    ratios = views["Against a100 (times its throughput)"]
    assert ratios.headings == [("batch_size",), *((name, p) for name in ("current", "old") for p in ("fp32", "bf16"))]
    assert all(all(row) for row in ratios.cells)
    columns = next(iter(views.values())).headings[-2:]
    assert columns == [("a100", "fp32"), ("a100", "bf16")], "each once"
