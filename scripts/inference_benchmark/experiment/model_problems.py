"""What is wrong with a model of a configuration: which of its sources, and the sizes of an architecture."""

from collections.abc import Iterator, Mapping
from typing import Any

from inference_benchmark.experiment.config_errors import guess_text, show, where_text, yaml_hint
from inference_benchmark.models import architecture, families

#: Keys that published configurations have and that mean nothing here, with the reason.
_WITHOUT_MEANING = {
    "quantization_config": "the weights are drawn in fp32 and the precisions of a grid decide",
    "auto_map": "code from the hub is not run",
    **dict.fromkeys(("attn_implementation", "_attn_implementation", "experts_implementation"), "the engine decides"),
    **dict.fromkeys(("_name_or_path", "transformers_weights"), "has no meaning without weights"),
}
_WORDS = {
    "int": "an integer", "float": "a number with a decimal point", "str": "a text", "bool": "true or false",
    "list": "a list", "tuple": "a list", "dict": "a mapping", "RopeParameters": "a mapping", "None": "null",
}  # fmt: skip
_KIND = {int: "int", float: "float", str: "str", bool: "bool", list: "list", dict: "dict", type(None): "None"}


def problems(where: str, model: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an entry of ``models``, one line each; where: its place in the configuration."""
    sources = [key for key in ("architecture", "checkpoint", "hub") if key in model]
    if len(sources) != 1:
        given = " and ".join(sources) or "none of them"
        yield f"{where}: has {given}; allowed: exactly one of architecture, checkpoint, hub"
    if "seed" in model and "architecture" not in model:
        yield f"{where}.seed: {show(model['seed'])} has no use without architecture; remove it"
    if "revision" in model and "hub" not in model:
        yield f"{where}.revision: {show(model['revision'])} has no use without hub; remove it"
    if "hub" in model and "revision" not in model:
        yield f"{where}.revision: missing; allowed: a commit, tag or branch of {model['hub']}"
    if "architecture" in model:
        yield from _architecture_problems(f"{where}.architecture", model["architecture"])


def _architecture_problems(where: str, sizes: Mapping[str, Any]) -> Iterator[str]:
    model_type = sizes["model_type"]
    if refusal := architecture.refusal(sizes):
        guess = "" if model_type in families.names() else guess_text(model_type, families.causal())
        yield f"{where}.model_type: {refusal}{guess}"
        return
    family = families.family(model_type)
    if family is None:  # transformers is not installed here, and the job will tell
        return
    if family.parts:
        remedy = "measure it as a checkpoint, or choose another family"
        if (text_type := family.parts.get("text_config")) in families.causal():
            remedy = f"write the keys of its text_config here, with model_type: {text_type}"
        yield f"{where}.model_type: {model_type} has parts of unstated sizes ({', '.join(family.parts)}); {remedy}"
        return
    for key in (key for key in sizes if key != "model_type"):
        yield from _key_problems(where, sizes, family, key)
    for key, default in architecture.unstated_sizes(sizes):
        yield f"{where}.{key}: missing; give it, or {model_type} would silently have {default}, transformers' default"
    yield from _contradictions(where, sizes, family)


def _key_problems(where: str, sizes: Mapping[str, Any], family: families.Family, key: str) -> Iterator[str]:
    model_type, value, where = sizes["model_type"], sizes[key], f"{where}.{where_text([key])}"
    if key in _WITHOUT_MEANING and key not in family.defaults:
        yield f"{where}: {_WITHOUT_MEANING[key]}; remove it"
        return
    if not architecture.is_read(model_type, key):
        meant = [*family.defaults, *family.aliases, *families.index()["common"]]
        meant = [name for name in meant if name not in sizes]
        yield f"{where}: unknown key; {model_type} has no such size{guess_text(key, meant) or '; remove it'}"
        return
    own = family.own(key)
    kinds = set(family.kinds.get(own, ()))
    least = architecture.smallest(family, own)
    is_small = least is not None and type(value) is int and value < least
    if kinds and kinds <= _WORDS.keys() and (_KIND.get(type(value)) not in kinds or is_small):
        allowed = " or ".join(dict.fromkeys(word for kind, word in _WORDS.items() if kind in kinds))
        if least is not None:
            allowed = allowed.replace("an integer", f"an integer >= {least}")
        hint = yaml_hint(value) if "float" in kinds else ""
        yield f"{where}: {show(value)} is not allowed; allowed: {allowed}{hint}"


def _contradictions(where: str, sizes: Mapping[str, Any], family: families.Family) -> Iterator[str]:
    for key in family.defaults:
        values = architecture.given(sizes, family, key)
        if len({show(value) for value in values.values()}) > 1 and set(family.names(key)).issuperset(values):
            both = " and ".join(f"{name}: {show(value)}" for name, value in values.items())
            yield f"{where}: {both} are the same size under two names; keep one"
    names = ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "num_hidden_layers")
    width, heads, kv_heads, head_dim, layers = (architecture.size(sizes, name) for name in names)
    if width and heads and not head_dim and width % heads:
        yield f"{where}: a width of {width} cannot be split into {heads} attention heads; allowed: a divisor of {width}"
    if heads and kv_heads and heads % kv_heads:
        problem = f"{heads} attention heads cannot share {kv_heads} heads of keys and values"
        yield f"{where}: {problem}; allowed: a divisor of {heads}"
    for key, value in sizes.items():
        if key.endswith("layer_types") and isinstance(value, list) and layers and len(value) != layers:
            yield f"{where}.{key}: has {len(value)} entries for {layers} layers; give one for each layer, or remove it"
