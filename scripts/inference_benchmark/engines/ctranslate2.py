"""CTranslate2: a C++ engine with its own kernels. Run as a module, it converts a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import numpy
import torch
from ctranslate2.converters import TransformersConverter
from transformers import AutoConfig

from inference_benchmark.engines import converted as conversion
from inference_benchmark.engines import refusal, shapes
from inference_benchmark.engines.converted import ConvertedEngine, tokens_of, vocab_size
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.machine import cublas
from inference_benchmark.models import loading
from inference_benchmark.models.cache import RefusedError

#: Families whose sliding window CTranslate2 applies to steps, after a prompt that fits in. It ignores that of others.
_WITH_WINDOW = ("gemma3", "gemma4", "mistral")


class CTranslate2Engine(ConvertedEngine):
    """Generator(compute_type=...).generate_batch(...)."""

    def start(self, device: str, threads: int, checkpoint: Path) -> None:
        if device == "cuda":
            cublas.load()
        super().start(device, threads, checkpoint)
        try:
            self.converted = converted(checkpoint)
        except RefusedError as error:
            raise UnsupportedError(str(error)) from error

    def unsupported(self, precision: str) -> str | None:
        supported = ctranslate2.get_supported_compute_types(self.device.type)
        compute_type = self._compute_type(precision)
        if compute_type in supported:
            return None
        version, listed = ctranslate2.__version__, ", ".join(sorted(supported))
        return f"ctranslate2 {version} has no {compute_type} on this {self.device.type}; it has {listed}"

    def load(self, checkpoint: Path, precision: str) -> None:
        self.begin_loading(self.converted)
        self.precision = precision
        try:
            self.generator = ctranslate2.Generator(
                str(self.converted),
                device=self.device.type,
                compute_type=self._compute_type(precision),
                inter_threads=1,
                intra_threads=self.threads,
            )
        except ValueError as error:  # of the model or the compute type
            raise UnsupportedError(refusal.words_of(error)) from error
        # CTranslate2 takes tokens as words. In the converted vocabulary the word of a token is its id in digits.
        self.words = [str(i) for i in range(self.vocab_size)]
        self.finish_loading()

    def not_loaded_as(self, precision: str) -> str | None:
        wanted, loaded = self._compute_type(precision), self.generator.compute_type
        return None if loaded == wanted else f"ctranslate2 computes in {loaded}, not in {wanted}"

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "class": "ctranslate2.Generator",
            "compute_type": self.generator.compute_type,
            "quantised": {"library": "ctranslate2"} if self.precision == "int8" else None,
        }

    def generate(self, prompts: numpy.ndarray, new_tokens: int) -> numpy.ndarray:
        return self._tokens(self._generate(prompts, new_tokens), new_tokens)

    def observe(self, prompts: numpy.ndarray, new_tokens: int) -> tuple[numpy.ndarray, dict[str, Any]]:
        # A row's score is the sum of its tokens' log probabilities: one NaN logit makes it NaN.
        results = self._generate(prompts, new_tokens, return_scores=True)
        scores = numpy.array([result.scores[0] for result in results])
        facts = {
            "activations": [shapes.dtype_name(self.activations)],
            "non_finite_rows": int((~numpy.isfinite(scores)).sum()),
        }
        return self._tokens(results, new_tokens), facts

    def generate_in_steps(self, prompts: numpy.ndarray, new_tokens: int, step_ended: Callable[[], None]):
        last_row = len(prompts) - 1

        def one_of_a_step(result) -> bool:
            if result.batch_id == last_row:
                step_ended()
            return False

        try:
            return self._tokens(self._generate(prompts, new_tokens, callback=one_of_a_step), new_tokens)
        finally:
            # A thread of the generator may be the last to drop the callback. If the generator went with it, that thread
            # would wait for itself.
            step_ended = None

    def next_token_logits(self, prompts: numpy.ndarray, continuation: numpy.ndarray) -> numpy.ndarray:
        ids = numpy.concatenate([prompts, continuation[:, :-1]], axis=1)
        self.refuse_beyond_window(ids.shape[1])
        logits = self.generator.forward_batch(ids.tolist()).to(ctranslate2.DataType.float32)
        if self.device.type == "cuda":
            logits = logits.to_device(ctranslate2.Device.cpu)
        return numpy.array(logits)[:, prompts.shape[1] - 1 :]

    def _generate(self, prompts: numpy.ndarray, new_tokens: int, **options: Any):
        n_in_steps = 0 if self.family.startswith(_WITH_WINDOW) else new_tokens - 1
        self.refuse_beyond_window(prompts.shape[1] + n_in_steps)
        words = self.words
        return self.generator.generate_batch(
            [[words[i] for i in row] for row in prompts.tolist()],
            beam_size=1,
            max_length=new_tokens,
            end_token=[],
            include_prompt_in_result=False,
            **options,
        )

    def _tokens(self, results, new_tokens: int) -> numpy.ndarray:
        return tokens_of([result.sequences_ids[0] for result in results], new_tokens)

    def unload(self) -> None:
        self.generator = None
        super().unload()

    def _compute_type(self, precision: str) -> str:
        half = "float16" if self.device.type == "cuda" else "float32"
        return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": f"int8_{half}"}[precision]

    @property
    def activations(self) -> torch.dtype:
        return getattr(torch, self.generator.compute_type.removeprefix("int8_"))

    def stored(self, module: torch.nn.Module) -> tuple[int, str]:
        """int8 has one scale per output; other precisions store the dtype of the activations."""
        elements, outputs = module.weight.numel(), shapes.sizes(module)[1]
        if self.precision == "int8":
            return elements + 4 * outputs, "int8"
        return elements * self.activations.itemsize, shapes.dtype_name(self.activations)


def converted(checkpoint: Path) -> Path:
    """The checkpoint in CTranslate2's format."""
    return conversion.converted("ctranslate2", checkpoint, ctranslate2.__version__)


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
    def load_model(self, model_class, folder, config, **options) -> torch.nn.Module:
        # Only its weights are read: the attention that its configuration names need not be installed.
        options |= {"config": loading.without_padding(config), "attn_implementation": "eager"}
        return loading.whole_model(model_class, folder, **options)

    def load_tokenizer(self, tokenizer_class, folder, **_) -> DigitTokenizer:
        return DigitTokenizer(vocab_size(AutoConfig.from_pretrained(folder)))


def convert(checkpoint: str, output: str) -> None:
    Converter(checkpoint).convert(output)


if __name__ == "__main__":
    conversion.main("ctranslate2", convert)
