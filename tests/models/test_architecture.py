"""Sizes of model families, read without importing transformers."""

from __future__ import annotations

from inference_benchmark.models import architecture


def test_sizes_of_families_are_read_without_importing_transformers():
    assert architecture.sizes("bloom")["n_layer"] == 2
    assert {"hidden_size", "num_key_value_heads", "tie_word_embeddings"} <= set(architecture.sizes("llama"))
    assert {"output_hidden_states", "tie_word_embeddings"} <= set(architecture.common_sizes())
    assert architecture.sizes("no_such_family") is None
    assert architecture.sizes("../bloom") is None
    assert "gpt2" in architecture.families()
