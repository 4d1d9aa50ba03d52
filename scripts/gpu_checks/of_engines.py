"""Checks that use libraries, or load an engine, in their own process."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from gpu_checks.runner import Verdict, first_line, ok_if, skipped
from gpu_checks.setup import STATIC, Setup, loaded
from inference_benchmark.analysis.divergence import gap
from inference_benchmark.machine import hardware
from inference_benchmark.units import format_bytes
from inference_benchmark.worker.engine_session import draw_prompts, out_of_memory, timed_call
from inference_benchmark.worker.server import device_files

#: Kernels of CUDA take at most so many matrices per launch (the y and z dimensions of a grid).
MOST_MATRICES = 65_535
#: Logits of two tokens that are less apart, in standard deviations of all logits, are a near-tie.
NEAR_TIE = 1e-3
#: What graphs and libraries may hold besides a cache of 1.1 GB.
BESIDES_CACHE_BYTES = 2**28


def check_libraries(setup: Setup) -> Verdict:
    """Nothing here decides whether a cell is measured: NVML is asked in no process that forks workers, and the version
    of cuDNN is for the record alone."""
    hardware.gpus()
    held = device_files()
    import torch

    from inference_benchmark.engines.hf_facts import torch_settings

    found = {name: torch_settings(torch.device(setup.device))[name] for name in ("cuda", "cudnn")}
    shown = f"CUDA {found['cuda']}, cuDNN {found['cudnn']}; files that NVML left open: {', '.join(held) or 'none'}"
    return ok_if(True, shown, {**found, "held": held})


def check_capture(setup: Setup) -> Verdict:
    """What a CUDA graph leaves that runs out of memory while it is recorded. A cell then ends with its process, and so
    does a try of a search, so no figure depends on the answer. Memory is limited to what prefill with the cache of the
    whole call has taken; recording takes more."""
    rows, prompt_tokens = setup.cached
    with loaded(setup, STATIC, setup.precision) as engine:
        import torch

        prompts = draw_prompts(rows, prompt_tokens + setup.new_tokens - 1, 0, engine.vocab_size)
        call = prompts[:, :prompt_tokens], setup.new_tokens
        wanted = engine.observe(*call)[0]
        engine.release()
        engine.generate(prompts, 1)
        engine.limit_memory(torch.cuda.memory_reserved())
        try:
            engine.generate(*call)
        except Exception as error:
            if (shortage := out_of_memory(engine, error, ())) is None:
                raise
        else:
            return skipped("recording needs no more memory than prefill")
        engine.limit_memory(torch.cuda.get_device_properties(0).total_memory)
        engine.release()
        same = bool((engine.generate(*call) == wanted).all())
    return ok_if(
        True, f"{first_line(shortage.message)}; then in the same process {'the same' if same else 'other'} tokens"
    )


def check_rows(setup: Setup, engine_name: str) -> Verdict:
    """A batch of another size may add in another order, and so a token may differ at a near-tie, but nowhere else."""
    heads = setup.probe["n_head"]
    n_rows = MOST_MATRICES // heads + 2  # the last row is beyond with all of its heads
    compared = sorted({*range(32), *range(0, n_rows, n_rows // 64), *range(n_rows - 32, n_rows)})
    with loaded(setup, engine_name, "fp32") as engine:
        prompts = draw_prompts(n_rows, 9, 0, engine.vocab_size)
        try:
            large = timed_call(engine, engine.generate, prompts, 4)[1][compared]
        except Exception as error:
            if engine.is_out_of_memory(error):
                return skipped(f"{n_rows:,} rows do not fit: {first_line(str(error))}")
            raise
        engine.release()
        prompts = prompts[compared]
        small = timed_call(engine, engine.generate, prompts, 4)[1]
        differing = (large != small).any(axis=1)
        gaps = []
        if differing.any():
            logits = engine.next_token_logits(prompts[differing], small[differing])
            gaps = token_gaps(large[differing], small[differing], logits)
    text = f"{n_rows:,} rows x {heads} heads = {n_rows * heads:,}: of {len(compared)} rows {len(gaps)} differ"
    if gaps:
        text += f", where logits are up to {max(gaps):.1g} standard deviations apart; a near-tie is below {NEAR_TIE:g}"
    return ok_if(all(gap < NEAR_TIE for gap in gaps), text, {"rows": n_rows, "compared": len(compared), "gaps": gaps})


def token_gaps(tokens, wanted, logits) -> list[float]:
    """How far apart the logits of both tokens are where each row first differs, in standard deviations of all logits.

    tokens, wanted: int64 (rows, steps), with a difference in each row. logits: float32 (rows, steps, vocabulary), each
    given the wanted tokens before it.
    """
    gaps = []
    for found_row, wanted_row, steps in zip(tokens, wanted, logits, strict=True):
        step = int((found_row != wanted_row).argmax())
        gaps.append(gap(steps[step], found_row[step], wanted_row[step]))
    return gaps


def check_caches(setup: Setup) -> Verdict:
    rows, prompt_tokens = setup.cached
    with loaded(setup, STATIC, setup.precision) as engine:
        import torch
        from transformers import StaticCache

        on_cuda = setup.device == "cuda"
        before_bytes = torch.cuda.memory_allocated() if on_cuda else 0

        def live() -> list[StaticCache]:
            return [value for value in gc.get_objects() if type(value) is StaticCache]

        def held_bytes() -> int:
            return torch.cuda.memory_allocated() - before_bytes if on_cuda else 0

        prompts = draw_prompts(rows, prompt_tokens, 0, engine.vocab_size)
        counts, held = [], []
        for call in (engine.observe, *[engine.generate] * 4):
            call(prompts, setup.new_tokens)
            engine.synchronize()
            counts.append(len(live()))
            held.append(held_bytes())
        cache_bytes = sum(
            part.nbytes for cache in live() for layer in cache.layers for part in (layer.keys, layer.values)
        )
        engine.release()
        counts.append(len(live()))
        held.append(held_bytes())
    return caches(counts, cache_bytes, held if on_cuda else None)


def caches(counts: Sequence[int], cache_bytes: int, held_bytes: Sequence[int] | None) -> Verdict:
    """counts: of live caches after each call and after the release. held_bytes: allocated then, without the model; None
    where nothing tells. The first call is not looked at, as recording CUDA graphs takes the second."""
    facts = {"live": counts, "cache_bytes": cache_bytes, "held_bytes": held_bytes}
    is_ok = set(counts[:-1]) == {1} and counts[-1] == 0
    shown = f"live caches after each call: {', '.join(map(str, counts[:-1]))}; after their release: {counts[-1]}"
    if held_bytes is not None:
        most_bytes = max(held_bytes[1:-1])
        is_ok = is_ok and cache_bytes <= most_bytes < cache_bytes + BESIDES_CACHE_BYTES
        is_ok = is_ok and held_bytes[-1] < BESIDES_CACHE_BYTES
        shown += (
            f"; of {format_bytes(cache_bytes)}; allocated besides the model: {', '.join(map(format_bytes, held_bytes))}"
        )
    return ok_if(is_ok, shown, facts)
