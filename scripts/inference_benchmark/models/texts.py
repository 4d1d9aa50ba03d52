"""The text that the quality of models is measured on, and its tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inference_benchmark import files
from inference_benchmark.analysis.quality import FEWEST_WINDOWS, WINDOW_TOKENS
from inference_benchmark.models.weights import CheckpointError
from inference_benchmark.units import format_bytes

if TYPE_CHECKING:
    import numpy

#: The name of the text that every Python carries: the language reference as its help() prints it.
PYTHON = "python"
#: So many characters of a text are read for each token that is asked for; a token has four, as a rule.
_CHARACTERS = 32
#: Files that tokenizers are read from.
_TOKENIZERS = ("tokenizer.json", "tekken.json", "*.model", "vocab.*")


class TextError(ValueError):
    """A text that cannot be used; the message says why and what to do."""


class Text(NamedTuple):
    """The beginning of a text: as much as its tokens can take, whatever its length."""

    name: str
    content: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content.encode()).hexdigest()

    def save(self) -> None:
        """Keep it for jobs in this working directory, which may have another Python. Raises OSError."""
        if not _place(self.sha256).exists():
            files.write(self.content, _place(self.sha256))


def read(named: str, path: Path, tokens: int) -> Text:
    """The text that a configuration names: PYTHON or a file, whose path is also given. Raises TextError."""
    try:
        if named == PYTHON:
            from pydoc_data.topics import topics

            return Text(named, "\n\n".join(topics[name] for name in sorted(topics))[: _CHARACTERS * tokens])
        if not path.is_file():
            raise TextError(f"{path} is not a file; allowed: {PYTHON}, or a file of text in UTF-8")
        with path.open(encoding="utf-8") as stream:
            text = Text(path.name, stream.read(_CHARACTERS * tokens))
    except UnicodeDecodeError:
        raise TextError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None
    except ImportError:
        raise TextError(f"this Python has no pydoc_data, which {PYTHON} is read from; name a file of text") from None
    if (n_bytes := len(text.content.encode())) < FEWEST_WINDOWS * WINDOW_TOKENS:  # no tokenizer makes more of them
        least = f"{FEWEST_WINDOWS} windows of {WINDOW_TOKENS} tokens"
        raise TextError(f"{path} holds {format_bytes(n_bytes)}, less than {least}; name a longer text")
    return text


def saved(sha256: str) -> Path:
    """The file in which a text was kept. Raises CheckpointError where it is not there whole."""
    path = _place(sha256)
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise CheckpointError(f"{path} does not hold the text of this study; remove it, and run Snakemake")
    return path


def _place(sha256: str) -> Path:
    return Path(".snakemake", "texts", f"{sha256}.txt")


def has_tokenizer(checkpoint: Path) -> bool:
    """Whether a folder seems to hold one; whether it can be used is known when it is loaded."""
    return any(any(checkpoint.glob(pattern)) for pattern in _TOKENIZERS)


def windows(text: Path, checkpoint: Path, tokens: int) -> numpy.ndarray:
    """The first tokens of a text by a checkpoint's tokenizer, at most so many: token ids, int64 (windows,
    WINDOW_TOKENS). If the tokenizer begins texts with a token of its own, each window begins with it, as in llama.cpp.
    Raises CheckpointError."""
    import numpy
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        ids = tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False, verbose=False)["input_ids"]
        first = [each for each in tokenizer("a")["input_ids"][:1] if each == tokenizer.bos_token_id]
    except Exception as error:  # libraries raise many kinds of errors for files that they do not support
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"{checkpoint}: its tokenizer cannot be used: {reason}") from None
    n_windows = min(len(first + ids), tokens) // WINDOW_TOKENS
    if n_windows < FEWEST_WINDOWS:
        least = f"{FEWEST_WINDOWS} windows of {WINDOW_TOKENS}"
        raise CheckpointError(f"{len(ids)} tokens of the text are less than {least}; name a longer text")
    found = numpy.array((first + ids)[: n_windows * WINDOW_TOKENS], dtype=numpy.int64).reshape(n_windows, -1)
    found[:, : len(first)] = first
    return found
