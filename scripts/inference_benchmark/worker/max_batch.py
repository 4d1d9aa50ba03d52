"""Search for the largest batch that fits. Each try is two full-length calls; before it, all memory is released.

On CUDA all tries share one loaded model. On the CPU, numerical libraries keep scratch space and compiled kernels for
every shape they have met and never release them. So there each try is a fork of a process that has imported everything
and allocated nothing.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis.max_batch import next_batch_size
from inference_benchmark.experiment.studies import ColumnStudy, study_from_json
from inference_benchmark.machine.hardware import Gpu
from inference_benchmark.worker.engine_session import EngineSession, draw_prompts, out_of_memory, timed_call
from inference_benchmark.worker.process import Emit, die_with_parent, qualified_name

#: The result of trying a batch size; None where the task has ended, with an event.
Attempt = Callable[[int], dict[str, Any] | None]


class TryError(RuntimeError):
    """A try failed, and not for lack of memory."""


def run(order: Mapping[str, Any], gpu: Gpu | None, emit: Emit) -> None:
    """order: ``study``, as JSON text, ``checkpoint``, and ``tries``, those of earlier workers.

    Sends ``trying`` before and a ``result`` after each try.
    """
    study = study_from_json(order["study"])
    tries, tolerance = order["tries"], study.tolerance
    if study.device == "cpu":
        engines.create(study.base_engine)  # imports all, for the forks
        _search(tries, tolerance, lambda batch_size: _in_a_fork(study, order["checkpoint"], batch_size, emit), emit)
        return
    with EngineSession(emit, gpu) as session:
        if engine := _load(session, study, order["checkpoint"]):
            _search(tries, tolerance, lambda batch_size: _try(engine, study, batch_size, gpu), emit)


def _search(earlier: list[dict[str, Any]], tolerance: float, attempt: Attempt, emit: Emit) -> None:
    tries = list(earlier)
    while (batch_size := next_batch_size(tries, tolerance)) is not None:
        emit("trying", batch_size=batch_size)
        result = attempt(batch_size)
        if result is None:
            return
        tries.append(result)
        emit("result", **result)
    emit("end", outcome="ok")


def _load(session: EngineSession, study: ColumnStudy, checkpoint: str | None) -> engines.Engine | None:
    engine = session.load(study, checkpoint)
    session.enter("search")
    return engine


def _in_a_fork(study: ColumnStudy, checkpoint: str | None, batch_size: int, emit: Emit) -> dict[str, Any] | None:
    """One try in a process of its own. This process ends as a try without a result did, for the parent to classify."""
    fork = multiprocessing.get_context("fork")
    reading, writing = fork.Pipe(duplex=False)

    def child() -> None:
        die_with_parent()
        result = None
        try:
            with EngineSession(emit, None) as session:
                if engine := _load(session, study, checkpoint):
                    result = _try(engine, study, batch_size, None)
        except Exception as error:
            result = f"{qualified_name(error)}: {error}"
        writing.send(result)

    process = fork.Process(target=child)
    process.start()
    writing.close()
    try:
        result = reading.recv()
    except EOFError:
        process.join()
        if process.exitcode < 0:
            os.kill(os.getpid(), -process.exitcode)
        raise SystemExit(process.exitcode) from None
    process.join()
    if isinstance(result, str):
        raise TryError(result)
    return result


def _try(engine: engines.Engine, study: ColumnStudy, batch_size: int, gpu: Gpu | None) -> dict[str, Any]:
    """Two calls, as the first two of a cell: memory that the first keeps, the second may lack; and a call that compiles
    on the CPU does so outside the limit. Out of memory is raised where this process is of no more use."""
    engine.release()
    engine.reset_peak_memory()
    workload = study.workload
    result: dict[str, Any] = {"batch_size": batch_size, "fits": True, "exception_type": None, "message": None}
    try:
        prompts = draw_prompts(batch_size, workload.prompt_tokens, study.seed, engine.vocab_size)
        timed_call(engine, lambda *call: engine.observe(*call)[0], prompts, workload.new_tokens)
        timed_call(engine, engine.generate, prompts, workload.new_tokens)
    except Exception as error:
        shortage = out_of_memory(engine, error, gpu)
        if shortage is None or shortage.evidence:
            raise
        result |= {"fits": False, "exception_type": shortage.exception_type, "message": shortage.message}
    return result | {"memory": engine.memory()}
