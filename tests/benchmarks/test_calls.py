"""Calls of engines beside those of their libraries."""

from __future__ import annotations

import calls
import pytest
from real_engines import weights
from running import convert


@pytest.mark.parametrize(("name", "family"), [("hf", "bloom"), ("hf-continuous", "llama"), ("ctranslate2", "bloom")])
def test_both_generate_the_same_and_are_timed(name, family):
    if name == "ctranslate2":
        convert(weights(family))
    (ratio,) = calls.pairs(name, str(weights(family)), "fp32", 3, 9, 4, seconds=0)
    assert ratio > 0
