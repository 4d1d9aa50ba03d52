"""The largest batch that fits: every try is two full-length calls on memory that the tries before have given back.

On CUDA all tries share one loaded model. On the CPU numerical libraries keep scratch space and compiled kernels
for every shape that they have met, and give none of it back; there each try is a fork of a process that has
imported everything and allocated nothing.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis.max_batch import next_batch_size
from inference_benchmark.experiment.studies import ColumnStudy
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.worker.stage import Stage, Tell, die_with_parent, draw_prompts, qualified, timed_call

#: The result of trying a batch size; None where the task has ended, which has been told.
Attempt = Callable[[int], dict[str, Any] | None]


class TryError(RuntimeError):
    """A try failed, and not for memory."""


def run(order: Mapping[str, Any], gpu: Gpu | None, tell: Tell) -> None:
    """order: ``study``, as JSON text, ``checkpoint``, and ``tries``, what an earlier worker had found.

    Tells ``trying`` before and a ``result`` after each try.
    """
    study = ColumnStudy.from_json(order["study"])
    if study.device == "cpu":
        engines.create(study.engine)  # imports all, for the forks
        _search(order["tries"], lambda batch_size: _in_a_fork(study, order["checkpoint"], batch_size, tell), tell)
        return
    with Stage(tell) as stage:
        if engine := _load(stage, study, order["checkpoint"]):
            _search(order["tries"], lambda batch_size: _try(engine, study, batch_size), tell)


def _search(known: list[dict[str, Any]], attempt: Attempt, tell: Tell) -> None:
    tries = list(known)
    while (batch_size := next_batch_size(tries)) is not None:
        tell("trying", batch_size=batch_size)
        found = attempt(batch_size)
        if found is None:
            return
        tries.append(found)
        tell("result", **found)
    tell("end", outcome="ok")


def _load(stage: Stage, study: ColumnStudy, checkpoint: str | None) -> engines.Engine | None:
    engine = stage.load(
        study.engine, study.device, study.threads, checkpoint, study.precision, study.memory_limit_bytes
    )
    stage.enter("search")
    return engine


def _in_a_fork(study: ColumnStudy, checkpoint: str | None, batch_size: int, tell: Tell) -> dict[str, Any] | None:
    """One try in a process of its own. Whatever kills it kills this one too, for the parent to judge."""
    fork = multiprocessing.get_context("fork")
    reading, writing = fork.Pipe(duplex=False)

    def child() -> None:
        die_with_parent()
        found = None
        try:
            with Stage(tell) as stage:
                if engine := _load(stage, study, checkpoint):
                    found = _try(engine, study, batch_size)
        except Exception as error:
            found = f"{qualified(error)}: {error}"
        writing.send(found)

    process = fork.Process(target=child)
    process.start()
    writing.close()
    try:
        found = reading.recv()
    except EOFError:
        process.join()
        if process.exitcode < 0:
            os.kill(os.getpid(), -process.exitcode)
        raise TryError(f"a try ended with exit status {process.exitcode} and no result") from None
    process.join()
    if isinstance(found, str):
        raise TryError(found)
    return found


def _try(engine: engines.Engine, study: ColumnStudy, batch_size: int) -> dict[str, Any]:
    """Two calls, the first two of a cell: what one leaves behind the next may lack, and one that compiles on the CPU
    does so outside the limit."""
    engine.release()
    engine.reset_peak_memory()
    workload = study.workload
    prompts = draw_prompts(batch_size, workload["prompt_tokens"], study.seed, engine.vocab_size)
    found: dict[str, Any] = {"batch_size": batch_size, "fits": True, "exception_type": None, "message": None}
    try:
        timed_call(engine, lambda *call: engine.observe(*call)[0], prompts, workload["new_tokens"])
        timed_call(engine, engine.generate, prompts, workload["new_tokens"])
    except Exception as error:
        if not engine.is_out_of_memory(error):
            raise
        found |= {"fits": False, "exception_type": qualified(error), "message": str(error)}
    return found | {"memory": engine.memory()}
