"""Families that differ from a plain decoder: mixtures of experts, latent attention, state spaces."""

from __future__ import annotations

import pytest
from families import MIXTURES, family_weights
from real_engines import load_from, prompts


@pytest.mark.parametrize("family", MIXTURES)
def test_a_mixture_of_experts_has_figures_and_no_limit(family):
    engine = load_from(family_weights(family), "hf", "bf16")
    facts = engine.describe()
    assert facts["shapes"] is None
    assert "a mixture of experts" in facts["shapes_unknown"]
    ids = prompts(2, 9, vocab_size=300)
    tokens, observed = engine.observe(ids, 6)
    assert (tokens == engine.generate(ids, 6)).all()
    # A router's output is a tuple: what it chose, not a product.
    assert observed["activations"] == ["bfloat16"]
