"""What transformers' source says about its model families: names, sizes and defaults, and which generate text.

To import transformers' configuration classes would import torch, which takes a second or more each time Snakemake
starts. Sources are read here instead, only those of the families asked for. Nothing is known where transformers is not
installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

#: Files with the names of families, in transformers/models/auto.
_CONFIG_NAMES = ("auto_mappings.py", "configuration_auto.py")


@dataclass(frozen=True)
class Family:
    """One model type, as its configuration class describes it.

    defaults: every key with its default; None if that is not a literal. kinds: the types that a key may have, as
    its annotation names them. aliases: other names of keys, each with the key. converted: keys of older
    configurations that the class still takes, each with the attribute that gets the value, None if unknown. parts: the
    keys that hold the configuration of a part, such as text_config, each with the part's model type, None if unknown.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, frozenset[str]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    converted: Mapping[str, str | None] = field(default_factory=dict)
    parts: Mapping[str, str | None] = field(default_factory=dict)

    def own(self, name: str) -> str:
        """The key that a name stands for: ``n_layer`` for num_hidden_layers in bloom."""
        return name if name in self.defaults else self.aliases.get(name, name)

    def names(self, key: str) -> list[str]:
        """The names of a key: its own first."""
        return [key, *(alias for alias, own in self.aliases.items() if own == key)]

    @property
    def keys(self) -> frozenset[str]:
        """All names that the class accepts."""
        return frozenset().union(self.defaults, self.aliases, self.converted)


@cache
def installed() -> bool:
    return _folder() is not None


@cache
def names() -> Mapping[str, str]:
    """Every model type that transformers knows, with the name of its configuration class."""
    return {
        name: value
        for file in _CONFIG_NAMES
        for name, value in _mapping(_auto(file), "CONFIG_MAPPING_NAMES").items()
        if value.isidentifier()
    }


@cache
def causal() -> Mapping[str, str]:
    """Every model type that transformers can load as a causal language model, with the name of that class."""
    return _mapping(_auto("modeling_auto.py"), "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")


@cache
def family(model_type: str) -> Family | None:
    """A family, by its model type; None if transformers does not know it or its source cannot be read."""
    class_name = names().get(model_type)
    sources = _sources(model_type, "configuration")
    return next((_described(source, class_name) for source in sources if _holds(source, class_name)), None)


@cache
def common() -> Family:
    """The keys that every configuration accepts. Parsing their source is slow, so call this only when needed."""
    described = _described(_text("configuration_utils.py"), "PreTrainedConfig")
    return replace(described, defaults={"tie_word_embeddings": None, **described.defaults})


@cache
def rope_keys() -> frozenset[str]:
    """The keys of rotary embeddings in configurations older than ``rope_parameters``."""
    return frozenset(_described(_text("modeling_rope_utils.py"), "RotaryEmbeddingConfigMixin").converted)


@cache
def read_by_model(model_type: str) -> frozenset[str]:
    """The keys that the code of a family's model reads from a configuration, whether its class declares them or not."""
    return frozenset(
        name
        for source in _sources(model_type, "modeling")
        for match in re.finditer(r'config\.(\w+)|getattr\((?:self\.)?config, "(\w+)"', source)
        for name in match.groups()
        if name
    )


@cache
def attention(model_type: str) -> tuple[str, ...]:
    """The kernels of attention that a family's model has."""
    flags = {"sdpa": "_supports_sdpa", "flex": "_supports_flex_attn", "flash": "_supports_flash_attn"}
    text = "\n".join(_sources(model_type, "modeling"))
    return ("eager", *(name for name, flag in flags.items() if re.search(rf"^ +{flag} = True", text, re.MULTILINE)))


@cache
def is_encoder_decoder(model_type: str) -> bool:
    """Whether models of this type have an encoder by default, whose output the decoder continues."""
    this_family = family(model_type)
    return this_family is not None and this_family.defaults.get("is_encoder_decoder") is True


@cache
def decoder_switch(model_type: str) -> str | None:
    """The key that makes a decoder of a family of encoders, as ``is_decoder: true`` does in bert; None for others.

    Decoders may have that key, too. They either do not look at it (gpt_neox) or set it themselves (trocr).
    """
    this_family = family(model_type) or Family()
    if this_family.defaults.get("causal") is False:  # xlm
        return "causal"
    if this_family.defaults.get("is_decoder") is not False:
        return None
    sources = _sources(model_type, "modeling")
    is_read = any(re.search(r"config\.is_decoder(?! =)", source) for source in sources)
    is_set = any(re.search(r"^ +config\.is_decoder = True", source, re.MULTILINE) for source in sources)
    return "is_decoder" if is_read and not is_set else None


# -- files ---------------------------------------------------------------------------------------------


@cache
def _folder() -> Path | None:
    spec = importlib.util.find_spec("transformers")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


@cache
def _text(*parts: str) -> str:
    """A source file of transformers; empty if there is none."""
    path = _folder().joinpath(*parts) if installed() else None
    return path.read_text(encoding="utf-8") if path and path.is_file() else ""


def _auto(name: str) -> str:
    return _text("models", "auto", name)


