"""Small models that read text: checkpoints with a tokenizer."""

from __future__ import annotations

from pathlib import Path

from made_up import MODELS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from inference_benchmark.models import texts
from inference_benchmark.models.synthesize import synthesize

#: The text that every Python has, as long as tests need it.
TEXT = texts.read(texts.PYTHON, Path(), 1000).content


def save(folder: Path, family: str = "llama", begin: bool = False) -> Path:
    """A folder with a model of a family in MODELS and a byte-level tokenizer learnt from TEXT. begin: whether that
    begins each text with a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MODELS[family]["vocab_size"],
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    synthesize(MODELS[family], 0).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    return folder
