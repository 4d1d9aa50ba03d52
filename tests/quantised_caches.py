"""What real quantised caches hold, as JSON: run in a process of its own, with hqq on its path."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from real_engines import load_from, prompts

from inference_benchmark.analysis import roofline
from inference_benchmark.analysis.roofline import Shapes
from inference_benchmark.engines import hf
from inference_benchmark.engines.options import CACHE_BITS
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.models.synthesize import synthesize

#: Keys or values of a token are at least 256 numbers in a layer, so that hqq packs them with any number of bits.
_SIZES = {"hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 300}
_LIKE_LLAMA = {**_SIZES, "num_key_value_heads": 4, "intermediate_size": 128, "max_position_embeddings": 512}
FAMILIES: dict[str, dict[str, Any]] = {
    "bloom": {"model_type": "bloom", "hidden_size": 256, "n_head": 4, "n_layer": 2, "vocab_size": 300},
    "llama-grouped": {**_LIKE_LLAMA, "model_type": "llama", "num_key_value_heads": 2, "head_dim": 128},
    "falcon-multi-query": {**_SIZES, "model_type": "falcon", "num_attention_heads": 1, "multi_query": True, "alibi": False},
    "minicpm3-latent": {
        **_LIKE_LLAMA, "model_type": "minicpm3", "q_lora_rank": 32, "kv_lora_rank": 256, "qk_rope_head_dim": 256,
        "qk_nope_head_dim": 16, "v_head_dim": 16,
    },
}  # fmt: skip
ROWS, PROMPT_TOKENS = 3, 7
NEW_TOKENS = (1, 5)
#: The last token but one, which is the last in the cache, is one before, at and after the end of the window of tokens that
#: are not quantised.
AROUND_THE_WINDOW = (128, 129, 130)


def held_bytes(cache: Any) -> int:
    """The bytes of all tensors of a cache, whatever they are named."""
    found: dict[int, torch.Tensor] = {}

    def look_into(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[id(value)] = value
        elif isinstance(value, (tuple, dict)):
            for part in value.values() if isinstance(value, dict) else value:
                look_into(part)

    for layer in cache.layers:
        look_into(vars(layer))
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())


def read_bytes(shapes: Shapes, new_tokens: int) -> int:
    """What the floor counts as read from the cache by the step after these new tokens."""
    if new_tokens == 1:
        return ROWS * PROMPT_TOKENS * shapes.prompt_kv_bytes
    step = roofline.decode(shapes, ROWS, PROMPT_TOKENS, new_tokens + 1).moved_bytes_of(new_tokens - 1)
    own = shapes.weight_bytes + ROWS * (shapes.lookup_bytes + shapes.kv_bytes + 2 * shapes.logit_bytes)
    return step - own


def caches(folder: Path, precision: str, option: str, lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(new tokens, bytes in the cache after them, bytes that the floor counts) of calls with a quantised cache."""
    engine = load_from(folder, "hf", precision, cache=option)
    shapes, found = Shapes.from_record(engine.describe()["shapes"]), []
    for new_tokens in lengths:
        output = engine._generate(prompts(ROWS, PROMPT_TOKENS, 300), new_tokens, return_dict_in_generate=True)
        found.append((new_tokens, held_bytes(output.past_key_values), read_bytes(shapes, new_tokens)))
    return found


def differing_logits(folder: Path, option: str) -> int:
    """How many logits of a text are others than those that generate chooses by."""
    engine, ids = load_from(folder, "hf", cache=option), prompts(ROWS, PROMPT_TOKENS, 300)
    of_text = numpy.stack([*engine.text_logits(ids, ids[:, :5])])
    return int((of_text != engine.next_token_logits(ids, ids[:, :5])).sum())


def another(folder: Path, option: str, other: str) -> str:
    """What an engine says that was asked for one cache and gets another."""
    engine = load_from(folder, "hf", cache=option)
    engine.generate_options = hf._CACHES[other][1]
    try:
        engine.observe(prompts(1, PROMPT_TOKENS, 300), 4)
    except UnsupportedError as error:
        return str(error)
    return ""


def main() -> None:
    checkpoints = {family: Path(tempfile.mkdtemp(dir=sys.argv[1])) for family in FAMILIES}
    for family, folder in checkpoints.items():
        synthesize(FAMILIES[family], seed=0).save_pretrained(folder)
    of_bloom = checkpoints["bloom"]
    result = {
        "caches": {
            f"{family} {precision} {option}": caches(folder, precision, option, NEW_TOKENS)
            for family, folder in checkpoints.items()
            for precision in (("fp32", "bf16", "int8") if family == "bloom" else ("bf16",))  # int8 caches fp16
            for option in CACHE_BITS
        },
        "window": caches(of_bloom, "bf16", "quantized-4bit", AROUND_THE_WINDOW),
        "another": [another(of_bloom, "quantized-4bit", other) for other in ("quantized-8bit", "dynamic")],
        "differing_logits": differing_logits(of_bloom, "quantized-2bit"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
