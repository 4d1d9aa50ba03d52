"""What is known of model families without importing transformers is what transformers itself says."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
from running import REPO, made_up_package
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from inference_benchmark.models import architecture, families

ENCODERS = {
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
}  # fmt: skip


def test_the_names_of_families_are_those_of_transformers():
    assert families.names() == dict(CONFIG_MAPPING_NAMES)
    assert families.causal() == dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert len(families.causal()) > 150


@pytest.mark.parametrize("model_type", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
def test_a_family_has_the_sizes_and_defaults_of_its_configuration_class(model_type):
    class_, family = CONFIG_MAPPING[model_type], families.family(model_type)
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    real = {field.name: field.default for field in dataclasses.fields(class_)}
    assert set(family.defaults) <= set(real)
    assert set(real) - set(family.defaults) <= common
    integers = {name: default for name, default in real.items() if type(default) is int and name in family.defaults}
    assert {name: family.defaults[name] for name in integers} == integers
    assert dict(family.aliases) == class_.attribute_map
    assert set(family.parts) == set(class_.sub_configs_defaults)
    assert (model_type in families.index()["encoder_decoders"]) == (
        real.get("is_encoder_decoder") is True or model_type.startswith("musicgen")  # whose constructor sets it
    )
    assert bool(families.decoder_switch(model_type)) == (model_type in ENCODERS)


@pytest.mark.parametrize("name", ["no_such_family", "../bloom", "", "a" * 5000])
def test_what_is_no_family_is_unknown(name):
    assert families.family(name) is None
    assert "transformers has no" in architecture.refusal({"model_type": name})


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"model_type": "bloom"}, False),
        ({"model_type": "gpt-sw3"}, False),
        ({"model_type": "openai-gpt"}, False),
        ({"model_type": "gemma3_text"}, False),
        ({"model_type": "gpt_neox"}, False),
        ({"model_type": "trocr"}, False),
        ({"model_type": "bert"}, True),
        ({"model_type": "bert", "is_decoder": False}, True),
        ({"model_type": "bert", "is_decoder": True}, False),
        ({"model_type": "xlm"}, True),
        ({"model_type": "bart"}, True),
        ({"model_type": "musicgen"}, True),
        ({"model_type": "t5"}, True),
        ({"model_type": "convbert", "is_decoder": True}, True),
        ({"model_type": ["bloom"]}, True),
        ({}, True),
    ],
)
def test_only_causal_language_models_are_measured(config, refused):
    assert bool(architecture.refusal(config)) == refused


def test_a_size_is_found_under_any_of_its_names():
    assert architecture.size({"model_type": "bloom", "n_embed": 96}, "hidden_size") == 96
    assert architecture.size({"model_type": "bloom", "n_head": 3}, "num_attention_heads") == 3
    assert architecture.size({"model_type": "gpt2"}, "max_position_embeddings") == 1024
    assert architecture.size({"model_type": "mistral"}, "max_position_embeddings") == 4096 * 32
    assert architecture.size({"model_type": "bloom"}, "max_position_embeddings") is None
    text = {"model_type": "gemma3_text", "max_position_embeddings": 77}
    assert architecture.size({"model_type": "gemma3", "text_config": text}, "max_position_embeddings") == 77


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ({"model_type": "bloom"}, ["vocab_size", "hidden_size", "n_layer", "n_head"]),
        ({"model_type": "bloom", "n_embed": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}, []),
        ({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}, ["intermediate_size"]),
        ({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 9}, []),
    ],
)  # fmt: skip
def test_sizes_that_decide_the_work_have_to_be_given(config, missing):
    assert [key for key, _ in architecture.unstated_sizes(config)] == missing


def test_none_of_it_imports_torch_or_transformers():
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from inference_benchmark.models import architecture as a, families as f\n"
        "assert f.family('bert') and f.decoder_switch('bert') and not a.is_read('bert', 'nonsense')\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0


def rope(**scaling) -> dict:
    return {"model_type": "llama", "max_position_embeddings": 64, **scaling}


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"model_type": "gpt2", "n_positions": 16}, 16),
        ({"model_type": "roberta", "is_decoder": True, "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "xmod", "max_position_embeddings": 514}, 512),
        ({"model_type": "bert", "is_decoder": True}, 512),
        ({"model_type": "opt", "max_position_embeddings": 512}, 512),
        (rope(), 64),
        (rope(rope_scaling={"rope_type": "yarn", "factor": 4.0}), 256),
        (rope(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}), 128),
        (rope(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}), 64),
        (rope(rope_parameters={"rope_type": "dynamic", "factor": 2, "rope_theta": 1e4}), 128),
        (rope(rope_scaling={"type": "linear", "factor": 2.0}), 128),
        (rope(rope_scaling={"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32}), 64),
        (rope(rope_scaling={"rope_type": "yarn", "factor": "4"}), 64),
    ],
)
def test_the_positions_of_a_model_are_those_that_its_scaling_reaches(config, most):
    assert architecture.too_long(config, most - 7, 8) is None
    assert architecture.too_long(config, most - 6, 8).endswith(f"take {most + 1} positions; it has {most}")


def test_a_model_without_positions_takes_any_length():
    assert architecture.too_long({"model_type": "bloom"}, 10**6, 10**6) is None


LLAMA, MISTRAL = {"model_type": "llama"}, {"model_type": "mistral"}
PART = {"model_type": "gemma3", "text_config": {"layer_types": ["sliding_attention", "full_attention"]}}


@pytest.mark.parametrize(
    ("config", "limited"),
    [
        (LLAMA, None),
        (MISTRAL, "sliding_window 4096"),
        ({**MISTRAL, "sliding_window": None}, None),
        ({"model_type": "phi3", "sliding_window": 8}, "sliding_window 8"),
        ({"model_type": "qwen2", "sliding_window": 8}, None),  # use_sliding_window is false
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, "conv"),
        ({"model_type": "gemma2", "layer_types": ["full_attention"] * 2}, None),
        (PART, "sliding_attention"),
        ({"model_type": "no_such_family"}, None),
    ],
)
def test_a_configuration_may_tell_that_layers_do_not_look_at_all_tokens(config, limited):
    assert architecture.limited_attention(config) == limited


def test_what_a_configuration_tells_of_its_layers_is_true_in_every_family():
    told = [
        model_type for model_type in families.causal() if architecture.limited_attention({"model_type": model_type})
    ]
    assert {"mistral", "moshi"} <= set(told)
    for model_type in told:
        layer_types, _ = get_layer_types_and_kwargs(CONFIG_MAPPING[model_type]().get_text_config(decoder=True))
        assert set(layer_types) != {"full_attention"}, model_type


# -- asking --------------------------------------------------------------------------------------------


def test_keys_of_older_configurations_lead_to_the_attributes_that_get_their_values():
    assert families.family("bloom").converted == {"n_embed": "hidden_size"}
    assert families.family("falcon").converted == {"n_embed": "hidden_size"}
    assert {"rotary_pct", "rotary_emb_base"} <= families.family("gpt_neox").keys
    assert set(families.index()["rope_keys"]) == {"rope_theta", "rope_scaling", "partial_rotary_factor"}
    assert architecture.is_read("llama", "rope_theta")
    assert not architecture.is_read("bloom", "rope_theta")
    assert not architecture.is_read("mistral", "layer_types")


def test_the_kernels_of_attention_are_those_of_the_models_class():
    assert families.attention("bloom") == ["eager"]
    assert families.attention("llama") == ["eager", "sdpa", "flex", "flash"]


def test_plans_of_tensor_parallelism_are_known():
    """A plan of the output layer alone is none; that of a text model is one of the model that holds it."""
    for name in ("llama", "qwen3", "gpt_neox", "gemma3_text", "gemma3"):
        assert families.has_tensor_plan(name), name
    for name in ("bloom", "gpt2", "opt"):
        assert not families.has_tensor_plan(name), name


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('libfoo.so is missing')", "ImportError: libfoo.so is missing"),
        ("", "ImportError: cannot import name 'PreTrainedConfig' from 'transformers'"),
    ],
)
def test_a_transformers_that_does_not_answer_is_named_in_one_line(tmp_path, source, words):
    for name, text in (("transformers", source), ("torch", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    made_up_package(tmp_path, "transformers", "9.9.9")
    code = "from inference_benchmark.models import families\ntry: families.names()\nexcept families.FamiliesError as error: print(error)"
    environ = {"PYTHONPATH": f"{tmp_path}:scripts", "INFERENCE_BENCHMARK_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, env=os.environ | environ, capture_output=True, text=True
    )
    where = f"transformers 9.9.9 in {tmp_path}/transformers"
    assert done.stdout.startswith(f"{where} cannot be asked about its model families: {words}")
    assert done.stdout.count("\n") == 1
    assert done.stderr == "Asking transformers 9.9.9 about its model families, once\n"
