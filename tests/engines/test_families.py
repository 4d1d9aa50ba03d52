"""Families that differ from a plain decoder: mixtures of experts, latent attention, state spaces."""

from __future__ import annotations

import pytest
from families import FAMILIES, MIXTURES, family_weights, model_of
from made_up import make_cell
from real_engines import load_from, prompts
from running import measure_cli, read_record, run_study

from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy


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


#: What libraries of today cannot do together, by engine, precision and family: a part of their own words.
REFUSED = [
    ("hf", "int8", "minicpm3", "RuntimeError: The size of tensor a"),
    ("hf", "int8", "mamba", "RuntimeError: expected m1 and m2 to have the same dtype"),
    ("hf-static", "fp32", "falcon-alibi", "RuntimeError: The size of tensor a (11) must match"),
    ("ctranslate2", "fp32", "mixtral", "ValueError: No conversion is registered for the model configuration Mixtral"),
    ("ctranslate2", "fp32", "gpt_neox", "AttributeError: 'GPTNeoXConfig' object has no attribute 'rotary_pct'"),
    ("ctranslate2", "int8", "phi3", "KeyError: 'type'"),
]


@pytest.mark.parametrize(("engine", "precision", "family", "words"), REFUSED)
def test_what_libraries_cannot_do_together_is_unsupported_in_their_words(tmp_path, engine, precision, family, words):
    cell = make_cell(engine=engine, precision=precision, model=model_of(family), workload=Workload(9, 3))
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    message = record["reason"]["message"]
    assert (record["outcome"], record["stability"], record["runs"][0]["samples_s"]) == ("unsupported", None, [])
    assert words in message
    before, _, _ = message.partition(" do not go together: ")
    for part in (FAMILIES[family]["model_type"], precision, "transformers 5.", "cpu"):
        assert part in before
    assert ("a static cache" in before) == (engine == "hf-static")
    assert ("bitsandbytes" in before) == (precision != "fp32" and engine != "ctranslate2")


@pytest.mark.parametrize("kind", ["max-batch", "divergence"])
def test_a_study_of_what_libraries_cannot_do_together_is_unsupported(tmp_path, kind):
    cell = make_cell(
        engine="hf", precision="int8", model=model_of("mamba"), workload=Workload(9, 3), memory_limit_bytes=10**9
    )
    study = ColumnStudy.of(kind, cell)
    record = run_study(study, tmp_path / "study.json")
    assert (record.outcome, record.results) == ("unsupported", ())
    assert "bitsandbytes" in record.reason.message
    assert "expected m1 and m2 to have the same dtype" in record.reason.message
