"""The search for the largest batch that fits."""

from __future__ import annotations

import math

import pytest

from inference_benchmark.analysis import max_batch


def search(
    fits: int, flaky: frozenset[int] = frozenset(), tolerance: float = 0, shown: tuple[int, ...] = ()
) -> tuple[max_batch.BatchLimit, list[int]]:
    """The search on a memory for so many rows; flaky sizes fit once and then never again.

    shown: batch sizes that were tried before. The sizes that it tries itself are returned.
    """
    tries: list[dict] = [{"batch_size": size, "fits": size <= fits} for size in shown]
    while (size := max_batch.next_batch_size(tries, tolerance)) is not None:
        assert len(tries) < 100
        again = any(t["batch_size"] == size for t in tries)
        tries.append({"batch_size": size, "fits": size <= fits and not (again and size in flaky)})
    return max_batch.batch_limit(tries), [t["batch_size"] for t in tries[len(shown) :]]


@pytest.mark.parametrize("fits", [0, 1, 2, 3, 17, 64, 100, 1023, 1024, 1025])
def test_the_search_finds_every_limit_and_confirms_it(fits):
    limit, tried = search(fits)
    assert limit == (fits, fits + 1)
    assert len(tried) <= 2 * math.ceil(math.log2(fits + 2)) + 2
    if fits:
        assert tried.count(fits) == 2
        assert tried[-1] == fits


def test_an_answer_that_does_not_hold_is_not_given():
    limit, tried = search(17, frozenset({17, 16}))
    assert limit == (15, 16)
    assert tried[-1] == 15


def test_doubling_comes_first_and_halving_after():
    assert search(5)[1] == [1, 2, 4, 8, 6, 5, 5]


@pytest.mark.parametrize("fits", [1, 2, 17, 49, 50, 51, 100, 1023, 1024, 1860])
def test_a_search_with_a_tolerance_ends_within_it_and_sooner(fits):
    limit, tried = search(fits, tolerance=0.02)
    assert limit.fits <= fits < limit.fails
    assert limit.fails - limit.fits <= max(1, 0.02 * limit.fits)
    assert tried[-1] == limit.fits
    assert len(tried) <= len(search(fits)[1])
    if fits >= 100:
        assert len(tried) < len(search(fits)[1])


def test_a_search_starts_from_what_is_known():
    assert search(1860, tolerance=0.02, shown=(1792, 1920)) == ((1856, 1888), [1856, 1888, 1856])
    assert search(166, shown=(166, 167)) == ((166, 167), [166]), "the largest that fits is tried all the same"
    assert search(5, shown=(4,))[1] == [8, 6, 5, 5]
    assert search(5, shown=(16,))[1] == [8, 4, 6, 5, 5]
