"""What the rounds of a cell did not see of the machine, as the yardsticks around them say."""

from __future__ import annotations

import numpy
import pytest

from inference_benchmark.analysis import statistics
from inference_benchmark.analysis.scatter import NO_PRIOR
from inference_benchmark.analysis.statistics import estimate
from inference_benchmark.analysis.unseen import unseen


def test_a_cell_is_as_uncertain_as_its_rounds_are_far_from_those_of_the_others():
    """By hand: seven cells whose logarithms change by 0.1 with a speed of 1 in place of 0, some up, some down, and one
    around which the speed was always 1. Its distance from the mean, 9 of 16 rounds, is 7 / 16."""
    up, down, odd = (0.0, 0.1), (0.0, -0.1), (0.3, 0.3)
    times = [up, down, up, up, down, up, down, odd]
    around = [*[[(0.0,), (1.0,)]] * 7, [(1.0,), (1.0,)]]
    assert unseen(times, around) == pytest.approx([0.01 / 16**2] * 7 + [0.01 * (7 / 16) ** 2])
    # A kernel whose speed was the same in all rounds says nothing.
    assert unseen(times, [[(*speeds, 5.0) for speeds in of_cell] for of_cell in around]) == unseen(times, around)


def test_nothing_is_unseen_where_nothing_is_known():
    cells, around = [(0.0, 0.1)] * 7 + [(0.1, 0.1)], [[(0.0,), (1.0,)]] * 7 + [[(1.0,), (1.0,)]]
    assert min(unseen(cells, around)) > 0
    assert unseen(cells[1:], around[1:]) == [0] * 7, "too few cells"
    assert unseen(cells, [[]] * 8) == [0] * 8, "no yardsticks"
    assert unseen([times[:1] for times in cells], [speeds[:1] for speeds in around]) == [0] * 8, "one round each"
    assert unseen([*cells, (0.5, 0.5)], [*around, []])[-1] == 0, "a cell without yardsticks among others"
    assert statistics.priors_of_processes([[[1.0], [1.1]]] * 7) == [NO_PRIOR] * 7


def test_the_mean_square_of_the_slopes_is_found_again():
    """Slopes around 0.1 that differ by 0.2, in three rounds that scatter by as much as their speeds."""
    random = numpy.random.default_rng(2)
    slopes, speeds = 0.1 + 0.2 * random.standard_normal(4000), random.standard_normal((4000, 3))
    times = slopes[:, None] * speeds + random.standard_normal((4000, 3))
    found = unseen(times.tolist(), [[(each,) for each in of_cell] for of_cell in speeds.tolist()])
    distances = (speeds.mean(axis=1) - speeds.mean()) ** 2
    assert numpy.mean(found / distances) == pytest.approx(0.1**2 + 0.2**2, rel=0.3)


@pytest.mark.parametrize(
    ("rounds", "stays", "least", "without"),
    [(3, 0, 0.98, 0.9), (6, 0, 0.98, 0.95), (3, 0.6, 0.93, 0.75), (6, 0.6, 0.95, 0.8)],
)
def test_intervals_hold_the_truth_where_rounds_fall_into_states_of_the_machine(rounds, stays, least, without):
    """25 cells whose rounds scatter by 3 %, on a machine whose memory is 1.7 times as fast in a third of the rounds: then
    a third of the cells take 1 % longer, a third 10 %, and a third 30 % less. stays: how often a round of a cell has the
    state of the one before it, whatever comes. without: what the yardsticks add."""
    random = numpy.random.default_rng(4)
    change = numpy.resize([0.01, 0.1, -0.3], 25)
    held, held_without = [], []
    for _ in range(60):
        is_fast = random.random((25, rounds)) < 1 / 3
        for number in range(1, rounds):
            is_fast[:, number] = numpy.where(random.random(25) < stays, is_fast[:, number - 1], is_fast[:, number])
        logs = change[:, None] * is_fast + 0.03 * random.standard_normal((25, rounds))
        around = [[(numpy.log(1.7) * each,) for each in of_cell] for of_cell in is_fast]
        cells = [[[seconds] for seconds in of_cell] for of_cell in numpy.exp(logs).tolist()]
        for found, speeds in ((held, around), (held_without, ())):
            intervals = map(estimate, cells, statistics.priors_of_processes(cells, speeds))
            found += [
                each.low <= true <= each.high for each, true in zip(intervals, numpy.exp(change / 3), strict=True)
            ]
    assert numpy.mean(held) >= least
    assert numpy.mean(held_without) <= without


def test_intervals_are_as_before_where_the_machine_has_no_part_in_the_scatter():
    random, widths, widths_before = numpy.random.default_rng(6), [], []
    for _ in range(30):
        cells = [[[seconds] for seconds in each] for each in numpy.exp(0.05 * random.standard_normal((25, 4))).tolist()]
        around = [[tuple(each) for each in of_cell] for of_cell in (0.2 * random.standard_normal((25, 4, 2))).tolist()]
        for found, speeds in ((widths, around), (widths_before, ())):
            found += [each.half_width for each in map(estimate, cells, statistics.priors_of_processes(cells, speeds))]
    assert numpy.mean(widths) < 1.06 * numpy.mean(widths_before)
