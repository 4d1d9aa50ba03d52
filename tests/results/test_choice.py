"""The best cells under limits, by intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference_benchmark.analysis.figures import BY_NAME
from inference_benchmark.analysis.statistics import Estimate
from inference_benchmark.results import choice
from inference_benchmark.results.cell_result import CellResult
from inference_benchmark.results.choice import Bound, choose

SPEED, TOKEN, FIRST, MEMORY = (
    BY_NAME[name] for name in ("throughput_tok_per_s", "time_per_output_token_s", "first_token_s", "peak_memory_bytes")
)


def cell(name: str, **figures: tuple[float | None, ...]) -> CellResult:
    names = {"speed": SPEED, "token": TOKEN, "first": FIRST, "memory": MEMORY}
    estimates = {names[key].name: Estimate(*ends) for key, ends in figures.items()}
    return replace(CellResult.of_key({"model": name, "batch_size": 1}, "ok"), figures=estimates)


def named(cells) -> list[str]:
    return [each.column.model for each in cells]


def test_cells_whose_intervals_overlap_that_of_the_best_are_named_with_it_in_order():
    cells = [
        cell("slow", speed=(50, 45, 55)),
        cell("third", speed=(90, 80, 95)),  # its upper end is the lower end of the best
        cell("best", speed=(100, 95, 105)),
        cell("second", speed=(92, 60, 130)),
        cell("just worse", speed=(94, 93, 94.9)),
    ]
    chosen = choose(cells, SPEED)
    assert named(chosen.best) == ["best", "second", "third"]
    assert (chosen.perhaps, chosen.verdicts, chosen.nearest) == ([], [], None)
    assert named(choose(cells[:1], SPEED).best) == ["slow"]
    assert named(choose([], SPEED).best) == []


def test_a_goal_that_is_better_lower_is_turned_around():
    cells = [
        cell("best", token=(0.010, 0.009, 0.011)),
        cell("worse", token=(0.012, 0.0111, 0.013)),
        cell("as good", token=(0.013, 0.011, 0.015)),
    ]
    assert named(choose(cells, TOKEN).best) == ["best", "as good"]


def test_an_unknown_interval_overlaps_none():
    cells = [cell("best", speed=(100, 99, 101)), cell("unknown", speed=(18.5,)), cell("close", speed=(99.5,))]
    assert named(choose(cells, SPEED).best) == ["best"]
    cells = [cell("unknown", speed=(100,)), cell("equal", speed=(100,)), cell("worse", speed=(99, 80, 110))]
    assert named(choose(cells, SPEED).best) == ["unknown", "equal"]
    # A better mean counts all the same.
    cells = [
        cell("perhaps", token=(0.01,), first=(0.1,)),
        cell("best", token=(0.02, 0.01, 0.03), first=(0.1, 0.1, 0.1)),
    ]
    chosen = choose([*cells, cell("worse", token=(0.025,), first=(0.1,))], TOKEN, [Bound(FIRST, 0.1)])
    assert (named(chosen.best), named(chosen.perhaps)) == (["best"], ["perhaps"])


@pytest.mark.parametrize(
    ("name", "certain", "uncertain", "best"),
    [
        ("speed", (1.6, 1.5, 1.8), (9.4, 7.5, 11.4), "uncertain"),
        ("speed", (1.6, 1.5, 1.8), (9.4, 1.2, 17.6), "certain"),
        ("speed", (1.6, 1.5, 1.8), (9.4,), "certain"),
        ("speed", (1.6, 1.5, 1.8), (1.0, 0.5, 1.5), "certain"),
        ("token", (0.5, 0.47, 0.53), (0.1, 0.08, 0.13), "uncertain"),
        ("token", (0.5, 0.47, 0.53), (0.4, 0.2, 0.7), "certain"),
    ],
)
def test_the_best_figure_is_that_of_a_certain_cell_unless_another_is_surely_better(name, certain, uncertain, best):
    cells = [cell("certain", **{name: certain}), cell("uncertain", **{name: uncertain})]
    figure = {"speed": SPEED, "token": TOKEN}[name]
    assert choice.headline(cells, figure, target=0.15).column.model == best


def test_a_figure_without_an_interval_is_exact():
    cells = [cell("a", memory=(2e9, 2e9, 2e9)), cell("b", memory=(1e9, 1e9, 1e9)), cell("c", memory=(1e9, 1e9, 1e9))]
    assert named(choose(cells, MEMORY).best) == ["b", "c"]
    assert Bound(MEMORY, 2e9).verdict(cells[0]) == "meets"
    assert Bound(MEMORY, 1.9e9).verdict(cells[0]) == "exceeds"


@pytest.mark.parametrize(
    ("most", "verdict"), [(0.055, "meets"), (0.0549, "perhaps"), (0.05, "perhaps"), (0.0499, "exceeds")]
)
def test_a_limit_is_met_by_the_upper_end_and_perhaps_by_the_mean(most, verdict):
    assert Bound(TOKEN, most).verdict(cell("a", token=(0.05, 0.045, 0.055))) == verdict


def test_a_limit_on_an_unknown_interval_is_perhaps_met_and_one_on_no_figure_is_not():
    assert Bound(TOKEN, 1).verdict(cell("a", token=(0.05,))) == "perhaps"
    assert Bound(TOKEN, 1).verdict(cell("a", speed=(1, 1, 1))) == "unknown"


def test_a_cell_that_perhaps_meets_the_limits_is_named_apart_if_it_may_be_as_good_as_the_best():
    cells = [
        cell("beyond", speed=(400, 390, 410), token=(0.08, 0.07, 0.09)),
        cell("perhaps better", speed=(300, 290, 310), token=(0.05, 0.04, 0.06)),
        cell("best", speed=(200, 190, 210), token=(0.04, 0.03, 0.05)),
        cell("perhaps as good", speed=(180, 170, 190), token=(0.05, 0.04, 0.06)),
        cell("perhaps, but worse", speed=(100, 90, 110), token=(0.05, 0.04, 0.06)),
    ]
    chosen = choose(cells, SPEED, [Bound(TOKEN, 0.05)])
    assert named(chosen.best) == ["best"]
    assert named(chosen.perhaps) == ["perhaps better", "perhaps as good"]
    assert chosen.verdicts == [(Bound(TOKEN, 0.05), ["exceeds", "perhaps", "meets", "perhaps", "perhaps"])]
    # Without a cell that meets it, the best of these counts.
    chosen = choose([cells[1], cells[3]], SPEED, [Bound(TOKEN, 0.05)])
    assert (named(chosen.best), named(chosen.perhaps), chosen.nearest) == ([], ["perhaps better"], None)


def test_where_nothing_meets_the_limits_the_cell_with_the_smallest_factor_is_the_nearest():
    token, first = Bound(TOKEN, 0.01), Bound(FIRST, 0.1)
    cells = [
        cell("fast", speed=(300, 290, 310), token=(0.009, 0.008, 0.01), first=(0.31, 0.30, 0.32)),
        cell("near", speed=(100, 90, 110), token=(0.02, 0.019, 0.021), first=(0.25, 0.24, 0.26)),
        cell("unknown", speed=(200, 190, 210), first=(0.01, 0.01, 0.01)),
        cell("no goal", token=(0.001, 0.001, 0.001), first=(0.01, 0.01, 0.01)),
    ]
    chosen = choose(cells, SPEED, [token, first])
    assert (chosen.best, chosen.perhaps) == ([], [])
    assert chosen.verdicts == [(token, ["meets", "unknown", "exceeds"]), (first, ["exceeds", "meets", "exceeds"])]
    assert (chosen.nearest[0].column.model, chosen.nearest[1]) == ("near", first)
    assert choose([cells[2]], SPEED, [token]).nearest is None


def test_price_and_co2_equal_a_count_by_hand():
    # 1000 tokens/sec are 3.6 million an hour.
    price = choice.price_per_million_tokens(Estimate(1000, 800, 1250), 3.6)
    assert price == pytest.approx((1.0, 0.8, 1.25))
    assert choice.price_per_million_tokens(Estimate(1000), 3.6) == pytest.approx((1.0, None, None))
    # 0.36 J per token are 0.1 kWh per million: 40 g.
    co2 = choice.grams_co2_per_million_tokens(Estimate(0.36, 0.18, 0.54), 400)
    assert co2 == pytest.approx((40, 20, 60))
