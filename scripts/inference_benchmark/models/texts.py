"""Texts that the quality of models is measured on, or that prompts are windows of, and their tokens."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inference_benchmark import files
from inference_benchmark.analysis.quality import FEWEST_WINDOWS, WINDOW_TOKENS
from inference_benchmark.models.cache import REFUSED, cache_root, made_once
from inference_benchmark.models.weights import CheckpointError
from inference_benchmark.units import format_bytes

if TYPE_CHECKING:
    import numpy

#: The name of the text that every Python carries: the language reference as its help() prints it.
PYTHON = "python"
#: So many characters of a text are read for each token that is asked for; a token has four, as a rule.
_CHARACTERS = 32
#: So many tokens of a text prompts are windows of, whatever the grid: what another batch size reads is the same.
TOKENS_FOR_PROMPTS = 2**15
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


class Tokens(NamedTuple):
    """The token ids of a text. first: the token that the tokenizer begins each text with, or none."""

    first: list[int]
    ids: list[int]


def read(named: str, path: Path, tokens: int, least: int = FEWEST_WINDOWS * WINDOW_TOKENS) -> Text:
    """The text that a configuration names: PYTHON or a file, whose path is also given. least: tokens that it must have.
    Raises TextError."""
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
    if (n_bytes := len(text.content.encode())) < least:  # no tokenizer makes more of them
        raise TextError(f"{path} holds {format_bytes(n_bytes)}, less than {least} tokens; name a longer text")
    return text


def saved(sha256: str) -> Path:
    """The file in which a text was kept. Raises CheckpointError where it is not there whole."""
    path = _place(sha256)
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise CheckpointError(f"{path} does not hold the text with this digest; remove it, and run Snakemake")
    return path


def _place(sha256: str) -> Path:
    return Path(".snakemake", "texts", f"{sha256}.txt")


def has_tokenizer(checkpoint: Path) -> bool:
    """Whether a folder seems to hold one; whether it can be used is known when it is loaded."""
    return any(any(checkpoint.glob(pattern)) for pattern in _TOKENIZERS)


def tokens_of(text: Path, checkpoint: Path) -> Tokens:
    """The tokens of a text by a checkpoint's tokenizer. Raises CheckpointError."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        ids = tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False, verbose=False)["input_ids"]
        first = [each for each in tokenizer("a")["input_ids"][:1] if each == tokenizer.bos_token_id]
    except Exception as error:  # libraries raise many kinds of errors for files that they do not support
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"{checkpoint}: its tokenizer cannot be used: {reason}") from None
    return Tokens(first, ids)


def kept_tokens(sha256: str, checkpoint: Path) -> Tokens:
    """The tokens of a text that was kept. A process of its own makes them, once: what a tokenizer takes is no part of
    what is measured. Raises CheckpointError."""
    inputs = hashlib.sha256(sha256.encode())
    for path in sorted(path for pattern in ("*.json", *_TOKENIZERS[2:], "*.txt") for path in checkpoint.glob(pattern)):
        inputs.update(path.read_bytes())
    request = {"text": str(saved(sha256)), "checkpoint": str(checkpoint)}
    folder = cache_root() / "tokens" / inputs.hexdigest()[:16]
    made_once(folder, "inference_benchmark.models.texts", request, f"{checkpoint}: no tokens could be made of the text")
    return Tokens(**files.read_json(folder / "tokens.json"))


def windows(text: Path, checkpoint: Path, tokens: int) -> numpy.ndarray:
    """The first tokens of a text by a checkpoint's tokenizer, at most so many: token ids, int64 (windows,
    WINDOW_TOKENS). If the tokenizer begins texts with a token of its own, each window begins with it, as in llama.cpp.
    Raises CheckpointError."""
    import numpy

    first, ids = tokens_of(text, checkpoint)
    n_windows = min(len(first + ids), tokens) // WINDOW_TOKENS
    if n_windows < FEWEST_WINDOWS:
        least = f"{FEWEST_WINDOWS} windows of {WINDOW_TOKENS}"
        raise CheckpointError(f"{len(ids)} tokens of the text are less than {least}; name a longer text")
    found = numpy.array((first + ids)[: n_windows * WINDOW_TOKENS], dtype=numpy.int64).reshape(n_windows, -1)
    found[:, : len(first)] = first
    return found


def prompts(tokens: Tokens, rows: int, prompt_tokens: int, seed: int) -> numpy.ndarray:
    """Windows of a text at places drawn from the seed, another for each row as long as there are: int64 (rows,
    prompt_tokens). A row is the same whatever the number of rows. If the tokenizer begins texts with a token of its
    own, each prompt of two tokens or more begins with it. Raises CheckpointError where the text is too short."""
    import numpy

    first = tokens.first[: prompt_tokens - 1]
    length = prompt_tokens - len(first)
    if (n_places := len(tokens.ids) - length + 1) < 1:
        raise CheckpointError(f"{len(tokens.ids)} tokens of the text are less than a prompt has; name a longer text")
    places = numpy.random.default_rng(seed).permutation(n_places)
    every = numpy.lib.stride_tricks.sliding_window_view(numpy.array(tokens.ids, dtype=numpy.int64), length)
    found = every[numpy.resize(places, rows)]
    return numpy.insert(found, 0, first[0], axis=1) if first else found


def check_known(ids: numpy.ndarray, vocab_size: int) -> None:
    """Raises CheckpointError if the tokenizer has more tokens than the model. ids: those of a text."""
    if (highest := ids.max()) >= vocab_size:
        raise CheckpointError(f"token {highest} of the text is none of the {vocab_size} that the model has")


def main(text: str, checkpoint: str, output: str) -> None:
    """Write the tokens of a text to a folder that does not exist. Ends the process as made_once expects."""
    try:
        tokens = tokens_of(Path(text), Path(checkpoint))
    except CheckpointError as error:
        print(error)
        sys.exit(REFUSED)
    files.write(json.dumps(tokens._asdict()), Path(output, "tokens.json"))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
