"""Converts a checkpoint for CTranslate2. Runs as a separate process, once per checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ctranslate2.converters import TransformersConverter

from inference_benchmark.engines.conversion import report


class DigitTokenizer:
    """Replaces the model's tokenizer: the word of a token is its id in digits.

    The benchmark uses token ids only, and synthesized weights have no tokenizer.
    """

    bos_token = eos_token = unk_token = "0"

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def get_vocab(self) -> dict[str, int]:
        return {str(i): i for i in range(self.vocab_size)}


class Converter(TransformersConverter):
    def load_tokenizer(self, tokenizer_class, folder, **_) -> DigitTokenizer:
        return DigitTokenizer(json.loads((Path(folder) / "config.json").read_text())["vocab_size"])


def main(request: str) -> int:
    """request: JSON with checkpoint and output, a folder that does not exist."""
    arguments = json.loads(request)
    print(f"converting {arguments['checkpoint']} for ctranslate2", file=sys.stderr)
    try:
        Converter(arguments["checkpoint"]).convert(arguments["output"])
    except Exception as error:  # the converter raises many kinds of errors for unsupported models
        return report(error, "ctranslate2 cannot convert this model")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
