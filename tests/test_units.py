"""Parsing and formatting of sizes and durations."""

from __future__ import annotations

import pytest

from inference_benchmark.units import format_bytes, format_duration, parse_bytes


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("80 GB", 80 * 10**9), ("1.5 GiB", 1610612736), ("300MB", 3 * 10**8), (1024, 1024), (None, None), ("1 B", 1)],
)
def test_sizes_are_parsed(text, n_bytes):
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text", ["", "80", "80 gb", "-1 GB", "0 GB", "1e3 MB", "GB", "0.1 B", 0, -5, True, [], "1 GB\n2"]
)
def test_invalid_sizes_are_rejected(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


def test_sizes_and_durations_are_formatted():
    assert [format_bytes(n) for n in (0, 999, 1000, 5246140416, 3 * 10**15)] == [
        "0 B",
        "999 B",
        "1 kB",
        "5.25 GB",
        "3e+03 TB",
    ]
    assert [format_duration(s) for s in (0.4, 59.4, 59.6, 125, 11520)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "2 min 05 s",
        "3 h 12 min",
    ]
