"""Loads a checkpoint with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def config_of(folder: Path | str) -> Any:
    """The configuration of a checkpoint, as transformers has it."""
    from transformers import AutoConfig

    return without_padding(AutoConfig.from_pretrained(folder))


def without_padding(config: Any) -> Any:
    """A configuration of transformers, its padding id set aside if it is outside the vocabulary: torch makes no
    embedding with such an id, and no prompt is padded."""
    text = config.get_text_config(decoder=True)
    padding, size = (getattr(text, name, None) for name in ("pad_token_id", "vocab_size"))
    if padding is not None and size and not -size <= padding < size:
        text.pad_token_id = None
    return config
