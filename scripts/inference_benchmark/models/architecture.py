"""What a model's configuration (config.json, or ``architecture`` in config.yaml) says: its sizes, whether it generates
text as a causal language model, and how its weights are quantised already."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from inference_benchmark.models import families

#: Keys whose values decide how much work a model is. Families name some of them otherwise (families.Family.own).
_DECISIVE = re.compile(
    r"(\w+_)?hidden_size(_\w+)?|(?!\w*type_)(\w+_)?vocab_size(_\w+)?|embedding_size|num_(hidden_)?layers|(\w+_)?heads|"
    r"(\w+_)?head_dim|dim_head|attention_head_size|(\w+_)?intermediate_size(_mlp)?|(\w+_)?ffn_dim|dim_ff|dff|d_inner|"
    r"feed_forward_size|(\w+_)?experts(_per_tok)?|moe_topk|(\w+_)?rank|(\w+_)?state_size|mamba_d_\w+|(mamba_)?expand"
)
#: Sizes that no model has none of.
_POSITIVE = {
    "hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "max_position_embeddings",
}  # fmt: skip

#: How rotary positions may reach further than the configured ones: by a factor. Others are configured with all of them.
_SCALED_ROPE = ("linear", "dynamic", "yarn")

#: Methods by which the weights of a checkpoint may be quantised already. Each is the only precision of such a model.
QUANTISED = ("gptq", "awq")


def quantisation(config: Mapping[str, Any]) -> str | None:
    """The method by which the weights are quantised already, as transformers names it; None if they are not."""
    if not (settings := config.get("quantization_config")):
        return None
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    return str(method or "quantization_config")


def not_in(config: Mapping[str, Any], precision: str) -> str | None:
    """Why a model cannot be loaded in a precision, as far as its configuration decides that; None if it can."""
    method = quantisation(config)
    if method == (precision if precision in QUANTISED else None):
        return None
    return f"its weights are {f'quantised already, by {method}' if method else f'not quantised by {precision}'}"


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why a model of this configuration is not measured; None if nothing speaks against it, as far as is known here."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return "has no model_type; allowed: the family as transformers names it"
    if not families.names():  # transformers is not installed here, and the job will tell
        return None
    if model_type not in families.names():
        return f"transformers has no {model_type[:80]}"
    if config.get("is_encoder_decoder", model_type in families.index()["encoder_decoders"]):
        kind = "an encoder and a decoder"
    elif model_type not in families.causal():
        kind = "not a causal language model"
    elif (switch := families.decoder_switch(model_type)) and config.get(switch) is not True:
        kind = f"an encoder unless {switch} is true"
    else:
        return None
    return f"{model_type} is {kind}; allowed: causal language models, such as bloom, gpt2 or llama"


def size(config: Mapping[str, Any], name: str) -> int | None:
    """A size by its common name, such as num_hidden_layers: the configured one under any of its names, else the
    family's default, else None. If the configuration holds a text model, the size of that."""
    config, family = _of_text(config)
    own = family.own(name)
    values = [*given(config, family, own).values(), family.defaults.get(own)]
    return next((value for value in values if type(value) is int), None)


def too_long(config: Mapping[str, Any], prompt_tokens: int, new_tokens: int) -> str | None:
    """Why a model has no positions for these lengths; None if it has. The last new token is fed to no model."""
    needed, room = prompt_tokens + new_tokens - 1, _positions(config)
    if room is None or needed <= room:
        return None
    return f"prompt and all new tokens but the last take {needed} positions; it has {room}"


def _positions(config: Mapping[str, Any]) -> int | None:
    """How many positions a model has; None where no number limits them."""
    room = size(config, "max_position_embeddings")
    text, family = _of_text(config)
    if room and family.positions_after_padding:
        return room - (size(config, "pad_token_id") or 0) - 1
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if room is None or not isinstance(scaling, Mapping):
        return room
    factor = scaling.get("factor")
    if scaling.get("rope_type", scaling.get("type")) in _SCALED_ROPE and type(factor) in (int, float):
        original = scaling.get("original_max_position_embeddings")
        scaled = (original if type(original) is int else room) * factor
        return max(room, int(scaled)) if math.isfinite(scaled) else room
    return room


def bloom_parameters(config: Mapping[str, Any]) -> int | None:
    """The number of parameters of a BLOOM: embeddings, matrices, biases and norms. None for another family, or where
    transformers, which knows the names of sizes, is not installed."""
    if config.get("model_type") != "bloom" or not families.names():
        return None
    hidden, layers, vocab = (size(config, name) for name in ("hidden_size", "num_hidden_layers", "vocab_size"))
    return (vocab + 4) * hidden + layers * (12 * hidden + 13) * hidden


def limited_attention(config: Mapping[str, Any]) -> str | None:
    """What tells that layers do not look at all tokens before theirs; None if the configuration does not tell: a family
    that declares layer_types may derive them from other keys."""
    config, family = _of_text(config)
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return ", ".join(sorted({*map(str, kinds)} - {"full_attention"})) or None
    window = config.get("sliding_window", family.defaults.get("sliding_window"))
    is_derived = {"layer_types", "use_sliding_window"} & family.keys
    return None if window is None or is_derived else f"sliding_window {window}"


def _of_text(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], families.Family]:
    """A configuration and its family; those of the text model if it holds one."""
    family = families.family(config["model_type"]) or families.Family()
    if text_type := family.parts.get("text_config"):
        text = config.get("text_config")
        return _of_text({**(text if isinstance(text, Mapping) else {}), "model_type": text_type})
    return config, family


def given(config: Mapping[str, Any], family: families.Family, key: str) -> dict[str, Any]:
    """The values that a configuration has for a key, under any of its names."""
    older = [name for name, attribute in family.converted.items() if attribute == key]
    return {name: config[name] for name in dict.fromkeys([*family.names(key), *older]) if name in config}


def unstated_sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """(key, default) of sizes that decide the work and would silently be transformers' default for the family."""
    family = families.family(config["model_type"]) or families.Family()
    for key, default in family.defaults.items():
        if type(default) is int and _is_decisive(family, key) and not given(config, family, key):
            yield key, default


def smallest(family: families.Family, key: str) -> int | None:
    """The smallest integer that makes sense for a key; None if any does."""
    return 1 if _POSITIVE.intersection(family.names(key)) else 0 if _is_decisive(family, key) else None


def _is_decisive(family: families.Family, key: str) -> bool:
    return any(map(_DECISIVE.fullmatch, family.names(key)))


def is_read(model_type: str, key: str) -> bool:
    """Whether a family's configuration class accepts a key, or its model reads it all the same."""
    family = families.family(model_type)
    if family is None or key in family.keys or key in family.read:
        return True
    if key in families.index()["rope_keys"]:
        return "rope_parameters" in family.defaults
    return key in families.index()["common"]
