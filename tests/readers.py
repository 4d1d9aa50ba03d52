"""Small models that read text: checkpoints with a tokenizer, and studies of how well they predict it."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from made_up import MODELS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from inference_benchmark.analysis.quality import WINDOW_TOKENS
from inference_benchmark.experiment.cells import Cell
from inference_benchmark.experiment.studies import QualityStudy
from inference_benchmark.models import texts
from inference_benchmark.models.synthesize import synthesize

#: The text that every Python has, as long as tests need it.
TEXT = texts.read(texts.PYTHON, Path(), 1000).content
#: Windows of a study: more than one call has.
N_WINDOWS = 5


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


def study_of(cell: Cell, n_windows: int = N_WINDOWS) -> QualityStudy:
    """Of TEXT, which is kept in the working directory."""
    text = texts.Text("some", TEXT)
    text.save()
    about = {"text": text.name, "text_sha256": text.sha256, "tokens": n_windows * WINDOW_TOKENS}
    return QualityStudy.of_text(about, cell)


def bare_perplexity(checkpoint: Path, n_windows: int = N_WINDOWS) -> float:
    """Of TEXT, by whole forward passes in fp32, and transformers' own loss."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(checkpoint)(TEXT, return_tensors="pt")["input_ids"]
    losses = []
    for window in ids[0, : n_windows * 512].split(512):
        labels = window.clone()
        labels[:257] = -100  # not scored
        with torch.no_grad():
            losses.append(model(window[None], labels=labels[None]).loss.item())
    return math.exp(sum(losses) / len(losses))
