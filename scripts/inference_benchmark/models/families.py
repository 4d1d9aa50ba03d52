"""What transformers says about its model families: names, sizes and defaults, and which generate text.

Importing transformers takes seconds and imports torch. So a separate process asks it (ask_transformers.py), once for
each installation, and the answers are kept in the cache. Nothing is known where transformers or torch is not installed.
"""

import hashlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from inference_benchmark import files
from inference_benchmark.machine.packages import PACKAGES
from inference_benchmark.models.cache import RefusedError, cache_root, made_once
from inference_benchmark.models.weights import CheckpointError


class FamiliesError(CheckpointError):
    """transformers is installed and does not answer; the message says why."""


@dataclass(frozen=True)
class Family:
    """One model type, as its configuration class and its model's class describe it.

    defaults: every key with its default; null if that is no JSON. kinds: the names of the types that a key may have.
    aliases: other names of keys, each with the key. converted: keys of older configurations that the class still takes,
    each with the attribute that gets the value, None if it is derived from it. parts: the keys that hold the
    configuration of a part, such as text_config, each with the part's model type, None if unknown. attention: the
    kernels of attention that the model has. read: the keys that the model's code reads, whether they are declared or
    not. tensor_plan: whether transformers has a plan of how to split its layers over GPUs. reads_is_decoder: whether
    ``is_decoder: true`` makes a decoder of it. positions_after_padding: whether the first position that is used is the
    one after pad_token_id.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    converted: Mapping[str, str | None] = field(default_factory=dict)
    parts: Mapping[str, str | None] = field(default_factory=dict)
    attention: Sequence[str] = ()
    read: Sequence[str] = ()
    tensor_plan: bool = False
    reads_is_decoder: bool = False
    positions_after_padding: bool = False

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
def index() -> Mapping[str, Any]:
    """What is known of all families. encoder_decoders: the model types whose models have an encoder by default, whose
    output the decoder continues. common: the keys that every configuration takes, but for those of rotary embeddings.
    rope_keys: these, in configurations older than ``rope_parameters``. Raises FamiliesError."""
    if installed():
        return files.read_json(_folder() / "index.json")
    return {"names": {}, "causal": {}, "encoder_decoders": [], "common": [], "rope_keys": []}


def names() -> Mapping[str, str]:
    """Every model type that transformers knows, with the name of its configuration class. Raises FamiliesError."""
    return index()["names"]


def causal() -> Mapping[str, str]:
    """Every model type that transformers can load as a causal language model, with the name of that class."""
    return index()["causal"]


@cache
def family(model_type: str) -> Family | None:
    """A family, by its model type; None if transformers does not know it, and if it does not generate text."""
    path = _folder() / f"{model_type}.json" if model_type in names() else None
    return Family(**files.read_json(path)) if path and path.exists() else None


def attention(model_type: str) -> Sequence[str]:
    """The kernels of attention that a family's model has; all that there are if nothing is known of it."""
    known = family(model_type)
    return known.attention if known else ("eager", "sdpa", "flex", "flash")


def has_tensor_plan(model_type: str) -> bool:
    """Family.tensor_plan; True if nothing is known of it."""
    known = family(model_type)
    text_type = known and known.parts.get("text_config")
    return known is None or known.tensor_plan or bool(text_type and has_tensor_plan(text_type))


def decoder_switch(model_type: str) -> str | None:
    """The key that makes a decoder of a family of encoders, as ``is_decoder: true`` does in bert; None for others."""
    this_family = family(model_type) or Family()
    if this_family.defaults.get("causal") is False:  # xlm
        return "causal"
    is_switch = this_family.defaults.get("is_decoder") is False and this_family.reads_is_decoder
    return "is_decoder" if is_switch else None


# -- the answers -----------------------------------------------------------------------------------------


@cache
def installed() -> bool:
    return None not in map(importlib.util.find_spec, ("transformers", "torch"))


def installation() -> str:
    """A name for the transformers that is installed, which no other has. Raises FamiliesError."""
    return _folder().name


@cache
def _folder() -> Path:
    """The folder with the answers of the transformers that is installed. Raises FamiliesError."""
    package = Path(importlib.util.find_spec("transformers").origin).parent
    version = PACKAGES["transformers"].version
    sources = [package / "__init__.py"]
    if not re.fullmatch(r"[\d.]+", version):  # a checkout, whose files change between versions
        sources += sorted(package.glob("models/*/*.py"))
    asking = Path(__file__).with_name("ask_transformers.py").read_bytes()
    key = [version, *((str(path), path.stat().st_mtime_ns) for path in sources), asking]
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    folder, module = cache_root() / "transformers" / digest, "inference_benchmark.models.ask_transformers"
    failure = f"transformers {version} could not be asked about its model families"
    start = f"Asking transformers {version} about its model families, once"
    try:
        return made_once(folder, module, {}, failure, start)
    except RefusedError as error:
        why = f"cannot be asked about its model families: {error}"
        raise FamiliesError(f"transformers {version} in {package} {why}") from None
