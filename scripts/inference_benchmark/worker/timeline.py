"""Where the time of a call of one cell goes. Its calls are no samples of the cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inference_benchmark.analysis.timeline import PROFILED_TOKENS, profile_result
from inference_benchmark.engines.engine import Engine
from inference_benchmark.experiment.studies import TimelineStudy, study_from_json
from inference_benchmark.worker.engine_session import EngineSession, timed_call
from inference_benchmark.worker.timed_calls import warm_up


class StepsError(RuntimeError):
    """The engine did not report the end of each step."""


def run(session: EngineSession, subject: str, checkpoint: str | None, trace: str | None) -> None:
    """subject: the study as JSON text. trace: the file for a Chrome trace; None without one.
    Sends a result for the steps, one for memory if the engine knows it, and one for the profile if there is one, or why
    it is empty."""
    study = study_from_json(subject)
    cell, new_tokens = study.cell, study.cell.workload.new_tokens
    engine = session.load(cell, checkpoint, cell.batch_size)
    prompts = session.draw_prompts(cell.batch_size)
    warm_up(session, prompts, new_tokens, cell.measurement)
    timed_in_steps(engine, prompts, new_tokens)  # the first such call may do one-time work
    session.enter("measure")
    session.emit(results=[_steps(engine, prompts, study)])
    if engine.memory_in_use_bytes() is not None:
        in_use: list[int] = []  # after each step of an untimed call: reading it takes time
        engine.generate_in_steps(prompts, new_tokens, lambda: in_use.append(engine.memory_in_use_bytes()))
        session.emit(results=[{"kind": "memory", "bytes": in_use}])
    profile, n_profiled = None, min(new_tokens, PROFILED_TOKENS)
    with session.if_memory_suffices():
        profile = engine.profile(prompts, n_profiled, Path(trace) if trace else None)
    if profile is not None and profile.work:
        session.emit(results=[profile_result(profile, n_profiled)])
    elif profile is not None:
        session.emit(profile_error="torch's profiler recorded no kernel: CUPTI is missing, or another profiler has it")


def timed_in_steps(engine: Engine, prompts, new_tokens: int) -> tuple[float, list[float]]:
    """(seconds of a call, seconds of each of its steps). The first step begins with the call and includes prefill.
    Raises StepsError, and as timed_call."""
    marks = [None]

    def generate(prompts, new_tokens: int):
        marks[0] = engine.mark()
        return engine.generate_in_steps(prompts, new_tokens, lambda: marks.append(engine.mark()))

    seconds, _ = timed_call(engine, generate, prompts, new_tokens)
    if len(marks) != new_tokens + 1:
        raise StepsError(f"{len(marks) - 1} steps ended in a call of {new_tokens} new tokens")
    return seconds, engine.seconds_between(marks)


def _steps(engine: Engine, prompts, study: TimelineStudy) -> dict[str, Any]:
    """Calls that nothing observes and calls in steps, in turn, until those are enough for a round of the cell."""
    settings, new_tokens = study.cell.measurement, study.cell.workload.new_tokens
    plain_s, observed = [], []
    while not settings.is_enough(plain_s):
        plain_s.append(timed_call(engine, engine.generate, prompts, new_tokens)[0])
        observed.append(timed_in_steps(engine, prompts, new_tokens))
    observed_s, step_s = zip(*observed, strict=True)
    return {"kind": "steps", "step_s": step_s, "plain_s": plain_s, "observed_s": observed_s}
