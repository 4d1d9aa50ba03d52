"""Search for the largest batch that fits. Each try is two full-length calls; before it, all memory is released.

On CUDA all tries share one loaded model. On the CPU, numerical libraries keep scratch space and compiled kernels for
every shape and never release them. So there each try is a fork of a process that has imported everything and allocated
nothing.
"""

from __future__ import annotations

import multiprocessing
from functools import partial
from signal import raise_signal
from typing import Any

from inference_benchmark import engines
from inference_benchmark.analysis.max_batch import next_batch_size
from inference_benchmark.engines.refusal import UnsupportedError
from inference_benchmark.experiment.studies import ColumnStudy, study_from_json
from inference_benchmark.worker.engine_session import EngineSession, OutOfMemory, out_of_memory, timed_call
from inference_benchmark.worker.process import die_with_parent, qualified_name


class TryError(RuntimeError):
    """A try failed, and not for lack of memory."""


def run(session: EngineSession, subject: str, checkpoint: str | None, tries: list[dict[str, Any]]) -> None:
    """subject: the study as JSON text. tries: those of earlier workers. Sends the start and the result of each try."""
    study = study_from_json(subject)
    if study.device == "cpu":
        engines.create(study.base_engine)  # imports everything, for the forks
        try_batch = partial(_try_in_a_fork, session, study, checkpoint)
    else:
        session.load(study, checkpoint, rows=1)
        session.enter("search")
        try_batch = partial(_try, session, study)
    while (batch_size := next_batch_size(tries, study.tolerance)) is not None:
        session.emit(trying=batch_size)
        tries.append(try_batch(batch_size))
        session.emit(results=tries[-1:])


def _try_in_a_fork(
    session: EngineSession, study: ColumnStudy, checkpoint: str | None, batch_size: int
) -> dict[str, Any]:
    """One try in a process of its own. If that ends without a result, so does this one, for the parent to classify."""
    fork = multiprocessing.get_context("fork")
    reading, writing = fork.Pipe(duplex=False)

    def child() -> None:
        die_with_parent()
        session_of_try, results = EngineSession(session.emit, ()), []

        def load_and_try() -> None:
            session_of_try.load(study, checkpoint, batch_size)
            session_of_try.enter("search")
            results.append(_try(session_of_try, study, batch_size))

        try:
            end = session_of_try.end_of(load_and_try)
        except Exception as error:
            end = f"{qualified_name(error)}: {error}"
        writing.send((results, end))

    process = fork.Process(target=child)
    process.start()
    writing.close()
    try:
        results, end = reading.recv()
    except EOFError:
        process.join()
        if process.exitcode < 0:
            raise_signal(-process.exitcode)
        raise SystemExit(process.exitcode) from None
    process.join()
    if isinstance(end, str):
        raise TryError(end)
    if not results:
        session.emit(end=end)
        raise SystemExit(0)
    return results[0]


def _try(session: EngineSession, study: ColumnStudy, batch_size: int) -> dict[str, Any]:
    """Two calls, as the first two of a cell: the second may lack memory that the first keeps, and a call that compiles
    on the CPU is not under the limit. Out of memory is raised if this process can no longer be used."""
    engine, workload = session.engine, study.workload
    engine.release()
    engine.reset_peak_memory()
    result: dict[str, Any] = {"batch_size": batch_size, "fits": True, "exception_type": None, "message": None}
    try:
        engine.expect(batch_size, workload.prompt_tokens, workload.new_tokens)
        prompts = session.draw_prompts(batch_size)
        timed_call(engine, lambda *call: engine.observe(*call)[0], prompts, workload.new_tokens)
        timed_call(engine, engine.generate, prompts, workload.new_tokens)
    except Exception as error:
        shortage = out_of_memory(engine, error, session.gpus)
        if shortage is None and batch_size > 1 and isinstance(error, UnsupportedError):  # too many rows for the library
            shortage = OutOfMemory(qualified_name(error), str(error), {})
        # What a recording that ran out of memory leaves of torch's allocator is not known.
        if shortage is None or shortage.evidence or "cuda_graphs_recorded" in engine.compilation():
            raise
        result |= {"fits": False, "exception_type": shortage.exception_type, "message": shortage.message}
    return result | {"memory": engine.memory()}
