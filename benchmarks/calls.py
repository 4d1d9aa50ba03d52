"""A timed call of an engine over the same call of its library, in turn on one loaded model. Run by the Python of the
engine's environment; prints the ratios as JSON.

argument: JSON with the arguments of pairs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy

from inference_benchmark import engines
from inference_benchmark.engines.engine import Engine
from inference_benchmark.worker.engine_session import draw_prompts, timed_call

#: Returns the new tokens of each row, in any order.
Call = Callable[[], Iterable[Sequence[int]]]


def _hf(engine: Engine, prompts: numpy.ndarray, new_tokens: int) -> Call:
    import torch

    ids = torch.from_numpy(prompts)
    options = dict(engine.generate_options)
    return lambda: engine.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        **options,
    ).numpy()[:, prompts.shape[1] :]


def _hf_continuous(engine: Engine, prompts: numpy.ndarray, new_tokens: int) -> Call:
    from transformers import ContinuousBatchingConfig, GenerationConfig

    room = ContinuousBatchingConfig(
        page_size=prompts.shape[1] + new_tokens,
        num_blocks=len(prompts),
        max_batch_tokens=prompts.size,
        allow_block_sharing=False,
    )
    settings = GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=new_tokens)

    def call() -> list[list[int]]:
        found = engine.model.generate_batch(prompts.tolist(), settings, room, persistent_manager=True)
        return [row.generated_tokens for row in found.values()]

    return call


def _ctranslate2(engine: Engine, prompts: numpy.ndarray, new_tokens: int) -> Call:
    words = [[str(i) for i in row] for row in prompts.tolist()]
    return lambda: [
        result.sequences_ids[0]
        for result in engine.generator.generate_batch(
            words, max_length=new_tokens, end_token=[], include_prompt_in_result=False
        )
    ]


def _openvino(engine: Engine, prompts: numpy.ndarray, new_tokens: int) -> Call:
    import openvino
    from openvino_genai import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=new_tokens, eos_token_id=engine.vocab_size, ignore_eos=True, do_sample=False
    )
    rows = [openvino.Tensor(prompts[number : number + 1]) for number in range(len(prompts))]
    return lambda: [row.m_generation_ids[0] for row in engine.pipeline.generate(rows, [settings] * len(rows))]


def _vllm(engine: Engine, prompts: numpy.ndarray, new_tokens: int) -> Call:
    from vllm import SamplingParams

    settings = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
    texts = [{"prompt_token_ids": row} for row in prompts.tolist()]
    return lambda: [row.outputs[0].token_ids for row in engine.llm.generate(texts, settings, use_tqdm=False)]


def _llama_cpp(engine: Engine, prompts: numpy.ndarray, new_tokens: int) -> Call:
    """As llama-batched-bench of llama.cpp, which is not in the package: a batch of all prompts, then one per step."""
    import llama_cpp

    (rows, length), shape = prompts.shape, (len(prompts), engine.vocab_size)
    engine.generate(prompts, new_tokens)  # makes a context with room for it
    of_prompts, of_step = llama_cpp.llama_batch_init(prompts.size, 0, 1), llama_cpp.llama_batch_init(rows, 0, 1)
    of_prompts.n_tokens, of_step.n_tokens = prompts.size, rows
    for index, token in enumerate(prompts.flat):
        row, position = divmod(index, length)
        of_prompts.token[index], of_prompts.pos[index] = int(token), position
        of_prompts.n_seq_id[index], of_prompts.seq_id[index][0] = 1, row
        of_prompts.logits[index] = position == length - 1
    for row in range(rows):
        of_step.n_seq_id[row], of_step.seq_id[row][0], of_step.logits[row] = 1, row, 1

    def call() -> Iterable[Sequence[int]]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(engine.context), False)
        steps = []
        for step in range(new_tokens):
            assert llama_cpp.llama_decode(engine.context, of_step if step else of_prompts) == 0
            logits = numpy.ctypeslib.as_array(llama_cpp.llama_get_logits(engine.context), shape)
            steps.append(logits.argmax(axis=1).tolist())
            for row, token in enumerate(steps[-1]):
                of_step.token[row], of_step.pos[row] = token, length + step
        return zip(*steps, strict=True)

    return call


#: By engine, what a user of its library would write for the model that the engine has loaded.
BARE: dict[str, Callable[[Engine, numpy.ndarray, int], Call]] = {
    "hf": _hf,
    "hf-static": _hf,
    "hf-continuous": _hf_continuous,
    "ctranslate2": _ctranslate2,
    "openvino": _openvino,
    "vllm": _vllm,
    "llama-cpp": _llama_cpp,
}


def pairs(
    name: str, folder: str, precision: str, rows: int, prompt_tokens: int, new_tokens: int, seconds: float
) -> list[float]:
    """Our call over the bare one, once and then for so many seconds; [] where the device lacks the precision."""
    engine = engines.create(name)
    engine.start("cpu", len(os.sched_getaffinity(0)), Path(folder))
    engine.expect(rows, prompt_tokens, new_tokens)
    if engine.unsupported(precision):
        return []
    engine.load(Path(folder), precision)
    prompts = draw_prompts(rows, prompt_tokens, 0, engine.vocab_size)
    bare = BARE[name](engine, prompts, new_tokens)
    if precision == "fp32":
        assert sorted(map(list, bare())) == sorted(engine.generate(prompts, new_tokens).tolist())

    def bare_s() -> float:
        began = time.perf_counter()
        bare()
        return time.perf_counter() - began

    def ours_s() -> float:
        return timed_call(engine, engine.generate, prompts, new_tokens)[0]

    for _ in range(3):
        ours_s(), bare_s()
    found, began = [], time.monotonic()
    while not found or time.monotonic() - began < seconds:
        # Each first every other time, so that a drift of the machine's speed cancels.
        ours, theirs = (ours_s(), bare_s()) if len(found) % 2 else reversed((bare_s(), ours_s()))
        found.append(ours / theirs)
    return found


if __name__ == "__main__":
    print(json.dumps(pairs(**json.loads(sys.argv[1]))))
