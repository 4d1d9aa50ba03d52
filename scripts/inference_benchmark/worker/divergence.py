"""The answers of one engine and precision beside those of hf in fp32, on the same prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference_benchmark.analysis.divergence import REFERENCE, ROWS, STEPS, compare
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.worker.stage import Stage, Tell, draw_prompts, timed_call


def run(order: Mapping[str, Any], gpu: Gpu | None, tell: Tell) -> None:
    """order: ``study``, as JSON text, and ``checkpoint``. Tells one ``result``: what answers.compare finds."""
    study = ColumnStudy.from_json(order["study"])
    steps = min(study.workload["new_tokens"], STEPS)
    with Stage(tell) as stage:
        tokens, logits = [], []
        for engine_name, precision in (REFERENCE, (study.engine, study.precision)):
            engine = stage.load(engine_name, study.device, study.threads, order["checkpoint"], precision, None)
            if engine is None:
                return
            stage.enter("answer")
            prompts = draw_prompts(ROWS, study.workload["prompt_tokens"], study.seed, engine.vocab_size)
            tokens.append(timed_call(engine, engine.generate, prompts, steps)[1])
            # Each had the reference's tokens before it, so that logits stay comparable behind a first difference.
            logits.append(engine.next_token_logits(prompts, tokens[0]))
            engine.unload()
        tell("result", **compare(*tokens, *logits))
        tell("end", outcome="ok")