@cache
def _sources(model_type: str, kind: str) -> tuple[str, ...]:
    """The configuration or modeling sources of a family."""
    if model_type not in names() or not installed():
        return ()
    special = {
        name: folder
        for file in _CONFIG_NAMES
        for name, folder in _mapping(_auto(file), "SPECIAL_MODEL_TYPE_TO_MODULE_NAME").items()
    }
    # A type may have no folder and share the class of another: gpt-sw3 is gpt2.
    same_class = [name for name, value in names().items() if value == names()[model_type]]
    folders = (special.get(name, name.replace("-", "_")) for name in (model_type, *same_class))
    sources = (sorted((_folder() / "models" / name).glob(f"{kind}_*.py")) for name in folders)
    return tuple(path.read_text(encoding="utf-8") for path in next(filter(None, sources), ()))


def _mapping(text: str, name: str) -> dict[str, str]:
    """What a source file puts into a mapping from text to text, by assignments and updates."""
    statements = re.findall(rf"^{name}\b.*?(?:^\)|\*\*{name}\))", text, re.MULTILINE | re.DOTALL)
    return {key: value for part in statements for key, value in re.findall(r'"([^"]+)"\s*[:,]\s*"([^"]+)"', part)}


# -- classes -------------------------------------------------------------------------------------------


def _holds(source: str, class_name: str) -> bool:
    return re.search(rf"^class {class_name}\b", source, re.MULTILINE) is not None


def _described(source: str, class_name: str) -> Family:
    """What a class and those that it inherits from in the same file say; nothing if the file has no such class."""
    module = ast.parse(source)
    classes = {each.name: each for each in module.body if isinstance(each, ast.ClassDef)}
    defaults: dict[str, Any] = {}
    kinds: dict[str, frozenset[str]] = {}
    aliases: dict[str, str] = {}
    parts: dict[str, str | None] = {}
    converted: dict[str, str | None] = {}
    for each in reversed([*_ancestry(class_name, classes)]):
        for item in each.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                if "ClassVar" not in (annotation := ast.unparse(item.annotation)):
                    defaults[item.target.id] = _default(item.value)
                    kinds[item.target.id] = frozenset(re.findall(r"\w+", re.sub(r"\[.*\]", "", annotation)))
            elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
                if item.targets[0].id == "attribute_map":
                    aliases |= _default(item.value) or {}
                elif item.targets[0].id == "sub_configs_defaults" and isinstance(item.value, ast.Dict):
                    parts |= {
                        key.value: _part_type(value)
                        for key, value in zip(item.value.keys, item.value.values, strict=True)
                        if isinstance(key, ast.Constant)
                    }
            elif isinstance(item, ast.FunctionDef) and "self.is_encoder_decoder = True" in ast.unparse(item):
                defaults["is_encoder_decoder"] = True
        converted |= _converted_keys(each)
    return Family(defaults, kinds, aliases, converted, parts)


def _ancestry(name: str, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    if name in classes:
        yield classes[name]
        for base in classes[name].bases:
            yield from _ancestry(base.id if isinstance(base, ast.Name) else "", classes)


def _converted_keys(node: ast.ClassDef) -> dict[str, str | None]:
    """Keys that the methods of a class take out of ``kwargs``, each with the attribute that gets the value."""
    converted: dict[str, str | None] = {}
    for method in (item for item in node.body if isinstance(item, ast.FunctionDef)):
        if method.name not in ("__post_init__", "convert_rope_params_to_dict"):
            continue
        variables: dict[str, str] = {}
        for part in ast.walk(method):
            for key in _taken_keys(part):
                converted.setdefault(key, None)
            if not isinstance(part, ast.Assign):
                continue
            target, value = part.targets[0], list(ast.walk(part.value))
            keys = [key for inner in value for key in _taken_keys(inner)]
            keys += [variables[inner.id] for inner in value if isinstance(inner, ast.Name) and inner.id in variables]
            if isinstance(target, ast.Name) and keys:
                variables[target.id] = keys[0]
            elif isinstance(target, ast.Attribute) and keys:
                converted[keys[0]] = target.attr
    return converted


def _taken_keys(part: ast.AST) -> Iterator[str]:
    """The key of ``kwargs.pop("key")``, ``kwargs.get("key")`` or ``kwargs["key"]``."""
    if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in ("pop", "get"):
        of, keys = part.func.value, part.args[:1]
    elif isinstance(part, ast.Subscript):
        of, keys = part.value, [part.slice]
    else:
        return
    if isinstance(of, ast.Name) and of.id == "kwargs":
        yield from (key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def _part_type(value: ast.expr) -> str | None:
    """The model type of ``SomeConfig``, ``SubConfigSpec(SomeConfig)`` or ``SubConfigSpec(model_type="...")``."""
    given = {keyword.arg: keyword.value for keyword in value.keywords} if isinstance(value, ast.Call) else {}
    if "model_type" in given:
        return _default(given["model_type"])
    class_name = next((node.id for node in ast.walk(value) if isinstance(node, ast.Name) and node.id in _types()), "")
    return _types().get(class_name)


@cache
def _types() -> Mapping[str, str]:
    """The model type of each configuration class."""
    return {class_name: name for name, class_name in names().items()}


def _default(node: ast.expr | None) -> Any:
    """A literal, a product of literals, or the default of ``interval(...)(default=literal)``; else None."""
    if isinstance(node, ast.Call):
        node = next((keyword.value for keyword in node.keywords if keyword.arg == "default"), None)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _default(node.left), _default(node.right)
        return left * right if isinstance(left, int) and isinstance(right, int) else None
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None
