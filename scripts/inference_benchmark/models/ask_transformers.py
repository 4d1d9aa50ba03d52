"""Asks transformers about all of its model families, and saves the answers as JSON. Runs as a separate process.

The folder holds ``index.json``, and ``MODEL_TYPE.json`` with the fields of families.Family for each family that
generates text or is a part of one.
"""

import dataclasses
import inspect
import json
import logging
import re
import sys
import traceback
import types
import typing
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from inference_benchmark.models.cache import REFUSED

#: Values of each kind, to find out what becomes of a key.
_TRIED = (77, 0.375, True, "text", {}, [])
#: The attribute of a model's class that says whether it has these kernels of attention.
_ATTENTION = {"sdpa": "_supports_sdpa", "flex": "_supports_flex_attn", "flash": "_supports_flash_attn"}
#: The method of a configuration that reads the older keys of rotary embeddings.
_OF_ROPE = "convert_rope_params_to_dict"


def answers() -> dict[str, Any]:
    """The content of each file, by its name without ``.json``."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    classes, found = {}, {}
    for model_type in CONFIG_MAPPING_NAMES:
        try:
            class_ = classes[model_type] = CONFIG_MAPPING[model_type]
            if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
                found[model_type] = _family(class_, PreTrainedConfig) | _model(MODEL_FOR_CAUSAL_LM_MAPPING[class_])
        except Exception as error:  # it needs a package that is not installed, or a broken one
            print(f"transformers cannot import {model_type}: {error}", file=sys.stderr)
    parts = {part for family in found.values() for part in family["parts"].values()}
    found |= {each: _family(classes[each], PreTrainedConfig) for each in parts & classes.keys() - found.keys()}
    if not found:
        raise LookupError("it knows no causal language model")
    with_rope = next(
        each
        for each in classes.values()
        if hasattr(each, "rope_parameters") and getattr(each, _OF_ROPE) is getattr(PreTrainedConfig, _OF_ROPE)
    )
    rope_keys = _older_keys(with_rope, [getattr(with_rope, _OF_ROPE)], vars(with_rope()))
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)} | {"tie_word_embeddings"}
    common |= _older_keys(PreTrainedConfig, [PreTrainedConfig.__post_init__], common).keys() - rope_keys.keys()
    found["index"] = {
        "names": dict(CONFIG_MAPPING_NAMES),
        "causal": dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        "encoder_decoders": [name for name, class_ in classes.items() if _has_encoder_and_decoder(class_)],
        "common": sorted(common),
        "rope_keys": sorted(rope_keys),
    }
    return found


def _family(class_: type, base: type) -> dict[str, Any]:
    """What a configuration class says: families.Family without what only its model's class knows."""
    own = [each for each in class_.__mro__ if issubclass(each, base) and each is not base]
    declared = {name for each in own for name in inspect.get_annotations(each)}
    fields = {field.name: field for field in dataclasses.fields(class_) if field.name in declared}
    methods = [each.__dict__[name] for each in own for name in ("__post_init__", _OF_ROPE) if name in each.__dict__]
    return {
        "defaults": {name: _plain(field.default) for name, field in fields.items()},
        "kinds": {name: sorted(_kinds(field.type)) for name, field in fields.items()},
        "aliases": dict(class_.attribute_map),
        "converted": _older_keys(class_, methods, {*fields, *class_.attribute_map, "model_type"}),
        "parts": {key: part.model_type or None for key, part in class_.sub_configs_defaults.items()},
    }


def _plain(default: Any) -> Any:
    return default if isinstance(default, (bool, int, float, str, list, tuple, dict)) else None


def _kinds(annotation: Any) -> Iterator[str]:
    """The names of the types in an annotation, without those of their items."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for each in typing.get_args(annotation):
            yield from _kinds(each)
    elif origin is typing.Annotated:
        yield from _kinds(typing.get_args(annotation)[0])
    elif annotation in (None, type(None)):
        yield "None"
    else:
        yield getattr(origin or annotation, "__name__", str(annotation))


def _has_encoder_and_decoder(class_: type) -> bool:
    if "is_encoder_decoder" in class_.__post_init__.__code__.co_names:  # it may set that itself
        return class_().is_encoder_decoder is True
    return class_.is_encoder_decoder is True


# -- keys of older configurations -----------------------------------------------------------------------


def _older_keys(class_: type, methods: Iterable[types.FunctionType], known: Iterable[str]) -> dict[str, str | None]:
    """The keys that methods of a class take besides the known ones, each with the attribute that gets the value.

    What a class does not take becomes an attribute of the same name and changes nothing else.
    """
    texts = {text for method in methods for text in _texts(method.__code__) if text.isidentifier()}.difference(known)
    defaults = vars(class_()) if texts else {}
    found: dict[str, str | None] = {}
    for key in sorted(texts):
        for value in _TRIED:
            try:
                attributes = vars(class_(**{key: value}))
            except Exception as error:
                if traceback.extract_tb(error.__traceback__)[-1].filename == inspect.getfile(class_):
                    found[key] = None  # its own code could not use the value
                continue
            changed = [name for name in attributes if name != key and attributes[name] != defaults.get(name, key)]
            if key not in attributes or changed:
                found[key] = next((name for name in changed if attributes[name] is value), None)
                break
    return found


def _texts(code: types.CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, types.CodeType):
            yield from _texts(constant)


# -- models ---------------------------------------------------------------------------------------------


def _model(class_: type) -> dict[str, Any]:
    """What a model's class says: its kernels of attention, how it is split, and the keys of a configuration that its
    code reads."""
    plan = {**(getattr(class_.config_class, "base_model_tp_plan", None) or {}), **(class_._tp_plan or {})}
    # Only the source tells which keys are read: some are read in certain calls alone.
    source = inspect.getsource(sys.modules[class_.__module__])
    keys = re.findall(r'config\.(\w+)|getattr\((?:self\.)?config, "(\w+)"', source)
    # An encoder may become a decoder by that key. A decoder may have it and not look at it, or set it by itself.
    is_read = re.search(r"config\.is_decoder(?! =)", source) is not None
    is_set = re.search(r"^ +config\.is_decoder = True", source, re.MULTILINE) is not None
    return {
        "attention": ["eager", *(name for name, flag in _ATTENTION.items() if getattr(class_, flag, False))],
        "read": sorted({key for pair in keys for key in pair if key}),
        "tensor_plan": any("*" in name for name in plan),  # it may be of the output layer alone
        "reads_is_decoder": is_read and not is_set,
        "positions_after_padding": re.search(r"max_position_embeddings, .*, padding_idx=", source) is not None,
    }


def main(request: str) -> int:
    """request: JSON with output, a folder that does not exist."""
    warnings.simplefilter("ignore")
    logging.disable()
    folder = Path(json.loads(request)["output"])
    try:
        found = answers()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return REFUSED
    folder.mkdir()
    for name, content in found.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
