"""How far the answers of one engine and precision are from those of hf in fp32 to the same prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inference_benchmark.analysis.divergence import REFERENCE, ROWS, STEPS, divergence
from inference_benchmark.experiment.studies import study_from_json
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.worker.engine_session import EngineSession, draw_prompts, timed_call
from inference_benchmark.worker.process import Emit


def run(order: Mapping[str, Any], gpu: Gpu | None, emit: Emit) -> None:
    """order: ``study``, as JSON text, and ``checkpoint``. Sends one ``result``: the figures of analysis.divergence."""
    study = study_from_json(order["study"])
    steps = min(study.workload.new_tokens, STEPS)
    with EngineSession(emit, gpu) as session:
        tokens, logits = [], []
        engine_name, precision = REFERENCE
        reference = replace(study, engine=engine_name, options={}, precision=precision)
        for subject in (reference, study):
            engine = session.load(subject, order["checkpoint"])
            if engine is None:
                return
            session.enter("answer")
            prompts = draw_prompts(ROWS, study.workload.prompt_tokens, study.seed, engine.vocab_size)
            tokens.append(timed_call(engine, engine.generate, prompts, steps)[1])
            # Both follow the reference's tokens, so that logits stay comparable after a first difference.
            logits.append(engine.next_token_logits(prompts, tokens[0]))
            engine.unload()
        emit("result", **divergence(*tokens, *logits))
        emit("end", outcome="ok")
