"""Parsing and formatting of sizes and durations."""

from __future__ import annotations

import pytest

from inference_benchmark.units import (
    format_bytes,
    format_duration,
    format_figure,
    format_half_width,
    format_number,
    parse_bytes,
)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("80 GB", 80 * 10**9), ("1.5 GiB", 1610612736), ("300MB", 3 * 10**8), (1024, 1024), (None, None), ("1 B", 1)],
)
def test_sizes_are_parsed(text, n_bytes):
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "80 gb",
        "-1 GB",
        "0 GB",
        "1e3 MB",
        "GB",
        "0.1 B",
        0,
        -5,
        True,
        [],
        "1 GB\n2",
        "9" * 400 + " GB",
        "99999999999 TB",
    ],
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


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (45.3, ".2f", "45.30"), (0.13, ".2f", "0.13"), (0.1, ".2f", "0.10"), (0.0996, ".2f", "0.10"),
        (0.0949, ".2f", "0.0949"), (0.0016, ".2f", "0.0016"), (0.00456789, ".2f", "0.00457"), (2e-6, ".2f", "2e-06"),
        (0.0, ".2f", "0.00"), (-0.0016, ".2f", "-0.0016"), (1.5, ".1f", "1.5"), (0.0412, ".1f", "0.0412"),
        (12345.67, ",.1f", "12,345.7"), (0.0041, ",.1f", "0.0041"), (1.0, ".3f", "1.000"), (0.00012, ".3f", "0.00012"),
        (0.0151, ".1%", "1.5%"), (1.0, ".1%", "100.0%"), (0.000412, ".1%", "0.0412%"), (0.0, ".1%", "0.0%"),
        (5.0, ".3g", "5"), (1234.5, ".3g", "1,234"), (999.7, ".3g", "1,000"), (0.000123456, ".3g", "0.000123"),
    ],
)  # fmt: skip
def test_a_figure_never_loses_all_its_digits(value, spec, text):
    assert format_figure(value, spec) == text


def test_a_narrow_interval_is_not_printed_as_none():
    shares = (0.66, 0.0123, 0.0005, 0.000312, 0.0000412, 0.0, 1e-17)
    assert [format_half_width(share) for share in shares] == [
        "66.0%", "1.2%", "0.1%", "0.03%", "0.004%", "0.0%", "0.0%",
    ]  # fmt: skip


def test_large_numbers_have_no_exponent():
    assert [format_number(n) for n in (999.4, 999.7, 1000, 21278.4)] == ["999", "1,000", "1,000", "21,278"]
