"""How far the answers of one engine and precision are from those of hf in fp32 to the same prompts."""

from __future__ import annotations

from dataclasses import replace

from inference_benchmark.analysis.divergence import REFERENCE, ROWS, STEPS, divergence
from inference_benchmark.engines.options import placed
from inference_benchmark.experiment.studies import study_from_json
from inference_benchmark.worker.engine_session import EngineSession, timed_call


def run(session: EngineSession, subject: str, checkpoint: str | None) -> None:
    """subject: the study as JSON text. Sends one result: the figures of analysis.divergence."""
    study = study_from_json(subject)
    steps = min(study.workload.new_tokens, STEPS)
    tokens, logits = [], []
    engine_name, precision = REFERENCE
    # One that does not fit on a device is placed as what is compared with it.
    reference = replace(study, engine=engine_name, options=placed(study.options), precision=precision)
    for each in (reference, study):
        engine = session.load(each, checkpoint, ROWS)
        engine.lift_limit()  # it decided where weights are; the logits of all steps need memory beyond it
        session.enter("answer")
        prompts = session.draw_prompts(ROWS)
        tokens.append(timed_call(engine, engine.generate, prompts, steps)[1])
        # Both follow the reference's tokens, so that logits stay comparable after a first difference.
        logits.append(engine.next_token_logits(prompts, tokens[0]))
        engine.unload()
    session.emit(results=[divergence(*tokens, *logits)])
