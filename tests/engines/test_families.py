"""Families that differ from a plain decoder: mixtures of experts, latent attention, state spaces."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from families import CONTINUOUS, FAMILIES, MIXTURES, family_weights, model_of
from made_up import MODELS, make_cell
from real_engines import load_from, prompts
from running import drawn, measure_cli, read_record, run_study

from inference_benchmark.engines import hf_static
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.experiment.cells import Workload
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.models.synthesize import synthesize
from inference_benchmark.records.record_file import load
from inference_benchmark.records.results import cell_results


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


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """A checkpoint whose text model is a part of its configuration, with few tokens to look back at."""
    folder = tmp_path_factory.mktemp("gemma3")
    # A layer takes a while to compile.
    text = {**FAMILIES["llama"], "num_hidden_layers": 1, "head_dim": 16, "sliding_window": 64, "initializer_range": 0.2}
    vision = {
        **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1},
        **{"image_size": 28, "patch_size": 14},
    }
    del text["model_type"]
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["hf-static", "hf-continuous", "ctranslate2"])
def test_a_text_model_within_another_gives_the_tokens_of_hf(nested, name):
    engine, reference = load_from(nested, name), load_from(nested, "hf")
    assert engine.vocab_size == 300
    ids = prompts(3, 9, vocab_size=300)
    expected = reference.generate(ids, 6)
    assert len(set(expected.flat)) == 3  # each row repeats its last token
    assert (engine.generate(ids, 6) == expected).all()
    assert engine.describe()["parameters"] == reference.describe()["parameters"]


@pytest.mark.parametrize("name", ["hf", "ctranslate2"])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_that_a_checkpoint_names_is_set_aside(tmp_path, name, key):
    """transformers refuses it: flash attention is not installed."""
    own = family_weights("llama")
    folder = shutil.copytree(own, tmp_path / "weights")
    config = json.loads((folder / "config.json").read_text()) | {key: "flash_attention_2"}
    (folder / "config.json").write_text(json.dumps(config))
    engine, ids = load_from(folder, name), prompts(2, 9, vocab_size=300)
    assert (engine.generate(ids, 6) == load_from(own, name).generate(ids, 6)).all()
    assert engine.describe().get("attention") == ("sdpa" if name == "hf" else None)


#: What libraries of today cannot do together, by engine, precision and family: a part of their own words.
REFUSED = [
    ("hf", "int8", "minicpm3", "RuntimeError: The size of tensor a"),
    ("hf", "int8", "mamba", "RuntimeError: expected m1 and m2 to have the same dtype"),
    ("hf-static", "fp32", "falcon-alibi", "RuntimeError: The size of tensor a (11) must match"),
    ("ctranslate2", "fp32", "mixtral", "ValueError: No conversion is registered for the model configuration Mixtral"),
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


@pytest.mark.parametrize("precision", ["int8", "int8-threshold-0", "nf4"])
@pytest.mark.parametrize(
    ("family", "n_weights", "n_quantised"),
    [
        # Falcon's linear layers are of a class of their own, which bitsandbytes leaves alone.
        ("falcon-multi-query", 2 * (64 * 96 + 64 * 64 + 2 * 64 * 256), 0),
        # The experts of one layer are one parameter, in no linear layer.
        ("mixtral", 2 * (2 * 64 * 64 + 2 * 64 * 32 + 4 * 64 + 4 * 3 * 64 * 128), 2 * (2 * 64 * 64 + 2 * 64 * 32)),
    ],
)
def test_a_precision_that_the_loaded_weights_do_not_have_is_no_such_precision(
    precision, family, n_weights, n_quantised
):
    loaded = load_from(family_weights(family), "hf", precision)
    stored = "nf4" if precision == "nf4" else "int8"
    assert loaded.not_loaded_as(precision).startswith(
        f"{n_quantised:,} of {n_weights:,} weights of the blocks are {stored}; found: "
    )
    assert sum(loaded.describe()["block_weights"].values()) == n_weights


def test_int8_that_is_not_int8_is_a_record_without_figures(tmp_path):
    cell = make_cell(engine="hf", precision="int8", model=model_of("falcon-alibi"), workload=Workload(9, 3))
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert (record["outcome"], record["reason"]["phase"]) == ("unsupported", "load")
    found = "falcon, int8, cpu do not go together: 0 of 98,304 weights of the blocks are int8"
    assert found in record["reason"]["message"]
    assert record["model"]["quantised"] is None, "what was loaded stays in the record"
    assert record["model"]["weights_bytes"] > 2 * 98_304


def test_unquantised_weights_are_proved_too():
    engine = load_from(family_weights("llama"), "hf", "bf16")
    assert engine.not_loaded_as("bf16") is None
    assert engine.not_loaded_as("fp32").endswith("73,728 bfloat16")


def test_ctranslate2_computes_in_what_the_precision_says():
    engine = load_from(family_weights("llama"), "ctranslate2", "int8")
    assert engine.not_loaded_as("int8") is None
    assert engine.not_loaded_as("fp32") == "ctranslate2 computes in int8_float32, not in float32"


def test_a_family_that_transformers_does_not_compile_is_no_slow_copy_of_hf(tmp_path):
    cell = make_cell(engine="hf-static", model=model_of("rwkv"), workload=Workload(9, 3))
    done = measure_cli(cell, tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "r.json", cell)
    assert (record["outcome"], record["reason"]["phase"]) == ("unsupported", "load")
    assert record["reason"]["message"].endswith("do not go together: RwkvForCausalLM takes no static cache")


@pytest.mark.parametrize("family", sorted(CONTINUOUS.keys() - {"gemma3"}))  # in a test of its own
def test_continuous_batching_gives_the_tokens_of_hf(tmp_path, family):
    # In this process: starting one takes longer than all that follows.
    synthesize(CONTINUOUS[family], seed=0).save_pretrained(tmp_path)
    engine, reference = load_from(tmp_path, "hf-continuous"), load_from(tmp_path, "hf")
    for rows, length, new_tokens in ((1, 1, 12), (5, 9, 12)):
        ids = prompts(rows, length, vocab_size=300)
        assert (engine.generate(ids, new_tokens) == reference.generate(ids, new_tokens)).all(), (rows, length)


@pytest.mark.parametrize("family", ["gpt_neo", "bloom"])
def test_layers_that_do_not_use_the_paged_cache_are_noticed(family):
    """Their answers would be those to the last token alone, or to the prompts of all rows as one."""
    architecture = {**FAMILIES, **MODELS}[family]
    engine = load_from(drawn({"architecture": architecture, "seed": 0}), "hf-continuous")
    ids = prompts(3, 9, vocab_size=300)
    for call in (engine.observe, lambda ids, steps: engine.next_token_logits(ids, ids[:, :steps])):
        with pytest.raises(UnsupportedError, match=rf"0 of \d layers of {family} use the paged cache"):
            call(ids, 4)


def test_a_cache_that_transformers_does_not_compile_is_noticed(monkeypatch):
    monkeypatch.setattr(transformers.StaticCache, "is_compileable", False)
    engine = load_from(family_weights("llama"), "hf-static")
    engine.observe(prompts(1, 3, vocab_size=300), 1)  # a single token needs no decoding
    with pytest.raises(UnsupportedError, match="transformers compiled nothing; the cache of llama is a StaticCache"):
        engine.observe(prompts(1, 3, vocab_size=300), 4)


@pytest.mark.parametrize(
    ("architecture", "longest", "beyond"),
    [
        (FAMILIES["mistral"], (8, 12), (9, 1)),
        (CONTINUOUS["qwen2"], (4, 5), (4, 6)),  # its converter leaves out the window
    ],
)
def test_ctranslate2_is_not_available_beyond_a_sliding_window(architecture, longest, beyond):
    folder, family = drawn({"architecture": architecture, "seed": 0}), architecture["model_type"]
    engine, reference = load_from(folder, "ctranslate2"), load_from(folder, "hf")
    ids = prompts(4, longest[0], vocab_size=300)
    answers = reference.generate(ids, longest[1])
    assert (engine.generate(ids, longest[1]) == answers).all()
    message = f"ctranslate2 does not apply the sliding window of 8 tokens of {family} to 9"
    with pytest.raises(UnsupportedError, match=message):
        engine.generate(prompts(4, beyond[0], vocab_size=300), beyond[1])
    fitting = answers[:, : 9 - longest[0]]
    assert engine.next_token_logits(ids, fitting).shape == (4, fitting.shape[1], 300)
    with pytest.raises(UnsupportedError, match=message):
        engine.next_token_logits(prompts(4, 9, vocab_size=300), answers[:, :1])


def test_answers_beyond_a_sliding_window_are_no_failed_comparison(tmp_path):
    cell = make_cell(engine="ctranslate2", model=model_of("mistral"), workload=Workload(8, 4))
    record = run_study(ColumnStudy.of("divergence", cell), tmp_path / "study.json")
    assert (record.outcome, record.results) == ("unsupported", ())
    assert "the sliding window of 8 tokens of mistral to 11" in record.reason.message


LONGROPE = {
    **FAMILIES["phi3"], "max_position_embeddings": 64, "original_max_position_embeddings": 16,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [4.0] * 8, "short_factor": [1.0] * 8,
        "original_max_position_embeddings": 16, "partial_rotary_factor": 1.0,
    },
}  # fmt: skip


@pytest.mark.parametrize(("engine", "options"), [("hf-static", {}), ("hf", {"cache": "static"})])
def test_a_static_cache_that_the_model_throws_away_is_noticed(monkeypatch, engine, options):
    """phi3 computes all again, into another cache, where it changes the angles of its positions."""
    monkeypatch.setattr(hf_static, "_why_no_compiler", lambda device: "not needed here")
    loaded = load_from(drawn({"architecture": LONGROPE, "seed": 0}), engine, **options)
    for length, new_tokens in ((9, 1), (9, 8), (16, 1)):
        assert loaded.observe(prompts(2, length, vocab_size=300), new_tokens)[1]["cache"] == "StaticCache"
    for length, new_tokens in ((9, 9), (17, 1)):
        message = f"the cache of phi3 is a DynamicCache after {length} prompt and {new_tokens} new tokens"
        with pytest.raises(UnsupportedError, match=message):
            loaded.observe(prompts(2, length, vocab_size=300), new_tokens)


@pytest.mark.parametrize(
    ("engine", "family", "differs"),
    [
        # Local attention counts its window from the end of the whole static cache.
        ("hf-static", "gpt_neo", True),
        # Its converter leaves out the scaling of rotary positions.
        ("ctranslate2", "llama-3", True),
        ("ctranslate2", "llama", False),
    ],
)
def test_an_engine_that_computes_something_else_in_fp32_is_flagged(tmp_path, engine, family, differs):
    records = []
    for name in ("hf", engine):
        cell = make_cell(engine=name, model=model_of(family), workload=Workload(9, 12))
        assert measure_cli(cell, tmp_path / f"{name}.json").returncode == 0
        records.append(load(tmp_path / f"{name}.json"))
    assert ["answers-differ" in each.flags for each in cell_results(records)] == [False, differs]
